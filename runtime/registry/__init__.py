"""The embedded registry: the distribution API on the store itself.

`names` says which repository is which reference, `repositories` what a repository holds, `uploads` receives blobs,
`api` speaks HTTP, `service` is the process that serves. There is no second copy of anything: a blob that is pushed
becomes a blob of the store, an image that was only built is served by making its manifest when somebody asks.
"""
