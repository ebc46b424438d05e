"""Run the health probes of a container and keep its health in the state. When and what counts: `runtime.containers.health`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runtime.containers.health import OUTPUT_LIMIT, TIMED_OUT, UNHEALTHY, Health, HealthPolicy, ProbeResult
from runtime.containers.shim.execs import Exec
from runtime.containers.shim.life import Life
from runtime.containers.shim.loop import Timer
from runtime.containers.state import PAUSED, write_state
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import ExitInfo


class Probes:
    """Probes from the start of a run to its end; `on_change` hears the new status."""

    def __init__(self, life: Life, health: dict[str, Any], on_change: Callable[[str], None]) -> None:
        self._life, self._on_change = life, on_change
        self._process: dict[str, Any] = health["process"]
        self._seccomp: str = health["seccomp"]
        self._policy = HealthPolicy(**health["policy"])
        self._health = Health(self._policy, 0)
        self._timers: list[Timer] = []
        self._exec: Exec | None = None

    def begin(self) -> None:
        """The container runs (again): its health is unknown."""
        self.end()
        self._health = Health(self._policy, time.time())
        self._life.state.health = self._health.to_json()  # written together with "running"
        self._schedule()

    def end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        if self._exec is not None:
            self._exec.kill()
            self._exec = None

    def _schedule(self) -> None:
        self._timers = [self._life.loop.later(self._health.interval(time.time()), self._probe)]

    def _probe(self) -> None:
        if self._life.state.status == PAUSED:
            self._schedule()
            return
        start, output = time.time(), bytearray()
        probe = Exec(
            self._life.loop,
            lambda kind, data: output.extend(data[: OUTPUT_LIMIT - len(output)]),
            lambda info: self._answered(probe, start, info, output),
        )
        self._exec = probe
        try:
            pid = self._life.state.pid
            probe.start(self._life.spawner, pid, self._process, stdin=False, seccomp=self._seccomp)
        except (SandboxError, OSError) as error:
            self._answered(probe, start, ExitInfo(126, False, str(error)), output)
            return
        self._timers = [self._life.loop.later(self._policy.timeout, lambda: self._too_long(probe, start))]

    def _too_long(self, probe: Exec, start: float) -> None:
        probe.kill()
        text = f"Health check exceeded timeout ({self._policy.timeout:g}s)"
        self._answered(probe, start, ExitInfo(TIMED_OUT), bytearray(text.encode()))

    def _answered(self, probe: Exec, start: float, info: ExitInfo, output: bytearray) -> None:
        if self._exec is not probe:
            return  # it was given up on, or the container ended
        self._exec = None
        for timer in self._timers:
            timer.cancel()
        text = output.decode("utf-8", "replace") or info.error
        changed = self._health.record(ProbeResult(start, time.time(), info.code, text))
        self._publish()
        self._schedule()
        if changed:
            self._on_change(self._health.status)

    @property
    def unhealthy(self) -> bool:
        return self._health.status == UNHEALTHY

    def _publish(self) -> None:
        self._life.state.health = self._health.to_json()
        write_state(self._life.directory, self._life.state)
