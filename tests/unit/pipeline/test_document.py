"""YAML with spans: what stands where, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.config.document import Mapping, Scalar, Sequence, deep_merge, parse_document
from runtime.errors import InvalidInput


def get(text: str, *path: str | int) -> object:
    node = parse_document(text, "pipe.yaml")
    for key in path:
        if isinstance(key, int):
            assert isinstance(node, Sequence)
            node = node.items[key]
        else:
            assert isinstance(node, Mapping)
            found = node.get(key)
            assert found is not None
            node = found
    return node


def test_a_number_keeps_the_letters_it_was_written_with() -> None:
    node = get("python: [3.10, 0x1F, 1_000]", "python")
    assert isinstance(node, Sequence)
    assert [item.text for item in node.items if isinstance(item, Scalar)] == ["3.10", "0x1F", "1_000"]


def test_every_node_knows_its_line_and_column() -> None:
    node = get("a:\n  b:\n    - x\n    - {c: y}\n", "a", "b", 1, "c")
    assert isinstance(node, Scalar)
    assert (node.span.line, node.span.column) == (4, 11)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key `a`"),
        ("a:\n\t- b\n", 2, "not YAML"),
        ("a: [1, 2\n", 2, "not YAML"),
        ("a: *nowhere\n", 1, "anchor 'nowhere' is not defined"),
        ("a: &x [*x]\n", 1, "anchor 'x' is used inside itself"),
        ("a: 1\n---\nb: 2\n", 2, "a second YAML document"),
        ("a: !python/object:os.system x\n", 1, "unknown YAML tag"),
        ("? [a]\n: b\n", 1, "a key must be a text"),
        ("a: \x01\n", 1, "is not allowed"),
    ],
)
def test_a_broken_text_is_refused_with_its_place(text: str, line: int, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_document(text, "pipe.yaml")
    assert message in caught.value.message
    assert caught.value.span is not None
    assert caught.value.span.line == line


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidInput, match="expands to more than"):
        parse_document("\n".join(lines), "pipe.yaml")


def test_deep_nesting_is_refused_and_does_not_end_the_process() -> None:
    with pytest.raises(InvalidInput, match=r"nested deeper|not YAML"):
        parse_document("[" * 100_000, "pipe.yaml")


def test_merge_keys_bring_in_what_is_not_there() -> None:
    text = "x-base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n"
    node = get(text, "use")
    assert isinstance(node, Mapping)
    assert {entry.key: getattr(entry.value, "text", "") for entry in node} == {"a": "1", "b": "3"}


def test_deep_merge_goes_into_mappings_and_replaces_the_rest() -> None:
    base, over = (
        parse_document("{a: {x: 1, y: 2}, l: [1], t: [z]}", "b"),
        parse_document("{a: {y: 3}, l: [2]}", "o"),
    )
    assert isinstance(base, Mapping) and isinstance(over, Mapping)
    merged = deep_merge(base, over, drop=frozenset(("t",)))
    assert [entry.key for entry in merged] == ["a", "l"]
    inner = merged.get("a")
    assert isinstance(inner, Mapping)
    assert [getattr(entry.value, "text", "") for entry in inner] == ["1", "3"]
