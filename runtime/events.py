"""The one event stream. Everything that works emits; renderers, the journal and the HTTP endpoints only consume.

`Emit` never blocks and never raises. Secrets are masked where output enters the stream, so no consumer ever sees one.
A node is named by the producer (`build/app/3`, `stage/unit`, `pull/busybox`); names are unique within one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from registry_client.values import field, frozen
from runtime.spans import Span


class Outcome(StrEnum):
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    ERROR = "error"  # the host's or our fault, not the step's
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    WARNING = "warning"  # failed, and was allowed to


@frozen(kw_only=True)
class Started:
    node: str
    name: str
    parent: str = ""
    time: float = field(default_factory=time.time)


@frozen(kw_only=True)
class Output:
    node: str
    stream: str  # "stdout" or "stderr"
    data: bytes
    time: float = field(default_factory=time.time)


@frozen(kw_only=True)
class Warned:
    node: str
    message: str
    span: Span | None = None
    rule: str = ""  # a build check: its name, the page about it, what it is about
    url: str = ""
    detail: str = ""
    time: float = field(default_factory=time.time)


@frozen(kw_only=True)
class Progress:
    """May be coalesced. `total` is 0 while unknown; `unit` is "B" for bytes."""

    node: str
    item: str
    current: int
    total: int = 0
    unit: str = "B"
    time: float = field(default_factory=time.time)


@frozen(kw_only=True)
class Finished:
    node: str
    outcome: Outcome
    error: str = ""
    detail: str = ""  # what a person wants beside the outcome: "exit 1", an image id, a digest
    time: float = field(default_factory=time.time)


@frozen(kw_only=True)
class Changed:
    """An object of the store changed: `kind` is image, container, network, volume or run; as `docker events` tells it."""

    kind: str
    id: str
    action: str
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    time: float = field(default_factory=time.time)


Event = Started | Output | Warned | Progress | Finished | Changed
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The `Emit` of those nobody listens to."""
