"""Opening what files are taken from: the directory of a source, or the merged view of a finished root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from builder.digests import Memory, NoMemory
from builder.operations.selection import Ignoring, Tree
from builder.state import FilesState, RootState, State
from runtime.store.store import Store


class Trees:
    """The trees of one build."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def opened(self, state: State) -> Iterator[Tree]:
        """The files of `state` at a path, for reading."""
        if isinstance(state, FilesState):
            yield state.tree
            return
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

        return Patterns.parse("\n".join(lines))


def _name_of(state: RootState) -> str:
    return f"image {state.image.tags[0]}" if state.image is not None and state.image.tags else "the stage"
