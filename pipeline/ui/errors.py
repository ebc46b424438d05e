"""How an error looks on the terminal: where, what, the source line, what to do."""

from __future__ import annotations

import os
import sys
import time

from runtime.errors import PipeError, StepFailed

OUTPUT_LINES = 20


def format_error(error: PipeError) -> str:
    """The whole message: `pipe: FILE:LINE:COLUMN: what`, the excerpt, the step's last output, the hint."""
    parts = []
    if isinstance(error, StepFailed) and error.output:
        parts.append("\n".join(error.output.rstrip("\n").splitlines()[-OUTPUT_LINES:]))
    parts.append(f"pipe: {error}")
    if error.span is not None and error.span.source.text:
        parts.append(error.span.excerpt())
    if error.hint:
        parts.append(f"hint: {error.hint}")
    return "\n".join(parts)


def show_error(error: PipeError) -> None:
    print(format_error(error), file=sys.stderr)


def report_bug(error: Exception, debug: bool) -> None:
    """One line for the user, and a log file for whoever mends it."""
    import tempfile

    text = bug_report(error)
    with tempfile.NamedTemporaryFile("w", prefix="pipe-bug-", suffix=".log", delete=False) as file:
        file.write(text)
    if debug:
        print(text, file=sys.stderr)
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"pipe: internal error: {summary}\nhint: please report it with {file.name}", file=sys.stderr)


def bug_report(error: Exception) -> str:
    """Versions, command without its values, traceback. No environment: secrets live there."""
    import platform
    import traceback

    flags = [word.partition("=")[0] for word in sys.argv[1:] if word.startswith("-") or word.isalpha()]
    return "\n".join(
        (
            f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
            f"python: {platform.python_version()}",
            f"kernel: {os.uname().release} {os.uname().machine}",
            f"command: pipe {' '.join(flags)}",
            "".join(traceback.format_exception(error)),
        )
    )
