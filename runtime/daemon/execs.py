"""Routes about further processes in a container (FEATURES E-49 to E-52). What was asked for is known while the daemon runs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable

from runtime.containers.client import Connection
from runtime.containers.container import Container
from runtime.containers.spec import ExecSpec, ExitStatus
from runtime.daemon.api import Route
from runtime.daemon.asked import expecting, number
from runtime.daemon.container_query import exec_spec
from runtime.daemon.containers import found, json_body
from runtime.daemon.engine import Engine
from runtime.daemon.hijack import detach_keys, hijacked, plain, relay
from runtime.errors import Conflict, NotFound, PipeError
from runtime.http.messages import Request, Response, json_response

_EXECS_KEPT = 1000  # of those that ended; clients ask for the exit code at once


class _Exec:
    """A process that was asked for with `/exec`."""

    def __init__(self, container: Container, spec: ExecSpec, keys: str) -> None:
        self.id = os.urandom(32).hex()
        self.container, self.spec, self.detach_keys = container, spec, keys
        self.connection: Connection | None = None
        self.begun = False
        self.ended: ExitStatus | None = None


class Execs:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._containers = engine, engine.containers
        self._lock = threading.Lock()
        self._execs: dict[str, _Exec] = {}

    def routes(self) -> Iterable[Route]:
        yield "POST", "/containers/{id}/exec", self.create
        yield "POST", "/exec/{id}/start", self.start
        yield "POST", "/exec/{id}/resize", self.resize
        yield "GET", "/exec/{id}/json", self.inspect

    def create(self, request: Request) -> Response:
        container = found(self._engine, request.params["id"])
        with expecting("the process's JSON"):
            record = json_body(request)
            # Go reads names without case, and docker-py writes this one so.
            spec, keys = exec_spec(record), str(record.get("DetachKeys") or record.get("detachKeys") or "")
        if container.state.status != "running":
            raise Conflict(f"container {container.id} is not running")
        made = _Exec(container, spec, keys)
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

    def start(self, request: Request) -> Response:
        made, record = self._exec(request), json_body(request)
        with expecting("ConsoleSize"):
            rows, columns = (record.get("ConsoleSize") or (0, 0))[:2]
            size = (int(rows), int(columns))
        if self._containers.get(made.container.id).state.status != "running":
            raise Conflict(f"container {made.container.id} is not running")
        with self._lock:
            if made.begun:
                raise Conflict(f"exec {made.id} has already run")
            made.begun = True
        if record.get("Detach"):
            connection = self._begin(made, size)
            threading.Thread(target=self._followed, args=(made, connection), name="exec", daemon=True).start()
            return Response(200)

        # How output is framed is said here; whether the process has a terminal was said before.
        raw = bool(record.get("Tty"))
        keys = detach_keys(made.detach_keys) if made.spec.tty else b""

        def take(line: socket.socket, begun: bytes) -> None:
            # Begun only now: some clients lose what comes in one piece with the head.
            connection = self._begin(made, size)
            with plain(line) as clear:
                made.ended = relay(connection, clear, begun, raw, made.spec.stdin, keys)
            if made.ended is not None:
                connection.close()
                return
            # Without a client the process goes on; its end is still to be known.
            threading.Thread(target=self._followed, args=(made, connection), name="exec", daemon=True).start()

        return hijacked(request, take, raw)

    def _begin(self, made: _Exec, size: tuple[int, int]) -> Connection:
        try:
            made.connection = self._containers.exec(made.container.id, made.spec, size=size)
        except PipeError as error:
            made.ended = ExitStatus(code=126, error=error.message)
            raise
        return made.connection

    def _followed(self, made: _Exec, connection: Connection) -> None:
        with connection, self._engine.cancel.on_cancel(connection.interrupt):
            made.ended = self._drained(connection)

    @staticmethod
    def _drained(connection: Connection) -> ExitStatus:
        return connection.pump(lambda kind, data: None) or ExitStatus(code=137)

    def resize(self, request: Request) -> Response:
        made = self._exec(request)
        if made.connection is None or made.ended is not None:
            raise Conflict(f"exec {made.id} is not running")
        made.connection.send(op="resize", rows=number(request, "h"), columns=number(request, "w"))
        return Response(200)

    def inspect(self, request: Request) -> Response:
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
                "DetachKeys": made.detach_keys,
                "Pid": 0,
            }
        )
