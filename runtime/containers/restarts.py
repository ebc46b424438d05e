"""Decide whether and when an ended container starts again (FEATURES D-28, D-29).

Pure: the caller says how the run ended and how long it lasted. The rule: the delay doubles from 100 ms to a minute
and begins anew after a run of ten seconds; a stop by hand ends all restarting.
"""

from __future__ import annotations

FIRST_DELAY, LONGEST_DELAY, PROVEN_AFTER = 0.1, 60.0, 10.0
POLICIES = ("no", "always", "unless-stopped", "on-failure", "on-unhealthy")


class Restarts:
    """Counts the restarts of one container; `maximum` 0 is "without limit"."""

    def __init__(self, policy: str, maximum: int = 0) -> None:
        self.policy, self.maximum = policy or "no", maximum
        self.count = 0
        self._delay = 0.0

    @property
    def on_unhealthy(self) -> bool:
        return self.policy == "on-unhealthy"

    def after(self, code: int, uptime: float, *, by_hand: bool, unhealthy: bool = False) -> float | None:
        """Seconds until the next start, or None when it stays down."""
        if by_hand or not self._wanted(code, unhealthy):
            return None
        if uptime > PROVEN_AFTER:
            self._delay = 0.0
        self._delay = min(self._delay * 2, LONGEST_DELAY) if self._delay else FIRST_DELAY
        self.count += 1
        return self._delay

    def _wanted(self, code: int, unhealthy: bool) -> bool:
        if self.policy in ("always", "unless-stopped"):
            return True
        if self.maximum and self.count >= self.maximum:
            return False
        # A container that is up but useless is what on-unhealthy is for; one that failed is no better.
        return (self.policy == "on-failure" and code != 0) or (self.on_unhealthy and (unhealthy or code != 0))
