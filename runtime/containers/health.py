"""Decide when a container is probed and what the answers mean (FEATURES D-27).

Pure: the shim owns the clock, runs the probe and tells the outcome. Nothing here sleeps, forks or reads a file. The
rule: an interval is counted from the *end* of the previous probe, and failures in the start period do not count
while the container has never been healthy.
"""

from __future__ import annotations

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
INTERVAL, TIMEOUT, START_INTERVAL, RETRIES = 30.0, 30.0, 5.0, 3
OUTPUT_LIMIT, RESULTS_KEPT = 4096, 5
TIMED_OUT = -1  # Docker's exit code of a probe that took too long


class HealthPolicy:
    """How to probe. Times in seconds; 0 means the default."""

    def __init__(
        self,
        test: list[str],
        interval: float = 0,
        timeout: float = 0,
        start_period: float = 0,
        start_interval: float = 0,
        retries: int = 0,
    ) -> None:
        self.test = test
        self.interval = interval or INTERVAL
        self.timeout = timeout or TIMEOUT
        self.start_period = start_period
        self.start_interval = start_interval or START_INTERVAL
        self.retries = retries or RETRIES

    def argv(self, shell: list[str]) -> list[str]:
        """The command of a probe, run in the container."""
        if self.test[0] == "CMD-SHELL":
            return [*shell, " ".join(self.test[1:])]
        return self.test[1:]

    def to_json(self) -> dict[str, object]:
        return {
            "test": self.test,
            "interval": self.interval,
            "timeout": self.timeout,
            "start_period": self.start_period,
            "start_interval": self.start_interval,
            "retries": self.retries,
        }


class ProbeResult:
    """One answer; times are seconds since the epoch."""

    def __init__(self, start: float, end: float, code: int, output: str) -> None:
        self.start, self.end, self.code, self.output = start, end, code, output

    def to_json(self) -> dict[str, object]:
        return {"start": self.start, "end": self.end, "code": self.code, "output": self.output}


class Health:
    """The health of one run of a container; a restart makes a new one."""

    def __init__(self, policy: HealthPolicy, started: float) -> None:
        self.policy = policy
        self.started = started
        self.status = STARTING
        self.streak = 0
        self.results: list[ProbeResult] = []

    def interval(self, now: float) -> float:
        """How long after `now` (the start, or the end of a probe) the next probe begins."""
        in_start_period = now - self.started < self.policy.start_period
        if in_start_period and self.status == STARTING:
            return self.policy.start_interval
        return self.policy.interval

    def record(self, result: ProbeResult) -> bool:
        """Take a probe's answer; True when the status changed."""
        before = self.status
        self.results = [*self.results, result][-RESULTS_KEPT:]
        if result.code == 0:
            self.status, self.streak = HEALTHY, 0
        elif not self._forgiven(result):
            self.streak += 1
            if self.streak >= self.policy.retries:
                self.status = UNHEALTHY
        return self.status != before

    def _forgiven(self, result: ProbeResult) -> bool:
        return self.status == STARTING and result.start - self.started < self.policy.start_period

    def to_json(self) -> dict[str, object]:
        results = [result.to_json() for result in self.results]
        return {"status": self.status, "streak": self.streak, "results": results}
