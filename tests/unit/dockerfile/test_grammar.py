"""The checked-in tables are lark's, and the machine that runs them answers what lark's own parser answers."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from builder.dockerfile import compile_grammars, tables
from builder.dockerfile.machine import END, Action, Machine, Tables, Unexpected
from tests.support import REPOSITORY

LINES = (
    "FROM --platform=linux/amd64 busybox AS base",
    "RUN --mount=type=cache,target=/c --network=none -- --not-a-flag  x # y",
    'CMD ["a", "b"]',
    "CMD [ -e /x ]",
    'ENV a=1 b=\'two words\' c="x\\"y"',
    "ENV key the rest  of it",
    "ARG a b=1",
    'HEALTHCHECK --interval=3s CMD ["x"]',
    "ONBUILD COPY . .",
    "nonsense --x y",
    "add a b",
    "RUN",
)
WORDS = (
    "plain",
    "a$b${c}d",
    "${a:-${b:+x}}",
    '\'single\'"double $x \\""\\$',
    "${a//x*/y}z",
    "${a##*/}${a%?}",
    "$ $1 $@ ${@}",
    "안녕${PWD}",
)


class Trees(dict[str, Action]):
    """Actions that build the tree of everything."""

    def __missing__(self, rule: str) -> Action:
        return lambda parts: (rule, list(parts))


class Recording(Machine):
    """Remembers the terminals it found; where it looked twice, the later one was taken."""

    def __init__(self, grammar: Tables) -> None:
        super().__init__(grammar)
        self.found: dict[int, tuple[str, str]] = {}

    def _next(self, state: int, text: str, position: int) -> tuple[str, str, int]:
        name, value, after = super()._next(state, text, position)
        self.found[position] = (name, value)
        return name, value, after


def larks_tree(grammar: str, found: dict[int, tuple[str, str]]) -> Any:
    """What lark's parser makes of the terminals. (Its lexer looks before it reduces: see `machine.py`.)"""
    from lark import Lark, Token, Tree

    source = (REPOSITORY / "builder" / "dockerfile" / "grammar" / f"{grammar}.lark").read_text()
    parser = Lark(source, parser="lalr", maybe_placeholders=False, keep_all_tokens=False).parse_interactive(
        ""
    )
    for _position, (name, value) in sorted(found.items()):
        if name != END:
            parser.feed_token(Token(name, value))

    def plain(node: Any) -> Any:
        return (
            (str(node.data), [plain(child) for child in node.children])
            if isinstance(node, Tree)
            else str(node)
        )

    return plain(parser.feed_eof())


@pytest.mark.parametrize("name", compile_grammars.GRAMMARS)
def test_the_tables_in_the_repository_are_those_of_the_grammars(name: str) -> None:
    made, kept = compile_grammars.compile_grammar(name), getattr(tables, name.upper())
    assert sorted(made.terminals) == sorted(kept.terminals)
    assert masked(made) == masked(kept)
    assert len(made.actions) == len(kept.actions)
    for text in LINES if name == "instruction" else WORDS:
        assert Machine(made).run(text, Trees()) == Machine(kept).run(text, Trees())


def masked(grammar: Tables) -> list[Any]:
    """The rules, without the names lark makes up for repetitions: another version may choose others."""

    def mask(symbol: str) -> str:
        return "__" if symbol.startswith("__") else symbol

    return sorted(
        (mask(rule.name), [(mask(part), keep) for part, keep in rule.parts]) for rule in grammar.rules
    )


@pytest.mark.parametrize("line", LINES)
def test_an_instruction_parses_as_in_lark(line: str) -> None:
    machine = Recording(tables.INSTRUCTION)
    # lark drops the words of keywords from the tree; the machine hands them on
    found = without_keywords(machine.run(line, Trees()))
    assert found == larks_tree("instruction", machine.found)


def without_keywords(tree: Any) -> Any:
    name, children = tree
    known = {terminal.pattern for terminal in tables.INSTRUCTION.terminals if terminal.keyword}
    return name, [
        child if isinstance(child, str) else without_keywords(child)
        for child in children
        if not (isinstance(child, str) and child.upper() in known)
    ]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_parses_as_in_lark(word: str) -> None:
    machine = Recording(tables.SHELL)
    found = machine.run(word, Trees())
    assert found == larks_tree("shell", machine.found)


def test_text_that_does_not_fit_is_refused_with_its_place() -> None:
    with pytest.raises(Unexpected) as caught:
        Machine(tables.SHELL).run("ab${c:=d}", Trees())
    assert caught.value.position == 5
    assert "DEFAULT" in caught.value.expected


def test_deep_nesting_needs_no_stack() -> None:
    depth = 20 * sys.getrecursionlimit()
    assert (
        Machine(tables.SHELL).run("${a:-" * depth + "}" * depth, dict.fromkeys(RULES, lambda parts: "")) == ""
    )


RULES = {rule.name for rule in tables.SHELL.rules}


def test_parsing_a_dockerfile_does_not_import_lark() -> None:
    import subprocess

    program = "import sys, builder.lower; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
