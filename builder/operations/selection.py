"""Which files a COPY, ADD or bind mount takes from a source tree, in which order and under which names (A-65…A-74).

Nothing is opened here but directories. A selection is made of groups, one for each thing a pattern named; what a group
holds comes parents first, every directory sorted by name bytes, which is the order of a layer. Links inside a tree are
kept as they are; only what a pattern names is followed, and never out of the tree.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from builder.operations.globs import compile_component, has_wildcard, unescape
from builder.operations.roots import Root, clean
from builder.operations.walking import Item, Stretch, stretches
from registry_client.values import frozen
from runtime.errors import NotFound


class Ignoring(Protocol):
    """What we need of `.dockerignore` patterns."""

    def excludes(self, path: str, is_dir: bool = ...) -> bool: ...

    def may_reinclude_below(self, directory: str) -> bool: ...


@frozen
class Tree:
    """A directory files are taken from. `keep_owner` is False for a client's context: its files come as 0:0 (B-4)."""

    path: str
    keep_owner: bool = False
    ignore: Ignoring | None = None
    name: str = "context"


class Group:
    """What one matched path gives: the contents of a directory (whose own status it is), or a single file.

    The contents are looked at while they are asked for, each time anew: there may be millions.
    """

    def __init__(
        self,
        source: str,
        is_directory: bool,
        items: tuple[Item, ...] = (),
        status: os.stat_result | None = None,
        below: Callable[[], Iterator[Stretch]] | None = None,
    ) -> None:
        self.source = source  # relative to the tree
        self.is_directory, self.status = is_directory, status
        self._items, self._below = items, below

    def stretches(self) -> Iterator[Stretch]:
        return map(Stretch.of_item, self._items) if self._below is None else self._below()

    @property
    def items(self) -> tuple[Item, ...]:
        """All at once; for a group that is known to be small."""
        if self._below is None:
            return self._items
        return tuple(item for stretch in self._below() for item in stretch.items())


def select(
    tree: Tree, patterns: Sequence[str], *, exclude: Ignoring | None = None, parents: bool = False
) -> tuple[Group, ...]:
    """The groups of `patterns`. A wildcard may match nothing; a plain path, and the plain part of a pattern, must exist."""
    if parents:
        return tuple(_select_with_parents(tree, pattern, exclude) for pattern in patterns)
    groups: list[Group] = []
    for pattern in patterns:
        groups.extend(_groups(tree, pattern, exclude))
    return tuple(groups)


def _groups(tree: Tree, pattern: str, exclude: Ignoring | None) -> Iterator[Group]:
    wanted = clean(pattern)
    if not has_wildcard(wanted):
        yield _group(tree, wanted, exclude)
        return
    matches = list(_expand(tree, wanted))
    if not matches:
        _check_where_it_begins(tree, wanted)
    # Escapes only (`[[]`, `\*`): a literal name after all, but no match is still no error, as in BuildKit.
    for path in matches:
        group = _group(tree, path, None if exclude is None else exclude)
        if exclude is None or not exclude.excludes(os.path.basename(path), group.is_directory):
            yield group


def _check_where_it_begins(tree: Tree, pattern: str) -> None:
    """A pattern may match nothing, but the directories it names plainly (`dist` of `dist/*.js`) must be there, as in BuildKit."""
    plain = list(itertools.takewhile(lambda part: not has_wildcard(part), pattern.split("/")))
    for depth in range(1, len(plain) + 1):
        path = "/".join(plain[:depth])
        if Root(tree.path).lstat(Root(tree.path).resolve(path)) is None:
            raise _missing(tree, path)
        if _hidden_path(tree, Root(tree.path), path):
            raise _missing(tree, path, ignored=True)


