"""Where the vertices without inputs come from: images, directories, downloads, checkouts, heredocs."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.context import Context, check_directory, read_ignore
from builder.digests import FileDigests, Memory, NoMemory
from builder.graph import GitSource, HttpSource, ImageSource, InlineSource, LocalSource, Vertex
from builder.operations.selection import Tree
from builder.operations.step import Setting
from builder.state import FilesState, RootState
from builder.workshop import Workshop
from runtime.images.image import Image
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.bases import Bases
    from builder.fetching import Fetching
    from runtime.images.images import Images


class BuildSources:
    """The sources of one build."""

    def __init__(
        self,
        store: Store,
        images: Images,
        workshop: Workshop,
        setting: Setting,
        context: Context,
        named: Mapping[str, str],
        bases: Bases,
        fetching: Fetching | None,
    ) -> None:
        self._store, self._images, self._workshop, self._setting = store, images, workshop, setting
        self._context, self._named = context, named
        self._bases, self._fetching = bases, fetching
        self._memories: dict[str, Memory] = {}
        self._lock = threading.Lock()

    def image(self, operation: ImageSource) -> RootState:
        base, cancel, fetching = self._bases[operation], self._setting.cancel, self._fetching
        if isinstance(base, Image):
            state = RootState(image=base, unpack=lambda: self._images.snapshot(base, cancel), cached=True)
        else:
            assert fetching is not None, "who only looks resolves what is here"
            state = RootState(
                image=base.image,
                unpack=lambda: fetching.files(base),
                is_here=lambda: base.is_unpacked,
                cached=True,
            )
        state.definition = state.chain() or "scratch"
        return state

    def files(self, vertex: Vertex) -> FilesState:
        operation = vertex.operation
        if isinstance(operation, LocalSource):
            return self._local(operation)
        if isinstance(operation, InlineSource):
            return self._inline(operation, vertex)
        if isinstance(operation, HttpSource):
            from builder.operations.http import fetch_http

            return fetch_http(self._store, self._setting, operation, self._workshop.facilities.secrets)
        assert isinstance(operation, GitSource)
        from builder.operations.git import fetch_git

        return fetch_git(self._store, operation, self._workshop.agent)

    def _local(self, operation: LocalSource) -> FilesState:
        if operation.name == "context":
            tree, lasting = self._context.tree, self._context.lasting
        else:
            path = self._named[operation.name]
            check_directory(path)
            directory = os.path.realpath(path)
            tree = Tree(directory, ignore=read_ignore(directory, ""), name=f"context {operation.name}")
            lasting = True
        return FilesState(tree, self._memory(tree.path, lasting), definition=tree.path)

    def _memory(self, path: str, lasting: bool) -> Memory:
        if not lasting:
            return NoMemory()
        with self._lock:
            if path not in self._memories:
                self._memories[path] = FileDigests(self._store.db, path)
            return self._memories[path]

    def _inline(self, operation: InlineSource, vertex: Vertex) -> FilesState:
        directory = self._workshop.new_name("heredoc")
        os.mkdir(directory)
        time_ns = self._setting.directory_ns()
        for name, data in operation.files:
            place = os.path.join(directory, name)
            with open(place, "wb") as file:
                file.write(data)
            os.chmod(place, 0o644)
            os.utime(place, ns=(time_ns, time_ns))
        return FilesState(Tree(directory, name="the heredoc"), NoMemory(), definition=vertex.digest)

    def save(self) -> None:
        """Keep what was learned about files."""
        for memory in self._memories.values():
            memory.save()
