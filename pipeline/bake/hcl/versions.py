"""`semvercmp`: whether a version fits a constraint such as `>= 1.2, < 2` or `~1.4 || ^3`."""

from __future__ import annotations

import re

from runtime.errors import InvalidInput

_VERSION = re.compile(r"v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:-([0-9A-Za-z.-]+))?(?:\+\S+)?")
_TERM = re.compile(r"\s*(=|!=|>=|=>|<=|=<|>|<|~>|~|\^|)\s*(\S+)")
Version = tuple[int, int, int, tuple[tuple[int, int, str], ...]]
_RELEASE = ((2, 0, ""),)  # sorts behind all that come before a release


def fits(version: str, constraint: str) -> bool:
    given, _ = _parsed(version)
    return any(_fits_all(given, each) for each in constraint.split("||"))


def _parsed(text: str) -> tuple[Version, int]:
    """The version, and how many of its numbers are given."""
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{text!r} is no version")
    numbers = [int(each) for each in found.groups()[:3] if each is not None and each.isdigit()]
    before: tuple[tuple[int, int, str], ...] = _RELEASE
    if found[4]:
        before = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in found[4].split("."))
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return (major, minor, patch, before), len(numbers)


def _fits_all(given: Version, constraint: str) -> bool:
    terms = re.sub(r"(=|!=|>=|=>|<=|=<|>|<|~>|~|\^)\s+", r"\1", constraint).replace(",", " ").split()
    return bool(terms) and all(_fits_one(given, term) for term in terms)


def _fits_one(given: Version, term: str) -> bool:
    found = _TERM.fullmatch(term)
    if found is None:
        raise InvalidInput(f"{term!r} is no constraint")
    wanted, count = _parsed(found[2])
    if given[3] != _RELEASE and wanted[3] == _RELEASE:
        return False  # what comes before a release has to be asked for
    end = _next(wanted, count)
    match found[1]:
        case "" | "=":
            return wanted <= given < end if count < 3 else given == wanted
        case "!=":
            return not wanted <= given < end if count < 3 else given != wanted
        case ">":
            return given >= end if count < 3 else given > wanted
        case ">=" | "=>":
            return given >= wanted
        case "<":
            return given < wanted
        case "<=" | "=<":
            return given < end if count < 3 else given <= wanted
        case "^":
            return wanted <= given < _next(wanted, _first_that_counts(wanted, count))
    return wanted <= given < _next(wanted, min(count, 2))


def _first_that_counts(version: Version, count: int) -> int:
    return next((place for place in range(1, count) if version[place - 1]), count)


def _next(version: Version, count: int) -> Version:
    """The first version that differs in one of the first `count` numbers."""
    numbers = [*list(version[:3])[:count], 0, 0, 0][:3]
    if count == 0:
        return (1 << 60, 0, 0, _RELEASE)
    numbers[count - 1] += 1
    return (numbers[0], numbers[1], numbers[2], ((0, 0, ""),))
