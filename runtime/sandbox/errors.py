"""What can go wrong between a plan and its first instruction.

The sandbox stands below `runtime.errors`, so it has one error of its own. It crosses a process boundary as JSON,
and `runtime.sandbox_errors` turns it into the shared categories where it leaves the room.
"""

from __future__ import annotations


class SandboxError(Exception):
    """`operation` is what was being done, `kind` who is to blame: input (the plan), unsupported (this kernel), host."""

    def __init__(self, message: str, *, operation: str = "", kind: str = "host", hint: str = "") -> None:
        super().__init__(f"{operation}: {message}" if operation else message)
        self.message = message
        self.operation = operation
        self.kind = kind
        self.hint = hint


class ExecFailed(Exception):
    """The program itself could not be run: 127 when there is none, 126 when it cannot be executed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
