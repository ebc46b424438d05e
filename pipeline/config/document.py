"""YAML text to a tree in which every node knows where it was written.

The tree is composed here from libyaml's events, with an explicit stack: a hostile text can neither recurse us out of
stack nor expand without bound, a duplicate key is an error, and a scalar keeps the letters the user wrote (`3.10`
is not 3.1). What a scalar means is decided by the key it stands under (`shapes`), never by YAML 1.1's `on` and `no`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry_client.values import frozen
from runtime.errors import InvalidInput
from runtime.spans import Source, Span

SIZE_LIMIT = 1 << 20
NODE_LIMIT = 50_000  # aliases counted as often as they are used
DEPTH_LIMIT = 64
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)


@frozen
class Scalar:
    """`plain` scalars were not quoted: only they can be null, a number or a flag. `style` is `|` or `>` for blocks."""

    text: str
    span: Span
    plain: bool = True
    style: str = ""
    weight: int = 1

    @property
    def null(self) -> bool:
        return self.plain and self.text in _NULL


@frozen
class Sequence:
    items: tuple[Node, ...]
    span: Span
    weight: int = 1


@frozen
class Entry:
    key: str
    key_span: Span
    value: Node


@frozen
class Mapping:
    entries: tuple[Entry, ...]
    span: Span
    weight: int = 1

    def get(self, key: str) -> Node | None:
        return next((entry.value for entry in self.entries if entry.key == key), None)

    def entry(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


Node = Scalar | Sequence | Mapping


def kind_of(node: Node) -> str:
    """What a person calls it."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar():
            return "nothing" if node.null else "a text"


class _Open:
    """A collection whose end has not come yet."""

    def __init__(self, is_map: bool, span: Span, anchor: str | None) -> None:
        self.is_map, self.span, self.anchor = is_map, span, anchor
        self.nodes: list[Node] = []
        self.weight = 1


def parse_document(text: str, name: str) -> Node:
    """The one YAML document in `text`; InvalidInput points at what is wrong. An empty text is a null scalar."""
    import yaml

    source = Source(name, text)
    if len(text) > SIZE_LIMIT:
        raise InvalidInput(f"{name} is larger than {SIZE_LIMIT >> 10} KiB", Span(source, 1))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Composer(source).compose(yaml.parse(text, Loader=loader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidInput(
            f"character {error.character!r} is not allowed in YAML", Span(source, line)
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        span = Span(source, mark.line + 1, mark.column + 1) if mark else Span(source, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise InvalidInput(f"not YAML: {problem}", span, hint=_syntax_hint(span)) from error


def _syntax_hint(span: Span) -> str:
    line = span.source.line(span.line)
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces: YAML does not allow tabs there"
    return "quote a text that contains `: ` or starts with one of `{ [ & * ! | > % @`"


class _Composer:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.anchors: dict[str, Node] = {}
        self.stack: list[_Open] = []
        self.documents: list[Node] = []

    def compose(self, events: Iterator[Any]) -> Node:
        for event in events:
            self._step(type(event).__name__, event)
        return self.documents[0] if self.documents else Scalar("", Span(self.source, 1))

    def _step(self, kind: str, event: Any) -> None:
        match kind:
            case "DocumentStartEvent" if self.documents:
                raise InvalidInput(
                    "a second YAML document", self._span(event), hint="one file holds one document"
                )
            case "AliasEvent":
                self._alias(event)
            case "ScalarEvent":
                plain = event.style is None or event.style == ""
                style = event.style if event.style in ("|", ">") else ""
                self._check_tag(event)
                self._add(Scalar(event.value, self._span(event), plain, style), event.anchor)
            case "SequenceStartEvent" | "MappingStartEvent":
                self._check_tag(event)
                if len(self.stack) >= DEPTH_LIMIT:
                    raise InvalidInput(f"nested deeper than {DEPTH_LIMIT} levels", self._span(event))
                self.stack.append(_Open(kind[0] == "M", self._span(event), event.anchor))
            case "SequenceEndEvent" | "MappingEndEvent":
                closed = self.stack.pop()
                node = (
                    _mapping(closed)
                    if closed.is_map
                    else Sequence(tuple(closed.nodes), closed.span, closed.weight)
                )
                self._add(node, closed.anchor)
            case _:
                pass

    def _span(self, event: Any) -> Span:
        return Span(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _check_tag(self, event: Any) -> None:
        tag = event.tag
        if tag and tag != "!" and tag not in _PLAIN_TAGS:
            raise InvalidInput(f"unknown YAML tag {tag!r}", self._span(event), hint="leave the tag out")

    def _alias(self, event: Any) -> None:
        node = self.anchors.get(event.anchor)
        if node is None:
            inside = any(open_.anchor == event.anchor for open_ in self.stack)
            reason = "is used inside itself" if inside else "is not defined"
            raise InvalidInput(f"anchor {event.anchor!r} {reason}", self._span(event))
        self._add(node, None)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.documents.append(node)
            return
        parent = self.stack[-1]
        parent.nodes.append(node)
        parent.weight += node.weight
        if parent.weight > NODE_LIMIT:
            raise InvalidInput(
                f"expands to more than {NODE_LIMIT} values", node.span, hint="use fewer aliases"
            )


def _mapping(closed: _Open) -> Mapping:
    entries: dict[str, Entry] = {}
    merged: list[Entry] = []
    for key, value in zip(closed.nodes[::2], closed.nodes[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise InvalidInput(f"a key must be a text, not {kind_of(key)}", key.span)
        if key.text == "<<" and key.plain:
            merged.extend(_merged_entries(value))
            continue
        if (first := entries.get(key.text)) is not None:
            raise InvalidInput(
                f"duplicate key `{key.text}`",
                key.span,
                hint=f"it was first given in line {first.key_span.line}",
            )
        entries[key.text] = Entry(key.text, key.span, value)
    for entry in merged:
        entries.setdefault(entry.key, entry)
    return Mapping(tuple(entries.values()), closed.span, closed.weight)


def _merged_entries(value: Node) -> list[Entry]:
    """What `<<` brings in: of several mappings the first that has a key wins (YAML merge key draft)."""
    maps = value.items if isinstance(value, Sequence) else (value,)
    found: list[Entry] = []
    for node in maps:
        if not isinstance(node, Mapping):
            raise InvalidInput(f"`<<` takes a mapping or a list of mappings, not {kind_of(node)}", node.span)
        found.extend(node.entries)
    return found


def deep_merge(base: Mapping, over: Mapping, *, drop: frozenset[str] = frozenset()) -> Mapping:
    """`over` on top of `base`: mappings are merged key by key, everything else is replaced. `drop`: keys not inherited."""
    entries = {entry.key: entry for entry in base if entry.key not in drop}
    for entry in over:
        below = entries.get(entry.key)
        value = entry.value
        if below is not None and isinstance(below.value, Mapping) and isinstance(value, Mapping):
            value = deep_merge(below.value, value)
        entries[entry.key] = Entry(entry.key, entry.key_span, value)
    return Mapping(tuple(entries.values()), over.span, base.weight + over.weight)
