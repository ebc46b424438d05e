"""What a vertex yielded: the state of a root, or a tree of files to take from.

A root is usable as soon as its snapshot exists; what it is called (diff_id, chain id) may still be computed by the hash
pool. `RootState.chain()` waits for that, `snapshot()` never does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.operations.selection import Tree
from builder.pools import Task
from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import frozen

if TYPE_CHECKING:
    from builder.digests import Memory
    from runtime.images.image import Image


@frozen
class Made:
    """One layer a step made: which snapshot, called what, when (nanoseconds), and the chain id it ends."""

    snapshot: str
    diff_id: Digest
    chain_id: Digest
    made: int
    size: int = 0


class RootState:
    """A root: the image it began with, and one layer for every step since."""

    def __init__(
        self,
        *,
        image: Image | None = None,
        unpack: Callable[[], str | None] | None = None,
        parent: RootState | None = None,
        snapshot: str | None = None,
        made: Task[Made] | Made | None = None,
        cached: bool = False,
        definition: str = "",
        is_here: Callable[[], bool] | None = None,
        joins: bool = False,
    ) -> None:
        self.image: Image | None = image if parent is None else parent.image
        self._is_here, self._joins = is_here, joins
        self._unpack, self._parent, self._snapshot, self._made = unpack, parent, snapshot, made
        self.cached = cached
        self.definition = definition  # what locks are named after: known before anything ran

    def snapshot(self) -> str | None:
        """The snapshot to work on; None is the empty root. Fetches and unpacks a base image at first use."""
        if self._snapshot is None and self._unpack is not None:
            self._snapshot = self._unpack()
        return self._snapshot

    def bottom(self) -> RootState:
        """What it all began with: a base image, or the empty root."""
        state = self
        while state._parent is not None:
            state = state._parent
        return state

    def unjoined(self) -> list[RootState]:
        """This and the states below whose layer is here but not on its root yet, lowest first."""
        found = []
        state: RootState | None = self
        while state is not None:
            if state._joins and state._snapshot is None:
                found.append(state)
            state = state._parent
        return found[::-1]

    def is_here(self) -> bool:
        """Whether `snapshot` need not wait for anything that is elsewhere."""
        state: RootState | None = self
        while state is not None and state._snapshot is None:
            if state._is_here is not None:
                return state._is_here()
            state = state._parent
        return True

    def made(self) -> Made | None:
        """The layer of this very step (waits for its hash); None for a base or where no layer was needed."""
        return self._made.result() if isinstance(self._made, Task) else self._made

    def wait(self) -> None:
        """Until its hash is known or has failed; what uses the store must not outlive the build."""
        if isinstance(self._made, Task):
            self._made.error()

    def chain(self) -> str:
        """The chain id, "" for the empty root."""
        if (made := self.made()) is not None:
            return made.chain_id
        if self._parent is not None:
            return self._parent.chain()
        diff_ids = self.image.config.diff_ids if self.image is not None else ()
        return chain_ids(diff_ids)[-1] if diff_ids else ""

    def diff_ids(self) -> tuple[Digest, ...]:
        below = self.image.config.diff_ids if self.image is not None else ()
        return (*below, *(layer.diff_id for layer in self.layers()))

    def layers(self) -> tuple[Made, ...]:
        """All layers since the base."""
        found: list[Made] = []
        state: RootState | None = self
        while state is not None:
            if (made := state.made()) is not None:
                found.append(made)
            state = state._parent
        return tuple(reversed(found))


@frozen
class FilesState:
    """A source of files: a client's directory, a download, a checkout, files written in the Dockerfile."""

    tree: Tree
    memory: Memory
    definition: str  # what tells two directories apart while they are in use; no part of a key
    time: int | None = None  # of a commit, or of a file as its server says: seconds since 1970


State = RootState | FilesState
