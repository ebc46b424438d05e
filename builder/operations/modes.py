"""`--chmod` as written: octal, or the symbolic form of chmod(1) (A-70). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from runtime.errors import InvalidInput

ChangeMode = Callable[[int, bool], int]  # (old mode, is a directory) -> new mode

_CLAUSE = r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)"
_ACTION = r"([-+=])([ugo]|[rwxXst]*)"
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}


def parse_mode(text: str) -> ChangeMode:
    """What `--chmod=text` does to a mode; InvalidInput when it is neither octal nor symbolic."""
    if re.fullmatch("[0-7]{1,5}", text):
        fixed = int(text, 8)
        if fixed > 0o7777:
            raise InvalidInput(f"invalid --chmod {text!r}: at most 07777")
        return lambda mode, is_directory: fixed
    clauses = [_parse_clause(clause, text) for clause in text.split(",")]

    def change(mode: int, is_directory: bool) -> int:
        for who, actions in clauses:
            for operator, permissions in actions:
                mode = _apply(mode, is_directory, who, operator, permissions)
        return mode

    return change


def mode_of_made(text: str) -> int:
    """The mode of the directories that COPY makes on its way, with `--chmod=text` ("" without).

    BuildKit's: octal counts under a umask of 022 and without its highest digit, a symbolic one does not.
    """
    return int(text, 8) & 0o755 if re.fullmatch("[0-7]{1,5}", text) else 0o755


def _parse_clause(clause: str, text: str) -> tuple[int, list[tuple[str, str]]]:
    match = re.fullmatch(_CLAUSE, clause)
    if match is None:
        raise InvalidInput(
            f"invalid --chmod {text!r}",
            hint="write an octal mode such as 0755 or a symbolic one such as u=rwX,go=rX",
        )
    letters = match[1]
    who = 0o7777 if not letters or "a" in letters else 0
    for letter in letters:
        who |= _WHO.get(letter, 0)
    return who, [(action[1], action[2]) for action in re.finditer(_ACTION, match[2])]


def _apply(mode: int, is_directory: bool, who: int, operator: str, permissions: str) -> int:
    bits = _permission_bits(mode, is_directory, permissions) & who
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    keep = mode & 0o6000 if is_directory else 0  # chmod(1): `=` leaves a directory's set-id bits alone
    return (mode & ~who) | bits | (keep & who)


def _permission_bits(mode: int, is_directory: bool, permissions: str) -> int:
    if permissions in ("u", "g", "o"):
        three = mode >> {"u": 6, "g": 3, "o": 0}[permissions] & 7
        return three << 6 | three << 3 | three
    bits = 0
    for letter in permissions:
        if letter == "X":
            bits |= 0o111 if is_directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= _BITS[letter]
    return bits
