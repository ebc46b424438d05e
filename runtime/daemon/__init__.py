"""The Engine API: what Docker's clients speak, over this store.

`api` has versions, headers and the table of routes; `system`, `images` and `building` have the routes; `wire` spells
our values as Docker's JSON does, `errors` our errors as its statuses; `service` is the process. It knows no builder:
`building` says what it needs of one, and the command line hands one in. It works on what other commands of `pipe` see.
"""
