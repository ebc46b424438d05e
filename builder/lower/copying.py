"""COPY and ADD to graph operations (FEATURES A-65 … A-78, A-83)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from builder.dockerfile.ast import Add, Copy
from builder.dockerfile.nodes import Heredoc, Node
from builder.graph import Copy as CopyOperation
from builder.graph import CopySource, GitSource, HttpSource, InlineSource, Vertex
from builder.lower.history import copy_text
from builder.lower.remotes import remote_source, without_credentials
from builder.lower.state import StageState, clean_path
from registry_client.oci.digest import parse_digest
from registry_client.values import frozen, replace

if TYPE_CHECKING:
    from builder.policy import SourcePolicy

# ug+rwxXst, +x, u=rwX,go=rX: chmod(1)'s symbolic form
_SYMBOLIC = (
    r"[ugoa]*[-+=](?:[rwxXst]*|[ugo])(?:[-+=](?:[rwxXst]*|[ugo]))*(?:,[ugoa]*[-+=](?:[rwxXst]*|[ugo]))*"
)


@frozen
class Words:
    """An ADD or COPY with its words expanded."""

    sources: tuple[str, ...]
    files: tuple[tuple[Heredoc, str], ...]
    dest: str
    owner: str
    mode: str
    checksum: str = ""


def lower_copy(
    command: Add | Copy,
    words: Words,
    state: StageState,
    source: Vertex,
    make: Callable[..., Vertex],
    policy: SourcePolicy | None = None,
) -> None:
    """Append the vertex of a COPY or ADD to `state`; `source` is where its paths lie."""
    node = command.node
    dest = destination(state.directory, words.dest)
    _check(node, words)
    sources = _Sources(state.root)
    for path in words.sources:
        remote = _remote(command, path, words.checksum)
        if remote is not None and policy:
            from builder.lower.permitted import permitted_remote

            remote = permitted_remote(policy, remote, node.span)
        if remote is None:
            sources.add(source, _clean_source(path, command.parents), _unpacks(command))
        elif isinstance(remote, HttpSource):
            vertex = Vertex(operation=remote, label=f"fetch {without_credentials(path)}", span=node.span)
            sources.add(vertex, remote.filename, isinstance(command, Add) and command.unpack is True)
        else:
            sources.add(
                Vertex(operation=remote, label=f"fetch {without_credentials(path)}", span=node.span),
                ".",
                False,
            )
    if words.files:
        names = [_file_name(node, file.name) for file, _text in words.files]
        inline = InlineSource(
            files=tuple(zip(names, (_bytes(text) for _file, text in words.files), strict=True))
        )
        vertex = Vertex(operation=inline, label="preparing inline document", span=node.span)
        for name in names:
            sources.add(vertex, name, False)
    operation = CopyOperation(
        sources=tuple(sources.sources),
        dest=dest,
        owner=words.owner,
        mode=words.mode,
        # as in BuildKit, --chmod makes --link an ordinary copy
        link=command.link and not words.mode,
        parents=command.parents,
        exclude=command.exclude,
    )
    text = copy_text(
        node.name,
        parents=command.parents,
        owner=words.owner,
        mode=words.mode,
        sources=(*words.sources, *(f"<<{file.name}" for file, _text in words.files)),
        dest=words.dest,
    )
    state.grow(make(operation, tuple(sources.inputs)), text)


class _Sources:
    """Sources in the order written; neighbours from the same place share one entry."""

    def __init__(self, root: Vertex) -> None:
        self.inputs: list[Vertex] = [root]
        self.sources: list[CopySource] = []

    def add(self, vertex: Vertex, path: str, unpack: bool) -> None:
        number = next((n for n, known in enumerate(self.inputs) if n and known == vertex), len(self.inputs))
        if number == len(self.inputs):
            self.inputs.append(vertex)
        last = self.sources[-1] if self.sources else None
        if last and (last.input, last.unpack) == (number, unpack):
            self.sources[-1] = replace(last, paths=(*last.paths, path))
        else:
            self.sources.append(CopySource(input=number, paths=(path,), unpack=unpack))


def destination(directory: str, dest: str) -> str:
    """Absolute; a trailing slash, which says "a directory", stays."""
    if dest in ("", "."):
        dest = "./"
    path = clean_path(directory, dest)
    return path + "/" if dest.endswith(("/", "/.")) and path != "/" else path


def _file_name(node: Node, delimiter: str) -> str:
    """The file a heredoc is: its delimiter, of which only one part may be left (`<<../x` is x)."""
    name = _clean_source(delimiter, False)
    if name == "." or "/" in name:
        raise node.error(
            f"heredoc {delimiter!r} names no file", f"<<{delimiter}", hint="name it without a slash"
        )
    return name


def _clean_source(path: str, parents: bool) -> str:
    if parents and "/./" in path:
        before, _, after = path.partition("/./")
        return f"{_clean_source(before, False)}/./{_clean_source(after, False)}"
    return posixpath.normpath("/" + path).lstrip("/") or "."


def _unpacks(command: Add | Copy) -> bool:
    return isinstance(command, Add) and command.unpack is not False


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _remote(command: Add | Copy, path: str, checksum: str) -> GitSource | HttpSource | None:
    try:
        remote = remote_source(path)
    except ValueError as error:
        raise command.node.error(str(error), path) from error
    if remote is None:
        return None
    if isinstance(command, Copy):
        what = "a git ref" if isinstance(remote, GitSource) else "a URL"
        raise command.node.error(f"source can't be {what} for COPY", path, hint="ADD takes remote sources")
    if isinstance(remote, HttpSource):
        return replace(remote, checksum=checksum)
    if command.keep_git_dir is not None:
        remote = replace(remote, keep_git_dir=command.keep_git_dir)
    return replace(remote, checksum=checksum) if checksum else remote


def _check(node: Node, words: Words) -> None:
    if words.mode and not is_mode(words.mode):
        raise node.error(
            f"invalid chmod parameter: {words.mode!r}",
            "--chmod",
            hint="octal up to 07777, or like u=rwX,go=rX",
        )
    if words.owner.count(":") > 1:
        raise node.error(f"invalid owner {words.owner!r}", "--chown", hint="user[:group], by name or number")
    if words.checksum:
        _check_checksum(node, words)


def is_mode(text: str) -> bool:
    """Octal up to 07777, or chmod(1)'s symbolic form."""
    if re.fullmatch("[0-9]+", text):
        return bool(re.fullmatch("0*[0-7]{1,4}", text))
    return bool(re.fullmatch(_SYMBOLIC, text))


def _check_checksum(node: Node, words: Words) -> None:
    if len(words.sources) != 1:
        raise node.error("--checksum can't be specified for multiple sources", "--checksum")
    try:
        remote = remote_source(words.sources[0])
        if remote is None:
            raise ValueError("--checksum requires an HTTP(S) or git source")
        if isinstance(remote, HttpSource):
            parse_digest(words.checksum)
        elif not re.fullmatch("[0-9a-f]{7,64}", words.checksum):
            raise ValueError(f"invalid commit {words.checksum!r}")
    except ValueError as error:
        raise node.error(str(error), "--checksum") from error


def context_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Sources of an instruction that lie in the context, cleaned."""
    found = []
    for path in paths:
        try:
            remote = remote_source(path)
        except ValueError:
            continue
        if remote is None:
            found.append(_clean_source(path, False))
    return tuple(found)
