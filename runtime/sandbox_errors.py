"""Where the sandbox's one error becomes a category everybody knows.

The sandbox stands below `runtime.errors` (imports point left only). Whoever calls it from `runtime` or above does so
inside `translated()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import HostFault, InvalidInput, PipeError, Unsupported
from runtime.sandbox.errors import SandboxError

_CATEGORIES: dict[str, type[PipeError]] = {
    "input": InvalidInput,
    "unsupported": Unsupported,
    "host": HostFault,
}


def to_pipe_error(error: SandboxError) -> PipeError:
    return _CATEGORIES.get(error.kind, HostFault)(str(error), hint=error.hint)


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except SandboxError as error:
        raise to_pipe_error(error) from error
