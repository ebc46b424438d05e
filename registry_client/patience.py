"""How long we try, and how long we wait in between."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable

from registry_client.values import frozen

LATER = frozenset({408, 429, 500, 502, 503, 504})  # the statuses that may be others the next time


@frozen
class Patience:
    """With `sleep` tests need not wait; without it a pause ends when the connection is aborted."""

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 10.0
    longest_retry_after: float = 120.0
    sleep: Callable[[float], None] | None = None

    def pause(self, attempt: int) -> float:
        """Seconds before attempt number `attempt` (from 1), with jitter so that clients do not march in step."""
        longest: float = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
        return longest * random.uniform(0.5, 1.0)


def parse_retry_after(text: str) -> float | None:
    """Seconds or a date (RFC 9110 10.2.3); None when the header is absent or neither."""
    if text.strip().isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(moment.timestamp() - time.time(), 0.0)
