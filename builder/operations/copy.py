"""COPY and ADD: what is taken from where, and under which name it comes to lie (FEATURES A-65…A-78).

The rules of the destination: a directory's contents go into `dest`; a file becomes `dest`, or goes into it when `dest`
ends in a slash or is a directory already. Links in `dest` are followed inside the root.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from builder.cache import Cache
from builder.content import NOTHING_STORED, Content, ContentWriter, combined, content_of
from builder.graph import Copy, CopySource
from builder.keys import Shape, copy_shape
from builder.operations.copying import Copier, Style
from builder.operations.feed import LayerFeed
from builder.operations.modes import mode_of_made, parse_mode
from builder.operations.owners import ROOT, Owner, resolve_owner
from builder.operations.regular import read_digest
from builder.operations.roots import Root
from builder.operations.selection import Group, Tree, select
from builder.operations.step import Outcome, Setting
from builder.operations.walking import Stretch, changed_while_read
from builder.state import FilesState, RootState, State
from builder.trees import Trees
from registry_client.values import frozen, replace
from runtime.errors import InvalidInput
from runtime.store.snapshots import Draft

if TYPE_CHECKING:
    from builder.operations.copyworker import CopyWorker
    from builder.operations.reuse import Earlier
    from builder.operations.seen import Seen
    from runtime.sandbox.spawner import Spawner


@frozen
class _Taken:
    """One source with its tree open and its files selected."""

    source: CopySource
    state: State
    tree: Tree
    groups: tuple[Group, ...]


class CopyStep:
    def __init__(
        self,
        operation: Copy,
        inputs: Sequence[State],
        setting: Setting,
        trees: Trees,
        cache: Cache,
        spawner: Spawner | None = None,
        *,
        place: str | None = None,
        seen: Seen | None = None,
    ) -> None:
        """`place` says which step of which Dockerfile this is; None where no earlier run of it may be made use of.

        `seen` is what another object for this step saw of the context when it was asked for the content.
        """
        self._spawner, self._place, self.seen = spawner, place, seen
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
        return combined([self._content_of_source(source) for source in self._operation.sources])

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
        rest = [] if (newest := self._setting.newest_ns) is None else [newest]
        return json.dumps([list(source.paths), list(operation.exclude), operation.parents, *rest])

    def _read_content(self, source: CopySource, state: State) -> Content:
        with self._taken(source, state) as taken:
            self.seen = None
            if len(self._operation.sources) == 1 and isinstance(state, FilesState):
                from builder.operations.seen import seen_of

                self.seen = seen_of(taken.tree, taken.groups)
            return content_of(
                taken.groups,
                self._trees.memory(state),
                keep_owner=taken.tree.keep_owner,
                newest_ns=self._setting.newest_ns,
                cancel=self._setting.cancel,
                seen=self.seen,
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
            stages: list[tuple[RootState, str, str]] = []
            placing = _Placing(operation, root, taken)
            feed = stack.enter_context(LayerFeed())
            earlier = self._earlier(stack)
            if not _comes_in_order(taken):
                feed.abandon()
            elif self.seen is not None:
                (only,) = taken
                taken = [replace(only, groups=(self.seen.instead_of(only.groups[0], only.tree),))]
            for each in taken:
                style = Style(
                    owner=owner or (None if each.tree.keep_owner else ROOT),
                    change_mode=self._change_mode,
                    made_mode=mode_of_made(operation.mode),
                    newest_ns=self._setting.newest_ns,
                    directory_ns=self._setting.directory_ns(),
                )
                part = self._copy(root, each, style, placing, feed, earlier)
                if isinstance(each.state, RootState):
                    stages.append((each.state, self._selector(each.source), part.digest))
                parts.append(part)
            root.settle()
            info = feed.finish()
        content = combined(parts)
        if info is None:
            # Something came over something else: what was copied need not be there.
            content = replace(content, copied=())
            return Outcome(content, empty=not os.listdir(draft.upper), taken=tuple(stages))
        return Outcome(content, diff_id=info.diff_id, size=info.size, taken=tuple(stages))

    def _earlier(self, stack: ExitStack) -> Earlier | None:
        """The nearest earlier run of this step, if there is one that has files."""
        found = None if self._place is None else self._cache.earlier(self.shape, self._place)
        if found is None:
            return None
        from builder.operations.reuse import Earlier

        return stack.enter_context(Earlier(found.layer, found.stretches, found.pieces))

    def _copy(
        self,
        root: Root,
        taken: _Taken,
        style: Style,
        placing: _Placing,
        feed: LayerFeed,
        earlier: Earlier | None,
    ) -> Content:
        memory, setting = self._trees.memory(taken.state), self._setting
        content = ContentWriter(
            keep_owner=taken.tree.keep_owner,
            newest_ns=setting.newest_ns,
            keep_lines=True,
            stored=NOTHING_STORED if earlier is None else earlier.pieces,
        )
        with self._helper(taken, feed) as helper:
            copier = Copier(root, style, memory, setting.cancel, feed, helper, earlier)
            self._fill(root, taken, style, placing, copier, feed, content)
        if not copier.count:
            feed.abandon()  # a directory that was there already and stays as it is has no entry
        return content.finish()

    def _fill(
        self,
        root: Root,
        taken: _Taken,
        style: Style,
        placing: _Placing,
        copier: Copier,
        feed: LayerFeed,
        content: ContentWriter,
    ) -> None:
        filling = _Filling(root, style, copier, feed, placing, content)
        given = style.owner if self._operation.owner else None
        for group in taken.groups:
            content.group(group)
            if group.is_directory:
                filling.directory(group)
                continue
            for stretch in group.stretches():
                (item,) = stretch.files()
                if taken.source.unpack and self._unpacked(item.path, filling, root, given):
                    files = self._trees.memory(taken.state).directory(stretch.inode)
                    content.files(stretch, [read_digest(item, files, self._setting.cancel)])
                else:
                    filling.file(group, stretch)

    def _unpacked(self, path: str, filling: _Filling, root: Root, owner: Owner | None) -> bool:
        """ADD of an archive puts what is in it into the directory; False for any other file."""
        from builder.operations.archive import is_archive, unpack  # tarfile: only for those who ADD

        if not is_archive(path):
            return False
        directory = filling.placing.directory
        filling.make(directory, changed=False)
        root.settle()
        unpack(path, root, directory, self._setting, owner=owner)
        return True

    @contextmanager
    def _helper(self, taken: _Taken, feed: LayerFeed) -> Iterator[Callable[[], CopyWorker] | None]:
        """Starts a second process for a directory of the client; it has done all, or stopped, at the end of the block."""
        spawner = self._spawner
        if spawner is None or not feed.alive or not isinstance(taken.state, FilesState):
            yield None
            return
        from builder.operations.copyworker import ChangedWhileCopied, CopyWorker

        started: list[CopyWorker] = []

        def start() -> CopyWorker:
            started.append(CopyWorker(spawner))
            return started[0]

        try:
            yield start
            for worker in started:
                worker.finish()
        except ChangedWhileCopied as error:
            raise changed_while_read(str(error)) from error
        except BrokenPipeError:
            for worker in started:
                worker.finish()  # it gave up, and this raises why
            raise
        except BaseException:
            for worker in started:
                worker.abandon()
            raise


def _comes_in_order(taken: Sequence[_Taken]) -> bool:
    """A single directory's contents: the files come in the order of a layer, and no name comes twice."""
    groups = [group for each in taken for group in each.groups]
    return len(groups) == 1 and groups[0].is_directory


