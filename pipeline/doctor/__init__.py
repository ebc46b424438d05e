"""What this host offers and lacks for `pipe`: one finding per line, each with what to do.

`host` is how facts are read (tests read them from a directory), the other modules hold the checks. Nothing is changed on
the host, and no check is fatal to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.doctor.finding import Finding, Level, exit_code
from pipeline.doctor.host import Host

__all__ = ["Finding", "Host", "Level", "examine", "exit_code"]

Check = Callable[[Host], Iterable[Finding]]


def checks() -> tuple[Check, ...]:
    """All checks, in the order they are shown."""
    from pipeline.doctor import kernel, network, storage, tools

    return (*kernel.CHECKS, *storage.CHECKS, *network.CHECKS, *tools.CHECKS)


def examine(host: Host) -> list[Finding]:
    """Everything there is to say about a host."""
    found: list[Finding] = []
    for check in checks():
        try:
            found += check(host)
        except OSError as error:
            name = check.__name__.replace("_", " ")
            found.append(
                Finding(
                    name, Level.LIMITED, f"cannot be examined: {error}", "run as root, outside of a container"
                )
            )
    return found
