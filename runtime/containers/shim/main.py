"""A shim's entry: it puts the parts together and answers requests.

Requests (JSON frames, see `runtime.containers.frames`; each answer repeats the request's `op` as `re`):

    attach   {stdin, stdout, stderr}         output frames from now on; stdin frames reach the process
    wait     {}                              an `exited` event when all is over
    follow   {}                              a `log` event whenever the log grew
    stop     {signal, timeout}               answered when it has ended
    kill     {signal}                        pause {} unpause {} resize {rows, columns} status {}
    exec     {process, stdin, detach}        output frames of that process, then `exited`
    release  {interfaces}                    only the starter: its network is attached (descriptors to keep may come along)
    done     {}                              only the starter: it cleaned up after the end

Events: `created` {pid}, `running` {pid}, `exited` {final, code, oom_killed, error}, `health` {status}, `log`, `failed`.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from typing import Any

from runtime.containers.frames import STDERR, STDOUT
from runtime.containers.shim.clients import Client
from runtime.containers.shim.execs import Exec
from runtime.containers.shim.life import STREAM_NAMES, Life
from runtime.containers.shim.loop import READ, Loop
from runtime.containers.shim.probes import Probes
from runtime.containers.shim.streams import Sink, resize
from runtime.sandbox.embedded import Embedded
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import ExitInfo

SOCKET_NAME = "control.sock"


class Refused(Exception):
    """A request that cannot be done; the client is told why."""


class Shim:
    def __init__(self, argument: dict[str, Any], starter: socket.socket, spawner: Embedded) -> None:
        self.argument = argument
        self.loop = Loop()
        self.life = Life(self.loop, spawner, argument)
        self.clients: set[Client] = set()
        self.execs: dict[Client, Exec] = {}
        self.kept: list[int] = []
        self.life.on_output = self._output
        self.life.on_running = self._running
        self.life.on_exit = self._exited
        health = argument["health"]
        self.probes = Probes(self.life, health, self._health) if health else None
        if self.probes is not None:
            self.life.on_begin = self.probes.begin
        self.starter = self._client(starter)
        if argument["attach"]:
            self._attach(self.starter, argument["attach"])
        self.listener = _listen(argument["directory"])
        self.loop.watch(self.listener.fileno(), READ, lambda events: self._accept())
        self.loop.watch(spawner.fileno(), READ, lambda events: spawner.turn())
        self.cleaned = False

    def run(self) -> None:
        try:
            self.life.start(pause=bool(self.argument["pause"]))
        except SandboxError as error:
            self.starter.tell(
                event="failed",
                error=error.message,
                operation=error.operation,
                kind=error.kind,
                hint=error.hint,
            )
            self.life.failed(error)
        else:
            if self.argument["pause"]:
                self.starter.tell(event="created", pid=self.life.state.pid)
        self.loop.run()

    def say_goodbye(self) -> None:
        """What clients were told must reach them before the process ends."""
        self.listener.close()
        for client in list(self.clients):
            client.finish()

    # --- events -------------------------------------------------------------------------------------------------------

    def _running(self) -> None:
        self.starter.tell(event="running", pid=self.life.state.pid)
        for client in self.clients:
            self._connect(client)

    def _output(self, kind: int, data: bytes) -> None:
        for client in list(self.clients):
            client.output(kind, data)
            if client.follows:
                client.tell(event="log")
        self._balance()

    def _balance(self) -> None:
        self.life.hold_output(any(client.slow for client in self.clients if client not in self.execs))

    def _health(self, status: str) -> None:
        for client in list(self.clients):
            if client.waits:
                client.tell(event="health", status=status)
        if status == "unhealthy" and self.life.restarts.on_unhealthy:
            self.life.stop(self.argument["stop_signal"], self.argument["stop_timeout"], why="unhealthy")

    def _exited(self, final: bool) -> None:
        if self.probes is not None:
            self.probes.end()
        if final:
            _unlink(self.argument["directory"])  # before anybody hears of the end and removes the directory
        state = self.life.state
        for client in list(self.clients):
            if client.waits or client.follows or client is self.starter:
                client.tell(
                    event="exited",
                    final=final,
                    code=state.code,
                    oom_killed=state.oom_killed,
                    error=state.error,
                )
        if final:
            self._over()

    def _over(self) -> None:
        """The starter cleans up if it is still there (it has everything at hand); else we do."""
        if not self.starter.open:
            self.loop.stop()

    def _starter_gone(self) -> None:
        """For good: what it started for itself alone, or had not finished starting, ends with it."""
        if self.life.over:
            self.loop.stop()
        elif self.argument["owner_bound"] or not self.life.state.started:
            self.life.kill(signal.SIGKILL)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        line, _ = self.listener.accept()
        self._client(line)

    def _client(self, line: socket.socket) -> Client:
        client = Client(self.loop, line, self._request)
        client.on_relief = self._balance
        client.on_gone = lambda: self._gone(client)
        self.clients.add(client)
        return client

    def _gone(self, client: Client) -> None:
        self.clients.discard(client)
        if client.wants_stdin and self.argument["stdin_once"] and not self.life.tty:
            self._end_stdin()
        if client is self.starter:
            self._starter_gone()

    def _request(self, client: Client, request: dict[str, Any]) -> None:
        operation = str(request.get("op"))
        action = getattr(self, f"do_{operation}", None)
        try:
            if action is None:
                raise Refused(f"unknown request {operation!r}")
            answer = action(client, request)
            if answer is not None:
                client.tell(re=operation, **answer)
        except Refused as error:
            client.tell(re=operation, error=str(error), kind="conflict")
        except SandboxError as error:
            client.tell(
                re=operation, error=error.message, kind=error.kind, hint=error.hint, operation=error.operation
            )
        except (OSError, TypeError, ValueError, KeyError) as error:
            client.tell(re=operation, error=f"{type(error).__name__}: {error}", kind="host")

    def do_attach(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        self._attach(client, [name for name in ("stdin", "stdout", "stderr") if request.get(name)])
        return {"tty": self.life.tty}

    def _attach(self, client: Client, names: list[str]) -> None:
        """Output from now on goes to the client too, and its stdin frames reach the process."""
        client.streams = frozenset(kind for kind, name in STREAM_NAMES.items() if name in names)
        client.waits = True
        client.wants_stdin = "stdin" in names
        self._connect(client)

    def _connect(self, client: Client) -> None:
        """Lead a client's stdin frames to the process, if it asked for that and there is one."""
        if not client.wants_stdin:
            return
        client.stdin = self.life.stdin
        if self.argument["stdin_once"]:
            client.on_input_end = self._end_stdin
            if not self.life.tty:  # whoever leaves a terminal did not type ctrl-d
                client.on_hang_up = self._end_stdin

    def _end_stdin(self) -> None:
        if self.life.stdin is not None:
            self.life.stdin.end()

    def do_wait(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        client.waits = True
        return {}

    def do_follow(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        client.follows = True
        return {}

    def do_status(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        return {"state": vars(self.life.state)}

    def do_stop(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        client.waits = True
        self.life.stop(int(request["signal"]), float(request["timeout"]))
        return {}

    def do_kill(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        self.life.kill(int(request["signal"]))
        return {}

    def do_pause(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        if self.life.state.status != "running":
            raise Refused(f"the container is {self.life.state.status}")
        self.life.pause(True)
        return {}

    def do_unpause(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        if self.life.state.status != "paused":
            raise Refused("the container is not paused")
        self.life.pause(False)
        return {}

    def do_resize(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        own = self.execs.get(client)
        terminal = own.terminal if own is not None else self.life.terminal
        if terminal >= 0:
            resize(terminal, int(request["rows"]), int(request["columns"]))
        return {}

    def do_exec(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        if self.life.process is None or self.life.state.status != "running":
            raise Refused(f"the container is {self.life.state.status}")
        started = Exec(self.loop, client.output, lambda info: self._exec_ended(client, info))
        if not request.get("detach"):
            client.streams = frozenset((STDOUT, STDERR))
            client.on_relief = lambda: started.hold_output(client.slow)
        stdin = bool(request.get("stdin"))
        seccomp = str(request.get("seccomp") or "")
        started.start(
            self.life.spawner, self.life.state.pid, request["process"], stdin=stdin, seccomp=seccomp
        )
        self.execs[client] = started
        client.stdin = started.stdin
        client.on_input_end = lambda: _end(started.stdin)
        if not request["process"].get("terminal"):
            client.on_hang_up = client.on_input_end
        assert started.process is not None
        return {"pid": started.process.pid}

    def _exec_ended(self, client: Client, info: ExitInfo) -> None:
        self.execs.pop(client, None)
        client.stdin = None
        client.tell(event="exited", final=True, code=info.code, oom_killed=info.oom_killed, error=info.error)

    def do_release(self, client: Client, request: dict[str, Any]) -> None:
        if client is not self.starter:
            raise Refused("only the starter may")
        self.kept, client.fds = client.fds, []
        try:
            self.life.release(request["interfaces"])
        except SandboxError as error:
            client.tell(
                event="failed",
                error=error.message,
                operation=error.operation,
                kind=error.kind,
                hint=error.hint,
            )
            self.life.failed(error)

    def do_done(self, client: Client, request: dict[str, Any]) -> None:
        if client is self.starter:
            self.cleaned = True
            client.close()


def _end(sink: Sink | None) -> None:
    if sink is not None:
        sink.end()


def _listen(directory: str) -> socket.socket:
    """A socket's address has 108 bytes, a store's path may have more: the directory is named by a descriptor (unix(7))."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _unlink(directory)
        listener.bind(f"/proc/self/fd/{place}/{SOCKET_NAME}")
    finally:
        os.close(place)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _unlink(directory: str) -> None:
    try:
        os.unlink(os.path.join(directory, SOCKET_NAME))
    except FileNotFoundError:
        pass


def _spawner(argument: dict[str, Any]) -> Embedded:
    """The native sandbox, or what `--runtime` names; its bundle lies in the container's directory."""
    if not argument.get("runtime"):
        return Embedded()
    from runtime.sandbox.oci_runtime import EmbeddedRuntime

    return EmbeddedRuntime(argument["runtime"], os.path.join(argument["directory"], "runtime"))


def main(argument: dict[str, Any], fds: list[int]) -> int:
    """`fds[0]` is the connection to the starter."""
    gc.freeze()  # what all shims share stays shared: the collector would write to it
    starter = socket.socket(fileno=fds[0])
    with _spawner(argument) as spawner:
        shim = Shim(argument, starter, spawner)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop_signal, timeout = argument["stop_signal"], argument["stop_timeout"]
        signal.signal(signal.SIGTERM, lambda number, frame: shim.life.stop(stop_signal, timeout))
        shim.run()
        shim.say_goodbye()
    if not shim.cleaned:
        from runtime.containers.after import clean_up

        clean_up(argument["root"], argument["id"], remove=bool(argument["auto_remove"]))
    return 0
