"""What the executor knows of a step: its shape, its content, and how to carry it out in a draft.

A step is prepared (cheap, touches nothing), asked for its content only when a record could match, and executed only when
none does. It never commits and never records anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from builder.content import EMPTY_CONTENT, Content
from builder.keys import Shape, Surroundings
from registry_client.values import field, frozen
from runtime.cancel import Cancel
from runtime.events import Emit, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.failed import FailedStep
    from builder.state import RootState
    from registry_client.oci.digest import Digest
    from runtime.store.snapshots import Draft


@frozen
class Outcome:
    """What came of it. `unneeded`: nothing had to be done, there is no layer. `empty`: a layer, with nothing in it."""

    content: Content = EMPTY_CONTENT
    empty: bool = False
    unneeded: bool = False
    diff_id: Digest | None = None  # when the layer was hashed on the way
    size: int = 0
    taken: tuple[
        tuple[RootState, str, str], ...
    ] = ()  # of finished roots: a selection, and its content digest


@frozen(kw_only=True)
class Setting:
    """What all steps of one build share: its surroundings, its clock, where it tells and when it stops."""

    surroundings: Surroundings = field(default_factory=Surroundings)
    epoch: int | None = None
    rewrite: bool = False  # layer times are clamped to the epoch
    cancel: Cancel = field(default_factory=Cancel)
    emit: Emit = ignore
    on_failure: Callable[[FailedStep], None] | None = None  # called while a failed RUN's sandbox still stands

    @property
    def newest_ns(self) -> int | None:
        return self.epoch * 10**9 if self.rewrite and self.epoch is not None else None

    def directory_ns(self) -> int:
        """The time of directories that are made on the way: the epoch, else now (A-78)."""
        import time

        return time.time_ns() if self.epoch is None else self.epoch * 10**9


class Sought:
    """A step that takes in nothing but its root and is only looked for: a shape, and none of what the work would need."""

    independent = False

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def content(self) -> Content:
        return EMPTY_CONTENT

    def execute(self, draft: Draft) -> Outcome:
        raise AssertionError("who only looks executes nothing")


class Step(Protocol):
    @property
    def shape(self) -> Shape: ...

    @property
    def independent(self) -> bool:
        """True when the root does not count for the key (COPY --link)."""
        ...

    def content(self) -> Content: ...

    def execute(self, draft: Draft) -> Outcome: ...
