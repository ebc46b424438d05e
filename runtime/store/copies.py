"""Merged views where overlay is refused: directories made from layers, kept from one use to the next.

A view for readers is made of hard links and kept until the store is left. A tree a program writes to is a copy of its own; the
next step gets it as it is (`Trees.keep`), so that a build of ten steps copies its base once. Both lie in drafts, under the name
of their owner: after a kill they are garbage like any other.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from runtime.store.changes import draw_out, wait_for_tick
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.merging import ENTRIES, Merged, Noted, unchecked
from runtime.store.owners import own_token
from runtime.store.written import written_below

_KEPT = 4  # trees and views that nobody uses at the moment, of each
_TREE, _NOTED = "tree", "noted"


class _Kept:
    """A tree nobody uses: the layers of a snapshot, or all but the changes of its own layer (`whole` is False)."""

    def __init__(self, directory: str, noted: Noted, whole: bool) -> None:
        self.directory, self.noted, self.whole = directory, noted, whole


class _View:
    def __init__(self, directory: str) -> None:
        self.directory, self.users = directory, 0


class Copies:
    """The views and trees of one process. Layers are given as snapshot paths, topmost first, as `Snapshots.lowers` does."""

    def __init__(self, drafts: str) -> None:
        self._drafts = drafts
        self._trees_lock, self._views_lock = threading.Lock(), threading.Lock()
        self._trees: dict[str, _Kept] = {}  # by the topmost layer
        self._views: dict[tuple[str, ...], _View] = {}  # by the layers; used last comes last

    # --- to read ----------------------------------------------------------------------------------------------------

    @contextmanager
    def view(self, layers: Sequence[str]) -> Iterator[str]:
        """The layers as one directory, which must not be written to: its files are the layers' own."""
        key = tuple(layers)
        with self._views_lock:
            # Made under the lock: whoever wants the same one waits for it.
            view = self._views.pop(key, None) or _View(self._linked(key))
            self._views[key] = view
            view.users += 1
        try:
            yield os.path.join(view.directory, _TREE)
        finally:
            with self._views_lock:
                view.users -= 1
                idle = [each for each, known in self._views.items() if not known.users]
                doomed = [self._views.pop(each) for each in idle[:-_KEPT]]
            for each in doomed:
                remove_tree(each.directory)

    def _linked(self, layers: Sequence[str]) -> str:
        with self._owned_directory() as directory:
            merged = Merged(os.path.join(directory, _TREE), link=True)
            os.mkdir(merged.root, 0o755)
            _add_all(merged, layers)
        return directory

    @contextmanager
    def _owned_directory(self, kept: _Kept | None = None) -> Iterator[str]:
        """A directory of this process, a new one unless one was kept; it stays when the block succeeds."""
        directory = os.path.join(self._drafts, f"{os.urandom(8).hex()}.{own_token()}")
        with faults_of_the_host(f"cannot copy the layers to {self._drafts}"):
            if kept is None:
                os.mkdir(directory, 0o711)
            else:
                directory = kept.directory
            try:
                yield directory
            except BaseException:
                remove_tree(directory)
                raise

    # --- to write ---------------------------------------------------------------------------------------------------

    @contextmanager
    def writable(
        self,
        layers: Sequence[str],
        upper: str,
        *,
        skeleton: str = "",
        becomes: str = "",
        check: Callable[[], None] = unchecked,
    ) -> Iterator[str]:
        """The layers below `upper` as one directory; what is written to it is in `upper` when the block ends in order.

        `skeleton` is a directory that shows where nothing else is, and leaves nothing behind. `becomes` is the path of the
        layer `upper` will be: the tree is kept for whoever goes on from there.
        """
        directory, merged = self._taken(layers, check)
        root, noted = merged.root, merged.noted
        try:
            with faults_of_the_host(f"cannot copy the layers to {directory}"):
                if os.listdir(upper):
                    _put_back(upper, root, noted)
                stubs = _add_stubs(merged, skeleton) if skeleton else []
            wait_for_tick(merged.newest)
            with written_below(root, noted) as written:
                yield root
            with faults_of_the_host(f"cannot take the changes out of {root}"):
                draw_out(root, noted, upper, written)
                _remove_stubs(merged, stubs)
            changed = bool(os.listdir(upper))
        except BaseException:
            remove_tree(directory)
            raise
        self._keep(becomes if changed else next(iter(layers), ""), _Kept(directory, noted, not changed))

    def _taken(self, layers: Sequence[str], check: Callable[[], None]) -> tuple[str, Merged]:
        """A tree of the layers: the nearest one that is kept with what is missing, else a new one."""
        kept: _Kept | None = None
        missing = list(layers)
        with self._trees_lock:
            for number, layer in enumerate(layers):
                if (kept := self._trees.pop(layer, None)) is not None:
                    missing = list(layers[: number + (0 if kept.whole else 1)])
                    break
        with self._owned_directory(kept) as directory:
            merged = Merged(os.path.join(directory, _TREE), kept.noted if kept else None, check=check)
            if kept is None:
                os.mkdir(merged.root, 0o755)
            _add_all(merged, missing)
        return directory, merged

    def _keep(self, layer: str, tree: _Kept) -> None:
        doomed: list[_Kept] = [tree]
        if layer:
            with self._trees_lock:
                before = self._trees.pop(layer, None)
                self._trees[layer] = tree
                doomed = [] if before is None else [before]
                doomed += [self._trees.pop(each) for each in list(self._trees)[:-_KEPT]]
        for each in doomed:
            remove_tree(each.directory)

    def close(self) -> None:
        """Remove all that is kept; nobody uses any of it."""
        doomed = [tree.directory for tree in self._trees.values()]
        doomed += [view.directory for view in self._views.values()]
        self._trees.clear()
        self._views.clear()
        for each in doomed:
            remove_tree(each)


