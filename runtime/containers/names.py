"""Ids and names of containers.

A name that nobody chose reads like Docker's: an adjective and a person who made computers or sailing better. Nothing
here asks whether a name is free; the database does.
"""

from __future__ import annotations

import os

from runtime.errors import InvalidInput

ADJECTIVES = (
    "able amber brave breezy bright calm candid clever cosmic crisp daring deft eager earnest fair fleet fond frank "
    "gentle glad golden grand happy hardy honest humble jolly keen kind lively loyal lucid merry mild modest neat "
    "nimble noble patient plucky polite proud quick quiet rapid ready robust serene sharp silent smart snug solid "
    "spry steady stoic sunny swift tidy vivid warm wise witty zesty"
)
PEOPLE = (
    "aiken allen amdahl babbage backus bartik bellman boole bush cerf church codd conway corbato dahl davies "
    "dijkstra easley engelbart englert ewing feinler floyd gosling hamilton hamming hoare holberton holmes hopper "
    "iverson johnson joy karp kay keller kernighan kildall kleene knuth lamarr lamport leibniz liskov lovelace "
    "magellan mccarthy meltzer milner minsky moore naur newell noyce nygaard pascal perlis perlman postel ritchie "
    "shannon shaw stallman steele tanenbaum thompson torvalds turing vaughan wilkes wirth worsley zuse"
)
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def new_id() -> str:
    """64 hex digits, as the world expects of a container id."""
    return os.urandom(32).hex()


def random_name(entropy: bytes, attempt: int = 0) -> str:
    """A readable name out of eight random bytes; later attempts carry a number, so they end."""
    adjectives, people = ADJECTIVES.split(), PEOPLE.split()
    first, second = int.from_bytes(entropy[:4], "big"), int.from_bytes(entropy[4:8], "big")
    name = f"{adjectives[first % len(adjectives)]}_{people[second % len(people)]}"
    return f"{name}{attempt}" if attempt else name


def check_name(name: str) -> str:
    """The name without Docker's leading slash; InvalidInput unless it is [a-zA-Z0-9][a-zA-Z0-9_.-]+."""
    plain = name[1:] if name.startswith("/") else name
    if len(plain) < 2 or len(plain) > 255 or not plain[0].isalnum() or not _NAME_CHARACTERS.issuperset(plain):
        raise InvalidInput(
            f"invalid container name {name!r}",
            hint="use at least two of letters, digits, `_`, `.`, `-`, beginning with a letter or digit",
        )
    return plain
