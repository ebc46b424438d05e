"""BuildKit's own API, so that `docker buildx build` builds here: Control and LLBBridge on `/grpc`, the client's services on
`/session`.

The client sends a Dockerfile build (never LLB: there is no solver of foreign graphs here), which becomes a `BuildRequest`
like any other (`asked`). Its files come through `filesync` into a directory that is kept between builds (`contexts`),
secrets, logins and ssh agents are asked for when a step needs them (`lent`), what happens is told as vertices
(`vertices`), and outputs go back through `filesend`. A build is a `Job` (`jobs`); `control` and `bridge` are the services.
"""