def _add_all(merged: Merged, layers: Sequence[str]) -> None:
    for layer in reversed(layers):
        merged.add(layer)


def _put_back(upper: str, root: str, noted: Noted) -> None:
    """What the layer already has goes into the tree, and not into its notes: so it is found as a change again."""
    Merged(root, marshal.loads(marshal.dumps(noted))).add(upper)
    for name in os.listdir(upper):
        remove_tree(os.path.join(upper, name))


# --- mount points ---------------------------------------------------------------------------------------------------


def _add_stubs(merged: Merged, skeleton: str) -> list[bytes]:
    """Have what the skeleton has and the tree has not, as a lowest layer would; the paths, a directory before its content."""
    made: list[bytes] = []
    top = os.fsencode(skeleton)
    for directory, directories, files in os.walk(top):
        inside = directory[len(top) + 1 :]
        if inside not in merged.noted:
            continue  # hidden by something else of that name
        for name in (*directories, *files):
            if name not in merged.noted[inside][ENTRIES]:
                made.append(merged.stub(os.path.join(directory, name), inside, name))
    return made


def _remove_stubs(merged: Merged, stubs: Sequence[bytes]) -> None:
    for path in reversed(stubs):
        with suppress(OSError):  # it was changed, so it is gone, or something is in it
            merged.unstub(path)


# --- trees that stay ------------------------------------------------------------------------------------------------


def make_tree(directory: str, layers: Sequence[str], upper: str) -> str:
    """A tree of the layers at `directory`, with its notes for later, made whole or not at all; the path of its root.

    What is in `upper`, from a time when overlay served, counts as changed. What a maker who was killed left beside it goes.
    """
    root = os.path.join(directory, _TREE)
    if os.path.isdir(root):
        return root
    parent, name = os.path.split(directory)
    with faults_of_the_host(f"cannot copy the layers to {directory}"), _locked(parent):
        if os.path.isdir(root):
            return root  # another was quicker
        for each in os.listdir(parent):
            if each.startswith(name + "."):
                remove_tree(os.path.join(parent, each))
        new = f"{directory}.{os.urandom(4).hex()}"
        os.mkdir(new, 0o711)
        try:
            merged = Merged(os.path.join(new, _TREE))
            os.mkdir(merged.root, 0o755)
            _add_all(merged, layers)
            with open(os.path.join(new, _NOTED), "wb") as file:
                marshal.dump(merged.noted, file)
            Merged(merged.root, merged.noted).add(upper)
            os.rename(new, directory)
        except BaseException:
            remove_tree(new)
            raise
    wait_for_tick(merged.newest)
    return root


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One maker at a time; the lock goes with its holder."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def notes_of(directory: str) -> tuple[str, Noted]:
    """The root of the tree at `directory` and what was noted of it when it was made."""
    with open(os.path.join(directory, _NOTED), "rb") as file:
        return os.path.join(directory, _TREE), marshal.load(file)
