"""Clients that are with a container: attached before it starts or later, its log, further processes in it (E-5, E-18, E-49 to E-52).

Who attaches before the start waits here: `start` hands the connection on that carries the container's streams from the
first byte. A shim speaks Docker's stream frames, so output is passed on as it comes (FEATURES D-26, E-R7).
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from runtime.cancel import Cancel
from runtime.containers.client import Connection, ShimGone, parse_detach_keys
from runtime.containers.container import Container
from runtime.containers.frames import STDERR, STDOUT, frame
from runtime.containers.spec import ExecSpec, ExitStatus
from runtime.containers.waiting import wait
from runtime.daemon.api import Route
from runtime.daemon.asked import flag, number, time_of
from runtime.daemon.container_query import exec_spec
from runtime.daemon.engine import Engine
from runtime.daemon.streams import stream_bytes
from runtime.errors import Cancelled, Conflict, InvalidInput, NotFound, PipeError
from runtime.events import Changed
from runtime.http.gone import when_hung_up
from runtime.http.messages import Request, Response, json_response

_RAW, _FRAMED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
_STREAMS = ("stdin", "stdout", "stderr")
_KINDS = {"stdout": STDOUT, "stderr": STDERR}
_DETACH_KEYS = "ctrl-p,ctrl-q"
_EXECS_KEPT = 1000  # of those that ended; clients ask for the exit code at once


class _Waiting:
    """One who attached before the start."""

    def __init__(self, streams: tuple[str, ...]) -> None:
        self.streams = streams
        self._given = threading.Event()
        self._connection: Connection | None = None
        self.endings: list[Ending] = []  # whom to tell how it ended

    def give(self, connection: Connection | None, endings: list[Ending]) -> None:
        """None: there will be none."""
        self._connection, self.endings = connection, endings
        self._given.set()

    def get(self) -> Connection | None:
        self._given.wait()
        return self._connection


class Ending:
    """How a container that is started from here ends; also one that is gone as soon as it has."""

    def __init__(self) -> None:
        self.claimed = False  # by a start of ours
        self._known = threading.Event()
        self._status: ExitStatus | None = None

    def set(self, status: ExitStatus | None) -> None:
        self._status = status
        self._known.set()

    def get(self, cancel: Cancel) -> ExitStatus | None:
        with cancel.on_cancel(self._known.set):
            self._known.wait()
        cancel.check()
        return self._status


class _Exec:
    """A process that was asked for with `/exec`."""

    def __init__(self, container: Container, spec: ExecSpec) -> None:
        self.id = os.urandom(32).hex()
        self.container, self.spec = container, spec
        self.connection: Connection | None = None
        self.begun = False
        self.ended: ExitStatus | None = None


class Attached:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._containers = engine, engine.containers
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiting]] = {}  # by container
        self._endings: dict[str, list[Ending]] = {}  # by container
        self._execs: dict[str, _Exec] = {}

    def routes(self) -> Iterable[Route]:
        yield "POST", "/containers/{id}/attach", self.attach
        yield "GET", "/containers/{id}/logs", self.logs
        yield "POST", "/containers/{id}/exec", self.exec_create
        yield "POST", "/exec/{id}/start", self.exec_start
        yield "POST", "/exec/{id}/resize", self.exec_resize
        yield "GET", "/exec/{id}/json", self.exec_inspect

    def _get(self, request: Request) -> Container:
        from runtime.daemon.containers import found

        return found(self._engine, request.params["id"])

    # --- attach ---------------------------------------------------------------------------------------------------

    def start(self, container: Container) -> None:
        """Start a container, and give its streams to those who wait for them."""
        with self._lock:
            waiting = self._waiting.pop(container.id, [])
            endings = self._endings.pop(container.id, [])
            for ending in endings:
                ending.claimed = True
        try:
            streams = waiting[0].streams if waiting else ()
            connection = self._containers.start(container.id, attach=streams, keep=True)
        except BaseException:
            for each in waiting:
                each.give(None, [])
            for ending in endings:
                ending.set(None)
            raise
        if waiting and connection is not None:
            waiting[0].give(connection, endings)
        elif connection is not None:
            arguments = (container, connection, endings)
            threading.Thread(target=self._watch, args=arguments, name="container", daemon=True).start()
        for each in waiting[1:]:
            try:
                each.give(self._containers.attach(container.id, each.streams), [])
            except PipeError:
                each.give(None, [])  # it has ended already

    @contextmanager
    def ending(self, container: Container) -> Iterator[Ending]:
        """For the length of the block: how it will end, if it is started from here."""
        ending = Ending()
        with self._lock:
            self._endings.setdefault(container.id, []).append(ending)
        try:
            yield ending
        finally:
            with self._lock:
                if ending in (left := self._endings.get(container.id, [])):
                    left.remove(ending)
                if not left:
                    self._endings.pop(container.id, None)

    def _watch(self, container: Container, connection: Connection, endings: list[Ending]) -> None:
        with connection, self._engine.cancel.on_cancel(connection.interrupt):
            try:
                status = connection.wait_end()
            except ShimGone:
                status = None
        self._tell_end(container, status, endings)

    def _tell_later(self, container: Container, status: ExitStatus | None, endings: list[Ending]) -> None:
        """A client that leaves before the end leaves the waiting for it to a thread of its own."""
        if status is not None:
            self._tell_end(container, status, endings)
        else:
            arguments = (container, None, endings)
            threading.Thread(target=self._tell_end, args=arguments, name="container", daemon=True).start()

    def _tell_end(self, container: Container, status: ExitStatus | None, endings: list[Ending]) -> None:
        if status is None and not self._engine.cancel.cancelled:
            left = self._containers.find(container.id)
            try:
                status = wait(left, cancel=self._engine.cancel) if left is not None else None
            except Cancelled:
                pass
        for ending in endings:
            ending.set(status)
        attributes = {"name": container.name, "image": container.image_name}
        if status is not None:
            attributes["exitCode"] = str(status.code)
            died = Changed(kind="container", id=container.id, action="die", attributes=attributes)
            self._engine.happened.note(died)

    def attach(self, request: Request) -> Response:
        container = self._get(request)
        wanted = tuple(name for name in _STREAMS if flag(request, name))
        keys = _keys(request) if container.spec.tty else b""
        streams = wanted if container.spec.stdin else tuple(name for name in wanted if name != "stdin")
        follow = flag(request, "stream", default="stream" in request.query)
        waiting = None
        if follow and not container.running:
            waiting = _Waiting(streams)
            with self._lock:
                self._waiting.setdefault(container.id, []).append(waiting)

        def take(line: socket.socket, begun: bytes) -> None:
            with _plain(line) as plain:
                if flag(request, "logs"):
                    self._send_log(plain, container, wanted)
                if not follow:
                    return
                connection = self._awaited(plain, container, waiting) if waiting else None
                if waiting is None:
                    connection = self._containers.attach(container.id, streams)
                if connection is not None:
                    with connection, self._engine.cancel.on_cancel(connection.interrupt):
                        status = relay(connection, plain, begun, container.spec.tty, "stdin" in streams, keys)
                    if waiting is not None:
                        self._tell_later(container, status, waiting.endings)

        return hijacked(request, take, container.spec.tty)

    def _awaited(self, line: socket.socket, container: Container, waiting: _Waiting) -> Connection | None:
        """The connection, once the container is started; None when the client goes away before."""

        def forget() -> None:
            with self._lock:
                if waiting in self._waiting.get(container.id, ()):
                    self._waiting[container.id].remove(waiting)
                    waiting.give(None, [])

        with when_hung_up(line, forget), self._engine.cancel.on_cancel(forget):
            return waiting.get()

    def _send_log(self, line: socket.socket, container: Container, wanted: Iterable[str]) -> None:
        streams = [name for name in wanted if name != "stdin"]
        for each in self._containers.logs(container.id, streams=streams):
            line.sendall(each.data if container.spec.tty else frame(_KINDS[each.stream], each.data))

    # --- logs -----------------------------------------------------------------------------------------------------

    def logs(self, request: Request) -> Response:
        container = self._get(request)
        streams = [name for name in ("stdout", "stderr") if flag(request, name)]
        if not streams:
            raise InvalidInput("Bad parameters: you must choose at least one stream")
        tail = request.argument("tail", "all")
        since, until = (
            time_of(text) if (text := request.argument(name)) not in ("", "0") else None
            for name in ("since", "until")
        )
        lines_asked: dict[str, Any] = {
            "follow": flag(request, "follow"),
            "tail": int(tail) if tail.isdigit() else None,
            "since": since,
            "until": until,
            "streams": streams,
        }
        stamped, tty = flag(request, "timestamps"), container.spec.tty

        def work(out: BinaryIO, cancel: Cancel) -> None:
            for each in self._containers.logs(container.id, cancel=cancel, **lines_asked):
                data = f"{each.time} ".encode() + each.data if stamped else each.data
                out.write(data if tty else frame(_KINDS[each.stream], data))

        kind = _RAW if tty else _FRAMED
        return stream_bytes(request, work, self._engine.cancel, {"Content-Type": kind}, at_once=True)

    # --- exec -----------------------------------------------------------------------------------------------------

    def exec_create(self, request: Request) -> Response:
        from runtime.daemon.containers import json_body

        container, spec = self._get(request), exec_spec(json_body(request))
        if container.state.status != "running":
            raise Conflict(f"container {container.id} is not running")
        made = _Exec(container, spec)
        with self._lock:
            ended = [each.id for each in self._execs.values() if each.ended is not None]
            for old in ended[: max(0, len(ended) - _EXECS_KEPT)]:
                del self._execs[old]
            self._execs[made.id] = made
        return json_response({"Id": made.id}, 201)

    def _exec(self, request: Request) -> _Exec:
        with self._lock:
            known = self._execs.get(request.params["id"])
        if known is None:
            raise NotFound(f"No such exec instance: {request.params['id']}")
        return known

    def exec_start(self, request: Request) -> Response:
        from runtime.daemon.containers import json_body

        made, record = self._exec(request), json_body(request)
        rows, columns = (record.get("ConsoleSize") or (0, 0))[:2]
        with self._lock:
            if made.begun:
                raise Conflict(f"exec {made.id} has already run")
            made.begun = True
        connection = self._containers.exec(made.container.id, made.spec, size=(int(rows), int(columns)))
        made.connection = connection
        if record.get("Detach"):
            threading.Thread(target=self._followed, args=(made, connection), name="exec", daemon=True).start()
            return Response(200)

        def take(line: socket.socket, begun: bytes) -> None:
            with _plain(line) as plain, connection:
                # Without a client the process goes on, as docker has it; its end is still to be known.
                ended = relay(connection, plain, begun, made.spec.tty, made.spec.stdin, b"")
                made.ended = ended or self._drained(connection)

        return hijacked(request, take, made.spec.tty)

    def _followed(self, made: _Exec, connection: Connection) -> None:
        with connection, self._engine.cancel.on_cancel(connection.interrupt):
            made.ended = self._drained(connection)

    @staticmethod
    def _drained(connection: Connection) -> ExitStatus:
        return connection.pump(lambda kind, data: None) or ExitStatus(code=137)

    def exec_resize(self, request: Request) -> Response:
        made = self._exec(request)
        if made.connection is None or made.ended is not None:
            raise Conflict(f"exec {made.id} is not running")
        made.connection.send(op="resize", rows=number(request, "h"), columns=number(request, "w"))
        return Response(200)

    def exec_inspect(self, request: Request) -> Response:
        made = self._exec(request)
        spec = made.spec
        return json_response(
            {
                "ID": made.id,
                "Running": made.begun and made.ended is None,
                "ExitCode": made.ended.code if made.ended else None,
                "ProcessConfig": {
                    "tty": spec.tty,
                    "entrypoint": spec.argv[0],
                    "arguments": list(spec.argv[1:]),
                    "privileged": spec.privileged,
                    "user": spec.user or "",
                },
                "OpenStdin": spec.stdin,
                "OpenStderr": True,
                "OpenStdout": True,
                "CanRemove": False,
                "ContainerID": made.container.id,
                "DetachKeys": "",
                "Pid": 0,
            }
        )


# --- a connection that is handed over -------------------------------------------------------------------------------


def hijacked(request: Request, take: Callable[[socket.socket, bytes], None], tty: bool) -> Response:
    """Docker's two ways: 101 for who asks for an upgrade, else 200 and no more HTTP."""
    headers = {"Content-Type": _RAW if tty else _FRAMED}
    if request.headers.get("upgrade"):
        return Response(101, {**headers, "Connection": "Upgrade", "Upgrade": "tcp"}, takeover=take)
    return Response(200, headers, takeover=take)


