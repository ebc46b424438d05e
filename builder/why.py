"""Why a step ran again: its record against the nearest earlier one (FEATURES B-28). Reads only.

Nearest is the same instruction of the same stage and Dockerfile, wherever it stood there; else what stood in its place.
"""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from builder.cache import fields_of
from builder.lines import lines_of
from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import frozen
from runtime.store.store import Store

_SHOWN = 5
_KINDS = {stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
_QUIET = frozenset({"root", "content", "base", "elsewhere"})


@frozen
class Difference:
    """One named field that is not what it was."""

    field: str
    before: str
    now: str


@frozen
class Explanation:
    """A step of an image: when it was done (ns), and what differs from the time before. No `earlier`: it never ran before."""

    label: str
    made: int
    key: str
    earlier: str = ""  # the key of the record it is compared with
    differences: tuple[Difference, ...] = ()


def explain(store: Store, diff_ids: Sequence[Digest]) -> list[Explanation]:
    """Every step the layers were made by, bottom first; then those of other stages which the same build used."""
    rows: list[sqlite3.Row] = []
    for chain in chain_ids(diff_ids):
        # Steps that change nothing end in the same chain: the one used last is meant.
        row = store.db.one(
            "SELECT * FROM cache_records WHERE chain_id = ? ORDER BY used DESC LIMIT 1", (chain,)
        )
        if row is not None:
            rows.append(row)
    return [_explain(store, row) for row in (*rows, *_of_other_stages(store, rows))]


def _of_other_stages(store: Store, own: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    """All records of one build have one time of use, that of its end."""
    if not own:
        return []
    sql = "SELECT * FROM cache_records WHERE used = ? AND place LIKE '%:[%' ORDER BY rowid"
    keys = {row["key"] for row in own}
    found = [row for row in store.db.read(sql, (max(row["used"] for row in own),)) if row["key"] not in keys]
    stages = list(dict.fromkeys(_stage(row["place"])[0] for row in found))
    return sorted(found, key=lambda row: (stages.index(_stage(row["place"])[0]), _stage(row["place"])[1]))


def _stage(place: str) -> tuple[str, int]:
    """`FILE:[STAGE 2/7` as what is before the number, and the number."""
    match = re.fullmatch(r"(.*?)([0-9]+)/[0-9]+", place, re.DOTALL)
    return (match[1], int(match[2])) if match else (place, 0)


def _earlier(store: Store, row: sqlite3.Row) -> sqlite3.Row | None:
    stage = _stage(row["place"])[0]
    # Rows are numbered as they come; times are no order where an epoch sets them.
    rows = store.db.read(
        """SELECT rowid, key, place, label FROM cache_records WHERE place >= ? AND place < ? AND key != ?
           AND rowid < (SELECT rowid FROM cache_records WHERE key = ?)""",
        (stage, f"{stage}:", row["key"], row["key"]),  # ":" follows the digits
    )
    near = [each for each in rows if _text(each) == _text(row) or each["place"] == row["place"]]
    if not near:
        return None
    best = max(
        near, key=lambda each: (_text(each) == _text(row), each["place"] == row["place"], each["rowid"])
    )
    return store.db.one("SELECT * FROM cache_records WHERE key = ?", (best["key"],))


def _text(row: sqlite3.Row) -> str:
    """The instruction, without where it stands."""
    return str(row["label"]).partition("] ")[2]


@frozen
class _Known:
    """A step to compare: one of this store, or what a cache that was looked at told of it."""

    key: str
    kind: str
    label: str
    fields: Mapping[str, Any]
    lines: Mapping[str, list[str]]


def _explain(store: Store, row: sqlite3.Row) -> Explanation:
    earlier = _earlier(store, row)
    now = _known(store, row)
    before = _known(store, earlier) if earlier is not None else _known_elsewhere(now)
    if before is None:
        return Explanation(row["label"], row["made"], row["key"])
    return Explanation(
        row["label"], row["made"], row["key"], before.key, tuple(_differences(store, before, now))
    )


def _known(store: Store, row: sqlite3.Row) -> _Known:
    lines = _by_name(lines_of(store.db, row["key"]))
    return _Known(row["key"], row["kind"], row["label"], fields_of(row), lines)


def _known_elsewhere(now: _Known) -> _Known | None:
    told = now.fields.get("elsewhere")
    if not told or told["key"] == now.key:
        return None
    fields = {name: value for name, value in told.items() if name not in ("key", "label", "files")}
    return _Known(told["key"], now.kind, told["label"], fields, _by_name(told["files"]))


def _by_name(lines: Sequence[str]) -> dict[str, list[str]]:
    parts = [line.split("\0") for line in lines]
    return {part[-1]: part[:-1] for part in parts if len(part) == 6}


def _differences(store: Store, earlier: _Known, row: _Known) -> Iterator[Difference]:
    before, now = earlier.fields, row.fields
    if earlier.kind != row.kind:
        yield Difference("instruction", earlier.label, row.label)
        return
    for name in sorted(now.keys() | before.keys()):
        if name not in _QUIET and before.get(name) != now.get(name):
            yield from _field(name, before.get(name), now.get(name))
    if before.get("content") != now.get("content"):
        yield from _files(earlier.lines, row.lines)
    if before.get("base") != now.get("base"):
        yield Difference("base image", str(before.get("base", "")), str(now.get("base", "")))
    elif before.get("root") != now.get("root"):
        yield from _root(_label_of(store, before["root"]), _label_of(store, now["root"]))


def _root(before: str, now: str) -> Iterator[Difference]:
    """The same instruction with another result is a reason of its own."""
    yield Difference("the step before", before, f"{now}, which gave other files" if before == now else now)


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
        return " ".join(_shown(item) for item in value)
    if isinstance(value, dict):  # a mount, as it is written
        return ",".join(f"{name}={_shown(each)}" for name, each in value.items() if each not in (None, ""))
    return "" if value is None else str(value)


def _files(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> Iterator[Difference]:
    if not old or not new:
        yield Difference("files", "", "what was taken from another stage or image, or very many")
        return
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in changed[:_SHOWN]:
        yield Difference(f"file {name}", _file(old.get(name)), _file(new.get(name)))
    if len(changed) > _SHOWN:
        yield Difference("files", "", f"and {len(changed) - _SHOWN} more")


def _file(line: list[str] | None) -> str:
    if line is None:
        return "(not there)"
    digest, mode, owner, size, more = line
    target, at, time = more.rpartition("@") if "@" in more else (more, "", "")
    kind = stat.S_IFMT(int(mode, 8))
    about = f"mode {mode[-4:]}, owner {owner}"
    if kind == stat.S_IFREG:
        about += f", {size} bytes"
    else:
        about = (
            f"{_KINDS.get(kind, 'special file')}{f' to {target}' if kind == stat.S_IFLNK else ''}, {about}"
        )
    return (
        about
        + (f", {digest[:12]}" if digest else "")
        + (f", of {int(time) // 10**9}" if at and time.isdigit() else "")
    )


def _label_of(store: Store, chain: str) -> str:
    row = store.db.one("SELECT label FROM cache_records WHERE chain_id = ? ORDER BY made LIMIT 1", (chain,))
    return str(row["label"]) if row is not None else "the base image, or a result that was replaced since"
