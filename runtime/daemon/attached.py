"""Clients that are with a container: attached before it starts or later, and its log (FEATURES E-5, E-18).

Who attaches before the start waits here: `start` hands the connection on that carries the container's streams from the
first byte. A shim speaks Docker's stream frames, so output is passed on as it comes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO

from runtime.cancel import Cancel
from runtime.containers.client import Connection, ShimGone
from runtime.containers.container import Container
from runtime.containers.frames import STDERR, STDOUT, frame
from runtime.containers.spec import ExitStatus
from runtime.containers.waiting import wait
from runtime.daemon.api import Route
from runtime.daemon.asked import flag, time_of
from runtime.daemon.engine import Engine
from runtime.daemon.hijack import FRAMED, RAW, detach_keys, hijacked, plain, relay
from runtime.daemon.streams import stream_bytes
from runtime.errors import Cancelled, InvalidInput, PipeError
from runtime.events import Changed
from runtime.http.gone import when_hung_up
from runtime.http.messages import Request, Response

_STREAMS = ("stdin", "stdout", "stderr")
_KINDS = {"stdout": STDOUT, "stderr": STDERR}


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


class Attached:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._containers = engine, engine.containers
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiting]] = {}  # by container
        self._endings: dict[str, list[Ending]] = {}  # by container

    def routes(self) -> Iterable[Route]:
        yield "POST", "/containers/{id}/attach", self.attach
        yield "GET", "/containers/{id}/logs", self.logs

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

    def expect(self, container: Container) -> Ending:
        """How it will end, if it is started from here; to be forgotten."""
        ending = Ending()
        with self._lock:
            self._endings.setdefault(container.id, []).append(ending)
        return ending

    def forget(self, container: Container, ending: Ending) -> None:
        with self._lock:
            left = self._endings.get(container.id, [])
            if ending in left:
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
        keys = detach_keys(request.argument("detachKeys")) if container.spec.tty else b""
        streams = wanted if container.spec.stdin else tuple(name for name in wanted if name != "stdin")
        follow = flag(request, "stream", default="stream" in request.query)
        waiting = None
        if follow and not container.running:
            waiting = _Waiting(streams)
            with self._lock:
                self._waiting.setdefault(container.id, []).append(waiting)

        def take(line: socket.socket, begun: bytes) -> None:
            with plain(line) as clear:
                if flag(request, "logs"):
                    self._send_log(clear, container, wanted)
                if not follow:
                    return
                connection = self._awaited(clear, container, waiting) if waiting else None
                if waiting is None:
                    connection = self._containers.attach(container.id, streams)
                if connection is not None:
                    with connection, self._engine.cancel.on_cancel(connection.interrupt):
                        status = relay(connection, clear, begun, container.spec.tty, "stdin" in streams, keys)
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

        kind = RAW if tty else FRAMED
        return stream_bytes(request, work, self._engine.cancel, {"Content-Type": kind}, at_once=True)