def relay(
    connection: Connection, line: socket.socket, begun: bytes, tty: bool, stdin: bool, keys: bytes
) -> ExitStatus | None:
    """Pass both ways until it ends; None when the client went or detached."""

    def output(kind: int, data: bytes) -> None:
        try:
            line.sendall(data if tty else frame(kind, data))
        except OSError as error:
            raise ShimGone from error  # the other end: there is nobody to pass on to

    with when_hung_up(line, connection.interrupt):
        try:
            if begun and stdin:
                connection.send_input(begun)
            return connection.pump(output, line.fileno() if stdin else -1, detach_keys=keys)
        except ShimGone:
            return None


@contextmanager
def _plain(line: socket.socket) -> Iterator[socket.socket]:
    """A socket whose descriptor gives plain bytes: TLS is passed on through a pair."""
    if not isinstance(line, ssl.SSLSocket):
        yield line
        return
    inner, outer = socket.socketpair()
    threads = [
        threading.Thread(target=_pass_on, args=pair, name="attach-tls", daemon=True)
        for pair in ((line, outer), (outer, line))
    ]
    for thread in threads:
        thread.start()
    try:
        yield inner
    finally:
        inner.close()
        threads[1].join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of them has gone, and the other will


def _keys(request: Request) -> bytes:
    return parse_detach_keys(request.argument("detachKeys") or _DETACH_KEYS)