class _Filling:
    """Puts the groups of one source in their places, and makes the directories for them.

    What is made belongs to the owner that was asked for, the missing parents too. The target of directories takes the
    time of the last, unless a file comes into it afterwards. (All as BuildKit does.)
    """

    def __init__(
        self,
        root: Root,
        style: Style,
        copier: Copier,
        feed: LayerFeed,
        placing: _Placing,
        content: ContentWriter,
    ) -> None:
        self._root, self._style, self._copier, self._feed, self.placing = root, style, copier, feed, placing
        self._content = content
        self._timed: set[str] = set()

    def make(self, path: str, *, changed: bool = True) -> None:
        """`changed`: --chmod counts for it. What comes out of an archive has the archive's modes, and so has its place."""
        style, owner = self._style, self._style.owner or ROOT
        mode = style.made_mode if changed else 0o755
        self._root.ensure(path, mode=mode, uid=owner.uid, gid=owner.gid, mtime_ns=style.directory_ns)
        if path in self._timed:
            self._root.set_times(path, style.directory_ns)

    def directory(self, group: Group) -> None:
        target = self.placing.target(group)
        self.make(target)
        # The top of a context has no time that would mean anything.
        if group.status is not None and group.source and target:
            self._root.set_times(target, self._style.mtime_ns(group.status.st_mtime_ns))
            self._timed.add(target)
        self._root.describe(target, self._feed)
        prefix = f"{target}/" if target else ""
        for stretch in group.stretches():
            self._copier.place_stretch(stretch, prefix, self._content)

    def file(self, group: Group, stretch: Stretch) -> None:
        target = self.placing.target(group)
        self.make(target.rpartition("/")[0])
        self._copier.place_single(stretch, target, self._content)


class _Placing:
    """Which name in the root a group gets."""

    def __init__(self, operation: Copy, root: Root, taken: Sequence[_Taken]) -> None:
        self._root, self.directory = root, root.resolve(operation.dest)
        groups = [group for each in taken for group in each.groups]
        self._named_directory = operation.dest.endswith(("/", "/.")) or operation.parents
        occupied = root.locate(self.directory) is not None and not root.directories(self.directory)
        if occupied and (self._named_directory or any(group.is_directory for group in groups)):
            raise InvalidInput(f"cannot copy into {operation.dest}: it is not a directory")

    def target(self, group: Group) -> str:
        # What is there counts when its turn comes: of several files without a slash at the end the last stays, as in BuildKit.
        if group.is_directory or not (self._named_directory or self._root.directories(self.directory)):
            return self.directory
        name = group.items[0].name if group.items else ""
        return f"{self.directory}/{name}" if self.directory else name
