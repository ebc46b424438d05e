"""What a bind mount of a RUN shows: a part of a finished root, or of a client's directory as the build sees it.

A client's directory is not mounted itself: excluded files would be visible, owners would be the client's, and files
could change under the command. Its selection is copied once into a snapshot that is kept as a cache record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from builder.cache import Cache, Record
from builder.content import Content, ContentWriter, content_of
from builder.keys import Shape, cache_key
from builder.operations.copying import Copier, Style
from builder.operations.owners import ROOT
from builder.operations.roots import Root, clean
from builder.operations.selection import Tree, select
from builder.operations.step import Setting
from builder.state import FilesState, State
from builder.trees import Trees
from registry_client.oci.digest import Digest
from runtime.errors import NotFound
from runtime.store.store import Store

_SHAPE = Shape.of("files.v1", {"is": "files of a context for a mount"})


class Views:
    """The views one step needs."""

    def __init__(self, store: Store, trees: Trees, cache: Cache, setting: Setting) -> None:
        self._store, self._trees, self._cache, self._setting = store, trees, cache, setting

    def content(self, state: FilesState, source: str, *, keep_lines: bool = False) -> Content:
        """The content of one path of a client's directory."""
        groups = select(state.tree, [clean(source) or "."])
        keep_owner, cancel = state.tree.keep_owner, self._setting.cancel
        return content_of(groups, state.memory, keep_owner=keep_owner, cancel=cancel, keep_lines=keep_lines)

    def located(self, state: State, source: str) -> tuple[str | None, str]:
        """The snapshot that holds what is to be shown, and the path in it."""
        path = clean(source)
        if not isinstance(state, FilesState):
            return state.snapshot(), path
        return self._snapshot_of(state, path), os.path.basename(path) if self._is_file(state, path) else ""

    @contextmanager
    def shown(self, snapshot: str | None, path: str, readonly: bool, source: str) -> Iterator[str]:
        """A path to bind. Without `readonly` writes go nowhere that matters (A-57)."""
        with ExitStack() as stack:
            if readonly and snapshot is not None:
                top = stack.enter_context(self._store.snapshots.mounted(snapshot))
            else:
                draft = stack.enter_context(self._store.snapshots.prepare(snapshot))
                top = stack.enter_context(draft.merged())
            resolved = Root(top).resolve(path)
            place = f"{top}/{resolved}" if resolved else top
            if not os.path.lexists(place):
                raise NotFound(f'"/{clean(source)}": not found, cannot mount it')
            yield place

    @staticmethod
    def _is_file(state: FilesState, path: str) -> bool:
        return bool(path) and not os.path.isdir(f"{state.tree.path}/{Root(state.tree.path).resolve(path)}")

    def _snapshot_of(self, state: FilesState, path: str) -> str:
        """The selection as a snapshot: found by its content, else copied now."""
        key = cache_key(_SHAPE, "", self.content(state, path))
        record = self._cache.find(key)
        if record is not None:
            return record.snapshot
        with self._store.snapshots.prepare(None) as draft:
            content = self._fill(state.tree, state, path or ".", draft.upper)
            snapshot = draft.commit()
        key = cache_key(_SHAPE, "", content)
        empty = Digest("")
        found = Record(
            key, f"files of {state.tree.name}", snapshot.id, empty, empty, int(snapshot.created * 1e9), 0
        )
        self._cache.put(found, _SHAPE, content)
        return snapshot.id

    def _fill(self, tree: Tree, state: State, path: str, place: str) -> Content:
        groups = select(tree, [path])
        root = Root(place)
        memory = self._trees.memory(state)
        style = Style(owner=None if tree.keep_owner else ROOT, directory_ns=self._setting.directory_ns())
        copier = Copier(root, style, memory, self._setting.cancel)
        content = ContentWriter(keep_owner=tree.keep_owner)
        for group in groups:
            content.group(group)
            for stretch in group.stretches():
                copier.place_stretch(stretch, "", content)
        root.settle()
        return content.finish()

    def copy(self, state: State, path: str, place: str) -> None:
        """Copy a part of `state` into the directory `place`: the seed of a cache mount."""
        with self._trees.opened(state) as tree:
            self._fill(tree, state, clean(path) or ".", place)
