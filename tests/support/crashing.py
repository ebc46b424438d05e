"""Kill a process at its n-th step, for every n, and see what it left.

    python -m tests.support.crashing ROOT MODULE:SCENARIO FIRST STEP

A step is whatever changes a file or the database: an audit event of a changing system call, or an SQL statement. The
scenario is a class with `run(root) -> str` (what came of it), `check(root)` (after a crash: raises when something is
wrong) and `reset(root)`. Each run happens in a forked child, so that this stays quick; one line is printed at the end.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from importlib import import_module
from typing import Any, Protocol

_CHANGING = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.utime",
    "os.truncate", "os.setxattr",
}  # fmt: skip


class Scenario(Protocol):
    def run(self, root: str) -> str: ...

    def check(self, root: str) -> None: ...

    def reset(self, root: str) -> None: ...


class Killer:
    """Counts this process's steps and kills it at one of them. There is one per process: an audit hook stays."""

    def __init__(self) -> None:
        self.limit = self.count = 0
        sys.addaudithook(self._heard)
        self._connect = sqlite3.connect
        sqlite3.connect = self._traced  # type: ignore[assignment]

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.limit:
            return
        if event in _CHANGING or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o103):
            self._step()

    def _traced(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = self._connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: self._step())
        return connection

    def _step(self) -> None:
        if self.limit:
            self.count += 1
            if self.count >= self.limit:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    root, target, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    module, _, name = target.partition(":")
    scenario: Scenario = getattr(import_module(module), name)()
    killer = Killer()
    undisturbed = scenario.run(root)
    scenario.reset(root)
    limit, kills = first, 0
    while _killed_at(killer, limit, scenario, root):
        kills += 1
        scenario.check(root)
        again = scenario.run(root)
        assert again == undisturbed, f"killed at step {limit}: {again} instead of {undisturbed}"
        scenario.check(root)
        scenario.reset(root)
        limit += step
    print(f"survived {kills} kills, the last one before step {limit}")


def _killed_at(killer: Killer, limit: int, scenario: Scenario, root: str) -> bool:
    child = os.fork()
    if child == 0:
        killer.limit = limit
        try:
            scenario.run(root)
            os._exit(0)
        except BaseException as error:  # whatever it is must not run the parent's code
            print(f"killed at step {limit}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"the scenario failed by itself with {code}"
    return code != 0


if __name__ == "__main__":
    main()
