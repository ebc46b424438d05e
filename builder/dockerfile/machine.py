"""Run the parse tables that lark made from a grammar.

Lark is the compiler: `compile_grammars.py` turns `grammar/*.lark` into LALR tables (`tables.py`, checked in, checked by a
test to be current). Loading those costs a millisecond where importing lark costs forty, and half of a cached build's
80 ms would go there. The machine does what lark's own LALR parser with its contextual lexer does: in each state only
the terminals that state accepts are looked for, by priority. Unlike lark's it reduces first, where there is nothing
else to do, and looks for a terminal then: LALR states are shared between contexts, and only behind the reduction is it
clear whether `}` is text or an end. It calls an action per rule and builds no tree, so it has no recursion and nesting
cannot exhaust the stack. The rule to know: an action gets the values of its rule's parts, without the terminals whose
names begin with `_`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from registry_client.tuples import NamedTuple

Action = Callable[[list[Any]], Any]
Matcher = Callable[[str, int], "re.Match[str] | None"]


class Terminal(NamedTuple):
    name: str
    pattern: str  # a regular expression; of a keyword, the word in upper case
    flags: int
    keyword: bool = False


class Rule(NamedTuple):
    name: str
    parts: tuple[tuple[str, bool], ...]  # of each: its name, and whether the action gets it


class Tables(NamedTuple):
    """`actions[state][symbol]` is a state to go to (>= 0), or `-1 - rule` to reduce by; terminals come by priority."""

    terminals: tuple[Terminal, ...]
    rules: tuple[Rule, ...]
    actions: tuple[Mapping[str, int], ...]
    start: int
    end: int


class Unexpected(Exception):
    """The text does not go on as the grammar says: where, and the terminals that would have been possible."""

    def __init__(self, position: int, expected: frozenset[str]) -> None:
        super().__init__(position, expected)
        self.position = position
        self.expected = expected


class Inline(list[Any]):
    """The parts of a repetition, on their way into the rule that repeats them."""


END = "$END"


class Machine:
    """One grammar, with its terminals as `adapt` wants them (say, for another escape character)."""

    def __init__(self, tables: Tables, adapt: Callable[[Terminal], str | None] | None = None) -> None:
        self._rules = tables.rules
        self._actions = tables.actions
        self._start = tables.start
        self._end = tables.end
        self._keywords = {t.pattern: t.name for t in tables.terminals if t.keyword}
        patterns = [t for t in tables.terminals if not t.keyword]
        adapted = {t.name: (adapt(t) if adapt else t.pattern, t.flags) for t in patterns}
        self._patterns = {name: (p, flags) for name, (p, flags) in adapted.items() if p is not None}
        self._reductions = [_only_reduction(row) for row in tables.actions]
        self._matchers: dict[str, Matcher] = {}
        self._lexers: dict[int, list[tuple[str, Matcher]]] = {}

    def run(self, text: str, actions: Mapping[str, Action]) -> Any:
        """Parse `text`; the answer is what the start rule's action returned. Raises `Unexpected`."""
        states: list[int] = [self._start]
        values: list[Any] = []
        position = 0
        while True:
            state = states[-1]
            action = self._reductions[state]
            if action is None:
                symbol, value, after = self._next(state, text, position)
                action = self._actions[state].get(symbol)
                if action is None:
                    raise Unexpected(position, frozenset(filter(str.isupper, self._actions[state])))
                if action >= 0:
                    states.append(action)
                    values.append(value)
                    position = after
                    continue
            self._reduce(self._rules[-1 - action], states, values, actions)
            if states[-1] == self._end and position == len(text):
                return values[-1]

    def _reduce(
        self, rule: Rule, states: list[int], values: list[Any], actions: Mapping[str, Action]
    ) -> None:
        count = len(rule.parts)
        taken = values[len(values) - count :] if count else []
        del values[len(values) - count :], states[len(states) - count :]
        parts = _flatten([keep for _name, keep in rule.parts], taken)
        values.append(parts if rule.name.startswith("_") else actions[rule.name](parts))
        states.append(self._actions[states[-1]][rule.name])

    def _next(self, state: int, text: str, position: int) -> tuple[str, str, int]:
        if position == len(text):
            return END, "", position
        lexer = self._lexers.get(state)
        if lexer is None:
            lexer = self._lexers[state] = self._lexer(state)
        for name, matcher in lexer:
            match = matcher(text, position)
            if match is not None and match.end() > position:
                found = match.group()
                if self._keywords and (keyword := self._keywords.get(found.upper())) in self._actions[state]:
                    name = keyword or name
                return name, found, match.end()
        return "", "", position

    def _lexer(self, state: int) -> list[tuple[str, Matcher]]:
        """The terminals a state accepts, by priority. Each is compiled once, and only when it is needed: compiling is
        most of the time the first parse takes, so there is no expression for each set of them."""
        wanted = self._actions[state]
        return [(name, self._matcher(name)) for name in self._patterns if name in wanted]

    def _matcher(self, name: str) -> Matcher:
        matcher = self._matchers.get(name)
        if matcher is None:
            pattern, flags = self._patterns[name]
            matcher = self._matchers[name] = re.compile(pattern, flags).match
        return matcher


def _only_reduction(row: Mapping[str, int]) -> int | None:
    """The reduction that is all a state can do, whatever comes."""
    found = set(row.values())
    return found.pop() if len(found) == 1 and min(found) < 0 else None


def _flatten(wanted: Sequence[bool], taken: list[Any]) -> Inline:
    """The parts an action sees. A repetition is built from the left, so its list is taken over, not copied."""
    parts: Inline | None = None
    for keep, value in zip(wanted, taken):
        if not keep:
            continue
        if isinstance(value, Inline):
            if parts is None:
                parts = value
            else:
                parts.extend(value)
        elif parts is None:
            parts = Inline([value])
        else:
            parts.append(value)
    return Inline() if parts is None else parts
