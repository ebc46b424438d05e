"""Opening what files are taken from: the directory of a source, or the merged view of a finished root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from builder.digests import Memory, NoMemory
from builder.operations.selection import Ignoring, Tree
from builder.state import FilesState, RootState, State
from runtime.store.store import Store


class NotYet(Exception):
    """Looking is not enough: something would have to be mounted, fetched or run."""


class ImportFailed(Exception):
    """A root that was found elsewhere cannot be had. What failed is not offered again; build once more."""


class Trees:
    """The trees of one build. Without `may_mount` only what lies open is given, for a build that only looks."""

    def __init__(self, store: Store, *, may_mount: bool = True) -> None:
        self._store, self._may_mount = store, may_mount

    @contextmanager
    def opened(self, state: State) -> Iterator[Tree]:
        """The files of `state` at a path, for reading."""
        if isinstance(state, FilesState):
            yield state.tree
            return
        if not self._may_mount:
            raise NotYet
        snapshot = state.snapshot()
        if snapshot is None:
            import os

            yield Tree(os.path.join(self._store.root, "empty"), keep_owner=True, name="the empty stage")
            return
        with self._store.snapshots.mounted(snapshot) as path:
            yield Tree(path, keep_owner=True, name=_name_of(state))

    def memory(self, state: State) -> Memory:
        return state.memory if isinstance(state, FilesState) else NoMemory()

    @staticmethod
    def patterns(lines: Sequence[str]) -> Ignoring | None:
        """`--exclude` patterns, which are those of an ignore file."""
        if not lines:
            return None
        from builder.ignore import Patterns

        return Patterns.parse("\n".join(lines), "--exclude")


def _name_of(state: RootState) -> str:
    if state.image is None:
        return "the stage"
    # Of several names we do not know which one FROM has.
    return f"image {state.image.tags[0]}" if len(state.image.tags) == 1 else "the image"