def _group(tree: Tree, path: str, exclude: Ignoring | None) -> Group:
    followed = Root(tree.path).resolve(path)
    place = f"{tree.path}/{followed}" if followed else tree.path
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(tree, path) from None
    if stat.S_ISDIR(status.st_mode):

        def below() -> Iterator[Stretch]:
            return walk(tree, followed, status, exclude=exclude)

        if _hidden(tree, followed, is_directory=True) and next(below(), None) is None:
            raise _missing(tree, path, ignored=True)
        return Group(path, True, status=status, below=below)
    if _hidden(tree, followed, is_directory=False) or _hidden(tree, path, is_directory=False):
        raise _missing(tree, path, ignored=True)
    name = os.path.basename(path)
    if exclude is not None and exclude.excludes(name, False):
        return Group(path, False, ())
    return Group(path, False, (Item(name, place, status),))


def _hidden(tree: Tree, path: str, *, is_directory: bool) -> bool:
    return bool(path) and tree.ignore is not None and tree.ignore.excludes(path, is_directory)


def _missing(tree: Tree, path: str, *, ignored: bool = False) -> NotFound:
    hint = f"it is excluded by the ignore file of the {tree.name}" if ignored else ""
    if not ignored and tree.name == "context":
        hint = "paths are relative to the root of the build context"
    return NotFound(f'"/{path}": not found in {tree.name}', hint=hint)


def walk(
    tree: Tree, start: str, status: os.stat_result, *, exclude: Ignoring | None = None
) -> Iterator[Stretch]:
    """Everything below the directory `start` (whose status is given), without itself; names are relative to it."""
    top = f"{tree.path}/{start}" if start else tree.path
    if tree.ignore is None and exclude is None:
        return stretches(top, status.st_ino, "")
    return stretches(top, status.st_ino, "", _Filter(tree.ignore, start, exclude))


class _Filter:
    """What `.dockerignore` and `--exclude` leave of a walk; both judge names of their own beginning."""

    def __init__(self, ignore: Ignoring | None, start: str, exclude: Ignoring | None) -> None:
        self._ignore, self._exclude = ignore, exclude
        self._start = f"{start}/" if start else ""

    def leaves_out(self, name: str, is_directory: bool) -> bool:
        if self._ignore is not None and self._ignore.excludes(self._start + name, is_directory):
            return True
        return self._exclude is not None and self._exclude.excludes(name, is_directory)

    def may_keep_below(self, name: str) -> bool:
        """Of a directory that is left out."""
        path = self._start + name
        for patterns, full in ((self._ignore, path), (self._exclude, name)):
            if (
                patterns is not None
                and patterns.excludes(full, True)
                and not patterns.may_reinclude_below(full)
            ):
                return False
        return True


def _expand(tree: Tree, pattern: str) -> Iterator[str]:
    """The paths of the tree that match, sorted; `**` crosses directories (only --parents and --exclude know it)."""
    root = Root(tree.path)

    def descend(directory: str, parts: Sequence[str]) -> Iterator[str]:
        if not parts:
            if not _hidden_path(tree, root, directory):
                yield directory
            return
        part, rest = parts[0], parts[1:]
        if not has_wildcard(part):
            path = f"{directory}/{part}" if directory else part
            if root.lstat(root.resolve(path)) is not None:
                yield from descend(path, rest)
            return
        expression = compile_component(part)
        for name in _names(tree, root, directory):
            if expression.fullmatch(name):
                yield from descend(f"{directory}/{name}" if directory else name, rest)

    yield from descend("", pattern.split("/"))


def _names(tree: Tree, root: Root, directory: str) -> list[str]:
    return _listed(f"{tree.path}/{root.resolve(directory)}")


def _hidden_path(tree: Tree, root: Root, path: str) -> bool:
    """Excluded, with nothing below that could come back."""
    if tree.ignore is None:
        return False
    status = root.lstat(root.resolve(path))
    is_directory = status is not None and stat.S_ISDIR(status.st_mode)
    if not tree.ignore.excludes(path, is_directory):
        return False
    return not (is_directory and tree.ignore.may_reinclude_below(path))


