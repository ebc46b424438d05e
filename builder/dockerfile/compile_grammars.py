"""Make `tables.py` from `grammar/*.lark`: `python -m builder.dockerfile.compile_grammars` after changing a grammar.

This is the only module that imports lark. `render()` gives the text of `tables.py`; a test compares it with the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from builder.dockerfile.machine import Rule, Tables, Terminal

GRAMMARS = ("instruction", "shell")
FOLDER = Path(__file__).parent

HEADER = '''"""LALR tables of grammar/*.lark. Made by compile_grammars.py; do not edit."""

from builder.dockerfile.machine import Rule as R
from builder.dockerfile.machine import Tables
from builder.dockerfile.machine import Terminal as T

# fmt: off
'''


def compile_grammar(name: str) -> Tables:
    """Let lark check the grammar and build its tables, and take over what the machine needs of them."""
    from lark import Lark
    from lark.parsers.lalr_analysis import Shift

    text = (FOLDER / "grammar" / f"{name}.lark").read_text()
    parser = Lark(text, parser="lalr", start="start", maybe_placeholders=False)
    table: Any = parser.parser.parser._parse_table
    rules = sorted(parser.rules, key=_rule)
    numbers = {rule: number for number, rule in enumerate(rules)}
    rows: dict[Any, dict[str, tuple[bool, Any]]] = {
        state: {symbol: (kind is Shift, target) for symbol, (kind, target) in row.items()}
        for state, row in table.states.items()
    }
    order = _states_in_order(rows, table.start_states["start"])
    actions = tuple(
        {
            symbol: order[target] if shift else -1 - numbers[target]
            for symbol, (shift, target) in sorted(rows[state].items(), key=lambda item: item[0])
        }
        for state in order
    )
    return Tables(
        terminals=tuple(map(_terminal, sorted(parser.terminals, key=_precedence))),
        rules=tuple(map(_rule, rules)),
        actions=actions,
        start=order[table.start_states["start"]],
        end=order[table.end_states["start"]],
    )


def _states_in_order(rows: dict[Any, dict[str, tuple[bool, Any]]], start: Any) -> dict[Any, int]:
    """Numbers for the states, the same in every run: lark's own depend on the order of sets."""
    order = {start: 0}
    queue = [start]
    for state in queue:
        for _symbol, (shift, target) in sorted(rows[state].items(), key=lambda item: item[0]):
            if shift and target not in order:
                order[target] = len(order)
                queue.append(target)
    return order


def _precedence(terminal: Any) -> tuple[int, int, str]:
    return (-terminal.priority, -len(terminal.pattern.value), terminal.name)


def _terminal(terminal: Any) -> Terminal:
    pattern = terminal.pattern
    flags = int(re.DOTALL) if "s" in pattern.flags else 0
    if pattern.type == "str" and "i" in pattern.flags:
        return Terminal(terminal.name, pattern.value.upper(), flags, keyword=True)
    return Terminal(
        terminal.name, re.escape(pattern.value) if pattern.type == "str" else pattern.value, flags
    )


def _rule(rule: Any) -> Rule:
    parts = tuple(
        (str(symbol.name), not symbol.is_term or not symbol.name.startswith("_")) for symbol in rule.expansion
    )
    return Rule(str(rule.origin.name), parts)


def render() -> str:
    """The text of `tables.py`."""
    lines = [HEADER]
    for name in GRAMMARS:
        tables = compile_grammar(name)
        lines.append(f"{name.upper()} = Tables(\n    (")
        lines.extend(f"        T{tuple(terminal)!r}," for terminal in tables.terminals)
        lines.append("    ),\n    (")
        lines.extend(f"        R{tuple(rule)!r}," for rule in tables.rules)
        lines.append("    ),\n    (")
        lines.extend(f"        {row!r}," for row in tables.actions)
        lines.append(f"    ),\n    {tables.start},\n    {tables.end},\n)\n")
    return "\n".join(lines)


if __name__ == "__main__":
    (FOLDER / "tables.py").write_text(render())
