"""COPY and ADD: what is taken from where, and under which name it comes to lie (FEATURES A-65…A-78).

The rules of the destination: a directory's contents go into `dest`; a file becomes `dest`, or goes into it when `dest`
ends in a slash, is a directory already, or several things are copied. Links in `dest` are followed inside the root.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from builder.cache import Cache
from builder.graph import Copy, CopySource
from builder.keys import Content, Shape, content_of, content_of_lines, copy_shape
from builder.operations.archive import is_archive, unpack
from builder.operations.copying import Copier, Style
from builder.operations.feed import LayerFeed
from builder.operations.modes import parse_mode
from builder.operations.owners import ROOT, resolve_owner
from builder.operations.roots import Root
from builder.operations.selection import Group, Tree, select
from builder.operations.step import Outcome, Setting
from builder.state import FilesState, State
from builder.trees import Trees
from runtime.errors import InvalidInput
from runtime.store.snapshots import Draft


@dataclass(frozen=True, slots=True)
class _Taken:
    """One source with its tree open and its files selected."""

    source: CopySource
    state: State
    tree: Tree
    groups: tuple[Group, ...]


class CopyStep:
    def __init__(
        self, operation: Copy, inputs: Sequence[State], setting: Setting, trees: Trees, cache: Cache
    ) -> None:
        self._operation, self._inputs, self._setting = operation, inputs, setting
        self._trees, self._cache = trees, cache
        self._exclude = trees.patterns(operation.exclude)
        self._change_mode = parse_mode(operation.mode) if operation.mode else None
        self.shape: Shape = copy_shape(operation, setting.surroundings)
        # An owner by name depends on the root's passwd file, and with it the result.
        self.independent = operation.link and not operation.owner

    # --- the key --------------------------------------------------------------------------------------------------

    def content(self) -> Content:
        """One line for every source; those of finished roots are remembered by chain id."""
        return _combined([self._content_of_source(source) for source in self._operation.sources])

    def _content_of_source(self, source: CopySource) -> Content:
        state = self._inputs[source.input]
        if isinstance(state, FilesState):
            return self._read_content(source, state)
        selector = self._selector(source)
        chain = state.chain()
        known = self._cache.content_digest(chain, selector)
        if known is not None:
            return Content(known)
        content = self._read_content(source, state)
        self._cache.remember_content(chain, selector, content.digest)
        return Content(content.digest)

    def _selector(self, source: CopySource) -> str:
        operation = self._operation
        return json.dumps([list(source.paths), list(operation.exclude), operation.parents])

    def _read_content(self, source: CopySource, state: State) -> Content:
        with self._taken(source, state) as taken:
            return content_of(
                taken.groups,
                self._trees.memory(state),
                keep_owner=taken.tree.keep_owner,
                cancel=self._setting.cancel,
            )

    @contextmanager
    def _taken(self, source: CopySource, state: State) -> Iterator[_Taken]:
        with self._trees.opened(state) as tree:
            groups = select(tree, source.paths, exclude=self._exclude, parents=self._operation.parents)
            yield _Taken(source, state, tree, groups)

    # --- the work -------------------------------------------------------------------------------------------------

    def execute(self, draft: Draft) -> Outcome:
        operation = self._operation
        root = Root(draft.upper, draft.lowers)
        owner = resolve_owner(operation.owner, root) if operation.owner else None
        with ExitStack() as stack:
            taken = [
                stack.enter_context(self._taken(source, self._inputs[source.input]))
                for source in operation.sources
            ]
            if operation.link:
                # Into an empty tree: links of the root are not followed, directories come out new.
                root = Root(draft.upper)
            parts: list[Content] = []
            placing = _Placing(operation, root, taken)
            feed = LayerFeed()
            if not _comes_in_order(taken):
                feed.abandon()
            for each in taken:
                style = Style(
                    owner=owner or (None if each.tree.keep_owner else ROOT),
                    change_mode=self._change_mode,
                    newest_ns=self._setting.newest_ns,
                    directory_ns=self._setting.directory_ns(),
                )
                part = self._copy(root, each, style, placing, feed)
                parts.append(part if isinstance(each.state, FilesState) else Content(part.digest))
            root.settle()
        info = feed.finish()
        if info is None:
            return Outcome(_combined(parts), empty=not os.listdir(draft.upper))
        return Outcome(_combined(parts), diff_id=info.diff_id, size=info.size)

    def _copy(self, root: Root, taken: _Taken, style: Style, placing: _Placing, feed: LayerFeed) -> Content:
        memory = self._trees.memory(taken.state)
        copier = Copier(root, style, memory, self._setting.cancel, feed)
        owner = style.owner or ROOT
        for group in taken.groups:
            target = placing.target(group)
            if group.is_directory:
                root.ensure(target, uid=owner.uid, gid=owner.gid, mtime_ns=style.directory_ns)
                root.describe(target, feed)
                prefix = f"{target}/" if target else ""
                for item in group.items:
                    copier.place(item, prefix + item.name)
                continue
            for item in group.items:
                if taken.source.unpack and is_archive(item.path):
                    directory = placing.directory
                    root.ensure(directory, uid=owner.uid, gid=owner.gid, mtime_ns=style.directory_ns)
                    root.settle()
                    unpack(
                        item.path,
                        root,
                        directory,
                        self._setting,
                        owner=style.owner if self._operation.owner else None,
                    )
                    continue
                parent = target.rpartition("/")[0]
                root.ensure(parent, uid=owner.uid, gid=owner.gid, mtime_ns=style.directory_ns)
                copier.place(item, target)
        return content_of(
            taken.groups,
            memory,
            keep_owner=taken.tree.keep_owner,
            read=copier.contents,
            cancel=self._setting.cancel,
        )


def _combined(parts: Sequence[Content]) -> Content:
    if len(parts) == 1:
        return parts[0]
    return content_of_lines(line for part in parts for line in (*part.lines, part.digest))


def _comes_in_order(taken: Sequence[_Taken]) -> bool:
    """A single directory's contents: the files come in the order of a layer, and no name comes twice."""
    groups = [group for each in taken for group in each.groups]
    return len(groups) == 1 and groups[0].is_directory and bool(groups[0].items)


class _Placing:
    """Which name in the root a group gets."""

    def __init__(self, operation: Copy, root: Root, taken: Sequence[_Taken]) -> None:
        self.directory = root.resolve(operation.dest)
        groups = [group for each in taken for group in each.groups]
        count = sum(1 if group.is_directory else len(group.items) for group in groups)
        self._into = (
            operation.dest.endswith(("/", "/."))
            or operation.parents
            or count > 1
            or bool(root.directories(self.directory))
        )
        occupied = root.locate(self.directory) is not None and not root.directories(self.directory)
        if occupied and (self._into or any(group.is_directory for group in groups)):
            raise InvalidInput(f"cannot copy into {operation.dest}: it is not a directory")

    def target(self, group: Group) -> str:
        if group.is_directory or not self._into:
            return self.directory
        name = group.items[0].name if group.items else ""
        return f"{self.directory}/{name}" if self.directory else name
