"""Why a step ran again: its record against the nearest earlier one of the same place (FEATURES B-28). Reads only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from builder.cache import fields_of
from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import frozen
from runtime.store.store import Store

_SHOWN = 5
_QUIET = frozenset({"root", "content", "base"})


@frozen
class Difference:
    """One named field that is not what it was."""

    field: str
    before: str
    now: str


@frozen
class Explanation:
    """A step of an image: when it was done, and what differs from the time before. No differences: it never ran before."""

    label: str
    made: int
    key: str
    earlier: str = ""  # the key of the record it is compared with
    differences: tuple[Difference, ...] = ()


def explain(store: Store, diff_ids: Sequence[Digest]) -> list[Explanation]:
    """Every step the layers were made by, bottom first."""
    found = []
    for chain in chain_ids(diff_ids):
        # Steps that change nothing end in the same chain: the one used last is meant.
        row = store.db.one(
            "SELECT * FROM cache_records WHERE chain_id = ? ORDER BY used DESC LIMIT 1", (chain,)
        )
        if row is not None:
            found.append(_explain(store, row))
    return found


def _explain(store: Store, row: sqlite3.Row) -> Explanation:
    earlier = store.db.one(
        "SELECT * FROM cache_records WHERE place = ? AND made < ? AND key != ? ORDER BY made DESC LIMIT 1",
        (row["place"], row["made"], row["key"]),
    )
    if earlier is None:
        return Explanation(row["label"], row["made"], row["key"])
    differences = tuple(_differences(store, earlier, row))
    return Explanation(row["label"], row["made"], row["key"], earlier["key"], differences)


def _differences(store: Store, earlier: sqlite3.Row, row: sqlite3.Row) -> Iterator[Difference]:
    before, now = fields_of(earlier), fields_of(row)
    if earlier["kind"] != row["kind"]:
        yield Difference("instruction", earlier["label"], row["label"])
        return
    for name in sorted(now.keys() | before.keys()):
        if name not in _QUIET and before.get(name) != now.get(name):
            yield from _field(name, before.get(name), now.get(name))
    if before.get("content") != now.get("content"):
        yield from _files(store, earlier["key"], row["key"])
    if before.get("base") != now.get("base"):
        yield Difference("base image", str(before.get("base", "")), str(now.get("base", "")))
    elif before.get("root") != now.get("root"):
        yield Difference("the step before", _label_of(store, before["root"]), _label_of(store, now["root"]))


def _field(name: str, before: Any, now: Any) -> Iterator[Difference]:
    """A list of NAME=VALUE is compared name by name."""
    if name == "env" and isinstance(before, list) and isinstance(now, list):
        old = dict(entry.split("=", 1) for entry in before)
        new = dict(entry.split("=", 1) for entry in now)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield Difference(f"variable {key}", old.get(key, "(not set)"), new.get(key, "(not set)"))
        return
    yield Difference(name, _shown(before), _shown(now))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _files(store: Store, before: str, now: str) -> Iterator[Difference]:
    old, new = _lines(store, before), _lines(store, now)
    if not old and not new:
        yield Difference("files", "", "what was copied from another stage or image")
        return
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in changed[:_SHOWN]:
        yield Difference(f"file {name}", _file(old.get(name)), _file(new.get(name)))
    if len(changed) > _SHOWN:
        yield Difference("files", "", f"and {len(changed) - _SHOWN} more")


def _file(line: list[str] | None) -> str:
    if line is None:
        return "(not there)"
    digest, mode, owner, size = line[:4]
    return f"mode {mode[-4:]}, owner {owner}, {size} bytes" + (f", {digest[:12]}" if digest else "")


def _lines(store: Store, key: str) -> dict[str, list[str]]:
    row = store.db.one("SELECT files FROM cache_files WHERE key = ?", (key,))
    if row is None:
        return {}
    lines = bytes(row["files"]).decode("utf-8", "replace").split("\n")
    parts = [line.split("\0") for line in lines]
    return {part[-1]: part[:-1] for part in parts if len(part) == 6}


def _label_of(store: Store, chain: str) -> str:
    row = store.db.one("SELECT label FROM cache_records WHERE chain_id = ? ORDER BY made LIMIT 1", (chain,))
    return str(row["label"]) if row is not None else chain[:19]
