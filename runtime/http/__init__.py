"""A small HTTP/1.1 server: h11 on threads, for the embedded registry and the Engine API.

It knows nothing of what it serves. `messages` has the values, `router` finds the handler, `connection` speaks the
protocol on one socket, `server` owns sockets and threads. No event loop: a handler may block, stream both ways, send
a file with sendfile(2), or take the raw socket over.
"""
