"""When a release counts as up: its containers healthy, its probe answered, and both for as long as it must soak.

Probes are asked from this process: an http or tcp host that is a service's name means that container. Time comes in, so
tests need not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from pipeline.engines import ContainerState, Engine
from pipeline.spec import HealthGate
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.containers.spec import ExecSpec
from runtime.errors import StepFailed

_PROBE_SECONDS = 5.0
_POLL = 0.05


@frozen(kw_only=True)
class Gate:
    """`members` gives the release's containers by service name, as they are now."""

    health: HealthGate
    engine: Engine
    members: Callable[[], dict[str, list[ContainerState]]]
    finished_is_fine: Callable[[str], bool]  # a service that ends with 0 and stays down: a one-shot
    clock: Callable[[], float] = time.monotonic

    def wait(self, cancel: Cancel) -> None:
        """Until it is open; StepFailed says what did not come."""
        deadline = self.clock() + self.health.timeout
        good_since: float | None = None
        while True:
            cancel.check()
            problem = self._containers_problem() or self._probe_problem()
            now = self.clock()
            if problem:
                good_since = None
                if now > deadline:
                    raise StepFailed(
                        f"not healthy after {self.health.timeout:g} s: {problem}",
                        hint="the old release stays",
                    )
            else:
                good_since = now if good_since is None else good_since
                if now - good_since >= self.health.soak:
                    return
            # A container's own health changes by its shim: look often; a probe costs, so it is asked less often.
            cancel.wait(self.health.interval if self._probes and not problem.startswith("service") else _POLL)

    @property
    def _probes(self) -> bool:
        return bool(self.health.http or self.health.tcp or self.health.exec)

    def _containers_problem(self) -> str:
        for service, states in self.members().items():
            for state in states:
                if state.status == "exited":
                    if state.exit_code == 0 and self.finished_is_fine(service):
                        continue
                    raise StepFailed(
                        f"service `{service}` exited with {state.exit_code}", exit_code=state.exit_code or 1
                    )
                if state.health == "unhealthy":
                    raise StepFailed(f"service `{service}` is unhealthy")
                if state.status == "restarting":
                    return f"service `{service}` is restarting (it last exited with {state.exit_code})"
                if not state.running or state.health == "starting":
                    return f"service `{service}` is {state.health or state.status}"
        return ""

    def _probe_problem(self) -> str:
        if self.health.http and (problem := self._http(self.health.http)):
            return problem
        if self.health.tcp and (problem := self._tcp(self.health.tcp)):
            return problem
        return self._exec() if self.health.exec else ""

    def _address(self, host: str) -> str:
        states = self.members().get(host, [])
        addresses = [address for state in states for address in state.addresses.values()]
        return addresses[0] if addresses else host

    def _http(self, url: str) -> str:
        import http.client
        import ssl

        parts = urlsplit(url)
        host = self._address(parts.hostname or "")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(host, parts.port, timeout=_PROBE_SECONDS)
            try:
                connection.request(
                    "GET",
                    urlunsplit(("", "", parts.path or "/", parts.query, "")),
                    headers={"Host": parts.netloc},
                )
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            return f"{url}: {error or type(error).__name__}"
        good = status == self.health.status if self.health.status else 200 <= status < 400
        return "" if good else f"{url} answered {status}"

    def _tcp(self, place: str) -> str:
        import socket

        host, _, port = place.rpartition(":")
        try:
            with socket.create_connection((self._address(host.strip("[]")), int(port)), _PROBE_SECONDS):
                return ""
        except OSError as error:
            return f"{place}: {error}"

    def _exec(self) -> str:
        members = self.members()
        service = self.health.service or next(iter(members), "")
        states = [state for state in members.get(service, []) if state.running]
        if not states:
            return f"service `{service}` is not running"
        code = self.engine.execute(states[0].id, ExecSpec(argv=self.health.exec))
        return "" if code == 0 else f"`{' '.join(self.health.exec)}` exited with {code} in `{service}`"
