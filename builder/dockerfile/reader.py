"""From text to nodes: join physical lines, drop comments, cut off heredoc bodies (FEATURES A-1 … A-5, A-79).

What a single instruction means is not known here, except whether it can have heredocs. Lines are counted from 1.
"""

from __future__ import annotations

from builder.dockerfile.directives import Directives, parse_directives
from builder.dockerfile.errors import DockerfileError, showable
from builder.dockerfile.heredocs import heredocs_of_line
from builder.dockerfile.nodes import WHITE, Comment, Heredoc, Node, parse_line
from registry_client.tuples import NamedTuple
from runtime.spans import Source, Span

LINE_LIMIT = 65_535  # bytes, as BuildKit
_BLANKS = " \t"


class Reading(NamedTuple):
    """A whole file. `empty_continuations` are instructions with a blank line inside, which is legal and asks for trouble."""

    source: Source
    directives: Directives
    nodes: tuple[Node, ...]
    empty_continuations: tuple[Span, ...]


def decode(text: str | bytes) -> str:
    """The text of a file; bytes that are no UTF-8 survive in heredoc bodies."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff")


def read_nodes(text: str | bytes, name: str = "Dockerfile") -> Reading:
    """The nodes of a file; DockerfileError where BuildKit's parser fails."""
    text = decode(text)
    source = Source(name, showable(text))
    reader = _Reader(source, text)
    nodes = tuple(reader.instructions())
    if not nodes:
        raise DockerfileError(
            "file with no instructions", Span(source, 1), hint="the first instruction is FROM"
        )
    return Reading(source, reader.directives, nodes, tuple(reader.empty_continuations))


class _Reader:
    def __init__(self, source: Source, text: str) -> None:
        self._source = source
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self._at = 0  # lines taken so far
        self.directives = parse_directives([line.rstrip("\r") for line in self._lines[:8]], source)
        self.empty_continuations: list[Span] = []

    def instructions(self) -> list[Node]:
        nodes: list[Node] = []
        comments: list[Comment] = []
        while self._at < len(self._lines):
            line = self._take().lstrip(WHITE)
            if line.startswith("#"):
                if self._at <= len(self.directives.found):
                    continue  # a directive is for the whole file, not for what stands below it
                _note(comments, line, self._at)
            else:
                if line:
                    nodes.append(self._instruction(line, tuple(comments)))
                comments = []
        return nodes

    def _instruction(self, first: str, comments: tuple[Comment, ...]) -> Node:
        start = self._at
        column = len(self._lines[start - 1].rstrip("\r")) - len(first) + 1
        text, blank_inside = self._joined(first)
        span = Span(self._source, start, column, self._at)
        if blank_inside:
            self.empty_continuations.append(span)
        node = parse_line(_valid(text), span, comments, self.directives.escape)
        if not node.has_heredocs or "<<" not in text:
            return node
        bodies = tuple(self._body(heredoc, span) for heredoc in heredocs_of_line(text))
        return node._replace(heredocs=bodies, span=Span(self._source, start, column, self._at))

    def _joined(self, line: str) -> tuple[str, bool]:
        """The logical line that begins with `line`, and whether blank lines were left out of it."""
        parts, blank_inside = [], False
        text, goes_on = self._continued(line)
        parts.append(text)
        while goes_on and self._at < len(self._lines):
            line = self._take()
            bare = line.lstrip(WHITE)
            if bare.startswith("#"):
                continue
            if not bare:
                blank_inside = True
                continue
            text, goes_on = self._continued(line)
            parts.append(text)
        return "".join(parts), blank_inside

    def _continued(self, line: str) -> tuple[str, bool]:
        """Without the escape character at its end, if it has a single one; blanks may follow it."""
        escape = self.directives.escape
        text = line.rstrip(_BLANKS)
        if text.endswith(escape) and not text.endswith(escape * 2):
            return text[:-1], True
        return line, False

    def _body(self, heredoc: Heredoc, span: Span) -> Heredoc:
        """Lines up to the one that is the delimiter and nothing else."""
        content: list[str] = []
        while self._at < len(self._lines):
            raw = self._take_raw()
            line = raw.rstrip("\r")
            if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
                return heredoc._replace(content="".join(content))
            content.append(raw + "\n")
        raise DockerfileError(
            f"unterminated heredoc {heredoc.name!r}",
            span,
            hint=f"a line with nothing but `{heredoc.name}` must follow",
        )

    def _take(self) -> str:
        return self._take_raw().rstrip("\r")

    def _take_raw(self) -> str:
        line = self._lines[self._at]
        self._at += 1
        if len(line) > LINE_LIMIT // 4 and len(line.encode("utf-8", "surrogateescape")) > LINE_LIMIT:
            raise DockerfileError(
                f"line longer than {LINE_LIMIT} bytes",
                Span(self._source, self._at),
                hint="break it with a continuation",
            )
        return line


def _note(comments: list[Comment], line: str, number: int) -> None:
    """Gather the comments right above an instruction; an empty one, like a blank line, starts afresh (FEATURES A-13)."""
    if text := line[1:].strip(WHITE):
        comments.append(Comment(text, number))
    else:
        comments.clear()


def _valid(text: str) -> str:
    """Outside of heredocs, bytes that are no UTF-8 become U+FFFD: they end up in JSON."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
