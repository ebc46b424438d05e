"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from registry_client.values import frozen


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing; all works
    LIMITED = "limited"  # a part of pipe does not work here
    BROKEN = "broken"  # no container runs here


@frozen
class Finding:
    """One line: what was looked at, how it is, and for other than ok what to do."""

    check: str
    level: Level
    detail: str
    hint: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0: all of pipe works here, 1: a part does not, 3: containers do not."""
    levels = {finding.level for finding in findings}
    return 3 if Level.BROKEN in levels else 1 if Level.LIMITED in levels else 0
