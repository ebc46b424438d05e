"""The errors that leave a package.

    PipeError
    ├── InvalidInput   what the user wrote (file, flag, reference) cannot be done        exit 2
    ├── NotFound       no such image, container, network, file …                        exit 2
    ├── Conflict       the name or thing is in use                                      exit 1
    ├── Denied         not allowed: credentials, policy, entitlement                    exit 1
    ├── Unavailable    a registry, engine or network does not answer                    exit 3
    ├── Unsupported    this host or this version cannot do it                           exit 2
    ├── StepFailed     a RUN, stage, build or deploy did not succeed                    exit 1
    ├── TimedOut       it took longer than it was given                                 exit 4
    ├── Cancelled      the user or a dependant stopped it                               exit 130
    └── HostFault      the machine let us down: disk full, missing tool, kernel         exit 3

Everything else that is raised is a bug. A message is lower case, has no full stop, contains the value or path; the
hint says what to do. `span` points into the file the user wrote. The tables from category to exit code and HTTP
status live in `pipeline/cli/main.py` and `runtime/daemon/errors.py`; nobody matches message text.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.spans import Span


class PipeError(Exception):
    """What all of ours have: a message, where the user wrote it, and what to do."""

    def __init__(self, message: str, span: Span | None = None, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.span}: {self.message}" if self.span else self.message


class InvalidInput(PipeError):
    pass


class NotFound(PipeError):
    pass


class Conflict(PipeError):
    pass


class Denied(PipeError):
    pass


class Unavailable(PipeError):
    pass


class Unsupported(PipeError):
    pass


class StepFailed(PipeError):
    """`exit_code` is the step's own; `output` its last lines, secrets already masked."""

    def __init__(
        self, message: str, span: Span | None = None, *, hint: str = "", exit_code: int = 1, output: str = ""
    ) -> None:
        super().__init__(message, span, hint=hint)
        self.exit_code = exit_code
        self.output = output


class TimedOut(PipeError):
    pass


class Cancelled(PipeError):
    pass


class HostFault(PipeError):
    pass


_CHOICES = 200  # each is compared with the word; more names than people write are a machine's


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word a mistyped one was probably meant to be."""
    import difflib  # 7 ms that only a mistake should cost

    choices = list(known)[:_CHOICES]
    matches = difflib.get_close_matches(word.lower(), [choice.lower() for choice in choices], n=1, cutoff=0.6)
    return next((choice for choice in choices if matches and choice.lower() == matches[0]), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a mistyped word, empty when nothing is near."""
    match = closest(word, known)
    return f"did you mean `{match}`?" if match else ""
