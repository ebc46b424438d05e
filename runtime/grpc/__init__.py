"""gRPC on a connection somebody else made: HTTP/2 framing, messages, streams, statuses, as server and as client.

It knows no services. A server is a table from method paths to functions (`server.py`); a client asks through a
`Connection` (`client.py`). Everything blocks; each stream of a server has a thread of its own.
"""
