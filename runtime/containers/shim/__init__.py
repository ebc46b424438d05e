"""The process that a container lives under. It is forked from the spawner, so its imports are kept few.

Nothing here opens the database: a shim knows one container, from the plan it was given, and tells how it is through
`state.json` and the control socket. It is single-threaded, because it starts processes.
"""
