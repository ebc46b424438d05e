"""Sockets and threads of the HTTP server: listen, accept, one thread per connection, a graceful end.

    server = Server(handler, [listen_tcp("127.0.0.1", 0)])
    with server: …                      # or server.wait() in the main thread

A handler raises HttpError to answer with a status; anything else it raises is a bug, logged and answered with 500.
`stop` lets running requests end for a while, then cuts them off.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from runtime.errors import Conflict, HostFault
from runtime.http.connection import Connection, Limits
from runtime.http.messages import Disconnected, HttpError, Request, Response

log = logging.getLogger("pipe.http")

Handler = Callable[[Request], Response]
OnError = Callable[[Request, HttpError], Response]


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"{host}:{port} is in use", hint="choose another port, or 0 for any free one"
            ) from error
        raise HostFault(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def listen_unix(path: str, mode: int = 0o660, group: int = -1) -> socket.socket:
    """A listening unix socket at `path`, which takes the place of one nobody listens on; `group` -1 is our own."""
    with _alone_in(os.path.dirname(path) or "."):
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody may connect before the mode is set: created with no permissions at all.
            before = os.umask(0o777)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            os.chown(path, -1, group)
            os.chmod(path, mode)
            sock.listen(128)
        except OSError as error:
            sock.close()
            raise HostFault(f"cannot listen on {path}: {error.strerror or error}") from error
        return sock


@contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Of two who start at once, one must not take the other's socket for a stale one before it listens."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostFault(f"cannot listen in {directory}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise HostFault(f"cannot use {path}: {error.strerror}") from error
    raise Conflict(f"somebody is listening on {path}")


class Server:
    """Serves `handler` on listening sockets, which it takes over. A context manager: starts, and stops at the end."""

    def __init__(
        self,
        handler: Handler,
        listeners: Iterable[socket.socket],
        *,
        on_error: OnError | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        most_connections: int = 256,
    ) -> None:
        self._handler = handler
        self._listeners = tuple(listeners)
        self._on_error = on_error or plain_error
        self._limits = limits or Limits()
        self._tls = tls
        self._slots = threading.BoundedSemaphore(most_connections)
        self._lock = threading.Lock()
        self._idle: dict[
            socket.socket, bool
        ] = {}  # every open connection, and whether it waits for a request
        self._empty = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._acceptors: list[threading.Thread] = []

    @property
    def addresses(self) -> tuple[str, ...]:
        """`127.0.0.1:5050`, or the path of a unix socket."""
        return tuple(_address(sock.getsockname()) for sock in self._listeners)

    def start(self) -> None:
        for listener in self._listeners:
            thread = threading.Thread(target=self._accept, args=(listener,), name="http-accept", daemon=True)
            thread.start()
            self._acceptors.append(thread)

    def wait(self) -> None:
        """Until somebody calls `stop`."""
        self._stopping.wait()

    def stop(self, grace: float = 10.0) -> None:
        """No new connections; requests under way have `grace` seconds; then everything is closed."""
        self._stopping.set()
        for listener in self._listeners:
            _shut_down(listener)  # wakes accept(2), which close does not
        for thread in self._acceptors:
            thread.join()
        for listener in self._listeners:
            _close_listener(listener)
        with self._lock:
            for sock, idle in self._idle.items():
                if idle:
                    _shut_down(sock)
        self._wait_until_empty(grace)
        with self._lock:
            for sock in self._idle:
                _shut_down(sock)
        self._wait_until_empty(grace)

    def _wait_until_empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._empty:
            while self._idle and (left := deadline - time.monotonic()) > 0:
                self._empty.wait(left)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            if not self._slots.acquire(timeout=1.0):
                continue
            try:
                sock, address = listener.accept()
            except OSError as error:
                self._slots.release()
                if self._stopping.is_set() or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                log.warning("accept: %s", error)
                self._stopping.wait(0.1)  # out of descriptors, most likely: give connections time to end
                continue
            with self._lock:
                self._idle[sock] = False
            threading.Thread(
                target=self._serve, args=(sock, _address(address)), name="http", daemon=True
            ).start()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        current = sock
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None and sock.family != socket.AF_UNIX:
                current = self._encrypted(self._tls, sock)
            Connection(
                current,
                self._respond,
                peer=peer,
                limits=self._limits,
                mark=lambda idle: self._mark(current, idle),
            ).serve()
        except OSError as error:
            log.debug("connection from %s: %s", peer, error)
        finally:
            current.close()
            with self._empty:
                self._idle.pop(current, None)
                self._empty.notify_all()
            self._slots.release()

    def _encrypted(self, context: ssl.SSLContext, sock: socket.socket) -> socket.socket:
        sock.settimeout(self._limits.head_time)
        with self._lock:
            del self._idle[sock]
        try:
            wrapped = context.wrap_socket(sock, server_side=True)
        except BaseException:
            sock.close()
            raise
        with self._lock:
            self._idle[wrapped] = False
        return wrapped

    def _mark(self, sock: socket.socket, idle: bool) -> bool:
        """Note whether a connection waits for its next request; False when the server is stopping."""
        with self._lock:
            self._idle[sock] = idle
        return not self._stopping.is_set()

    def _respond(self, request: Request) -> Response:
        try:
            response = self._handler(request)
        except HttpError as error:
            response = self._on_error(request, error)
        except Disconnected:
            raise
        except Exception:
            log.exception("%s %s", request.method, request.target)
            response = self._on_error(request, HttpError(500))
        log.info('%s "%s %s" %d', request.peer or "unix", request.method, request.target, response.status)
        return response


def plain_error(request: Request, error: HttpError) -> Response:
    """An error as text, for servers without a format of their own."""
    return Response(error.status, {"Content-Type": "text/plain", **error.headers}, f"{error}\n".encode())


def _address(name: object) -> str:
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return name.decode() if isinstance(name, bytes) else str(name)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was never connected, or the other side was quicker


def _close_listener(sock: socket.socket) -> None:
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