# --- COPY --parents -----------------------------------------------------------------------------------------------


def _select_with_parents(tree: Tree, pattern: str, exclude: Ignoring | None) -> Group:
    """One group holding the matches with their directories below the pivot `/./` (A-73).

    A link on the way to a match is followed inside the tree and becomes a directory, as `cp --parents` has it.
    """
    before, pivot, after = pattern.partition("/./")
    base = Root(tree.path).resolve(clean(before)) if pivot else ""
    wanted = clean(after if pivot else pattern)
    inside = Root(f"{tree.path}/{base}" if base else tree.path)
    found: dict[str, Item] = {}
    matches = list(_expand_deep(inside, "", wanted.split("/"))) if has_wildcard(wanted) else [wanted]
    for match in matches:
        _take_with_parents(tree, inside, base, match, exclude, found)
    if not has_wildcard(wanted) and not matches:
        raise _missing(tree, wanted)
    ordered = sorted(found.values(), key=lambda item: [os.fsencode(part) for part in item.name.split("/")])
    return Group(pattern, True, tuple(ordered))


def _take_with_parents(
    tree: Tree, inside: Root, base: str, match: str, exclude: Ignoring | None, found: dict[str, Item]
) -> None:
    parent, _, name = match.rpartition("/")
    real = "/".join(part for part in (base, inside.resolve(parent), name) if part)
    place = f"{tree.path}/{real}" if real else tree.path
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(tree, match) from None
    is_directory = stat.S_ISDIR(status.st_mode)
    taken: list[Item] = []
    if is_directory:
        before = f"{match}/" if match else ""
        for stretch in walk(tree, real, status):
            taken.extend(Item(before + item.name, item.path, item.status) for item in stretch.items())
    hidden = _hidden(tree, real, is_directory=is_directory)
    if match and not (hidden and not taken):
        taken.insert(0, Item(match, place, status))
    for item in taken:
        if exclude is not None and exclude.excludes(item.name, stat.S_ISDIR(item.status.st_mode)):
            continue
        for above in _parents_of(item.name):
            if above not in found:
                where = _place(inside, above)
                found[above] = Item(above, where, os.lstat(where))
        found[item.name] = item


def _parents_of(name: str) -> Iterator[str]:
    parts = name.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _place(root: Root, path: str) -> str:
    """Where `path` leads to, its links followed inside the root."""
    return f"{root.upper}/{root.resolve(path)}"


def _expand_deep(root: Root, prefix: str, parts: Sequence[str]) -> Iterator[str]:
    """Matches of a pattern with `**` below the directory `prefix` of a root; `**` goes through no link."""
    if not parts:
        yield prefix.rstrip("/")
        return
    part, rest = parts[0], parts[1:]
    top = _place(root, prefix)
    if part == "**":
        if rest:
            yield from _expand_deep(root, prefix, rest)
        else:
            yield from (prefix + name for name in _listed(top))
        for name in _directories(top):
            yield from _expand_deep(root, f"{prefix}{name}/", parts)
        return
    if not has_wildcard(part):
        name = unescape(part)
        if os.path.lexists(f"{top}/{name}"):
            yield from _expand_deep(root, f"{prefix}{name}/", rest)
        return
    expression = compile_component(part.replace("**", "*"))
    for name in _listed(top):
        if expression.fullmatch(name):
            yield from _expand_deep(root, f"{prefix}{name}/", rest)


def _listed(place: str) -> list[str]:
    try:
        return sorted(os.listdir(place), key=os.fsencode)
    except (NotADirectoryError, FileNotFoundError):
        return []


def _directories(top: str) -> list[str]:
    try:
        with os.scandir(top) as listing:
            return sorted(entry.name for entry in listing if entry.is_dir(follow_symlinks=False))
    except (NotADirectoryError, FileNotFoundError):
        return []
