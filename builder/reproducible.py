"""Where two builds of the same differ: the first layer, in it the first file, in it the first byte (FEATURES M-13).

Both images lie in one store. Only reads; that the builds were made under different conditions is the caller's work.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from registry_client.oci.digest import chain_ids
from registry_client.values import frozen
from runtime.store.durable import faults_of_the_host
from runtime.store.layers import write_layer
from runtime.store.layers.reader import Member, TarReader
from runtime.store.store import Store

if TYPE_CHECKING:
    from runtime.images.image import Image

TIME = "time"


@frozen
class Deviation:
    """One property of one file (or field of the config) that came out differently."""

    path: str
    what: str  # content, mode, owner, time, …
    first: str
    second: str


@frozen
class Difference:
    """`layer` counts from 1; 0 is the config. `files` is how many entries of the layer differ."""

    layer: int
    instruction: str
    deviations: tuple[Deviation, ...]
    files: int = 1
    only_times: bool = False


def first_difference(store: Store, first: Image, second: Image) -> Difference | None:
    """None when both are the same image."""
    if first.id == second.id:
        return None
    for number, (one, other) in enumerate(zip_longest(first.diff_ids, second.diff_ids), 1):
        if one != other:
            instruction = _instruction(first, number)
            if one is None or other is None:
                shown = (str(one or "no layer"), str(other or "no layer"))
                return Difference(number, instruction, (Deviation("", "layer", *shown),))
            found = _layer_difference(store, first, second, number)
            return Difference(number, instruction, *found)
    deviation = _config_difference(json.loads(first.raw_config), json.loads(second.raw_config), "")
    assert deviation is not None, "equal configs have equal ids"
    return Difference(0, "", (deviation,), only_times=deviation.path.endswith("created"))


def _instruction(image: Image, number: int) -> str:
    """What the history says of the layer."""
    own = [entry for entry in image.config.history if not entry.empty_layer]
    return own[number - 1].created_by if number <= len(own) else ""


# --- layers -------------------------------------------------------------------------------------------------------


def _layer_difference(
    store: Store, first: Image, second: Image, number: int
) -> tuple[tuple[Deviation, ...], int, bool]:
    """The deviations of the first file that differs by more than its time (else the first that differs), and how many do."""
    chosen: tuple[Deviation, ...] = ()
    only_times, files = True, 0
    with _tar(store, first, number) as one, _tar(store, second, number) as other:
        for deviations in _compared(one, other):
            files += 1
            plain = all(each.what == TIME for each in deviations)
            if not chosen or (only_times and not plain):
                chosen = deviations
            only_times = only_times and plain
    return chosen, files, only_times


@contextmanager
def _tar(store: Store, image: Image, number: int) -> Iterator[TarReader]:
    """The layer's tar, in a file without a name."""
    snapshot = store.snapshots.by_chain(chain_ids(image.diff_ids)[number - 1])
    assert snapshot is not None, "a built image has a snapshot for each of its layers"
    lowers = store.snapshots.lowers(snapshot.parent) if snapshot.parent else ()
    with tempfile.TemporaryFile(dir=store.snapshots.drafts) as file:
        with faults_of_the_host("cannot compare the layers"):
            write_layer(store.snapshots.path(snapshot.id), file, lowers=lowers)
        file.seek(0)
        yield TarReader(file)


def _compared(one: TarReader, other: TarReader) -> Iterator[tuple[Deviation, ...]]:
    """Both tars are sorted the same way, so a name that only one has is passed over until they meet again."""
    ours, theirs = iter(one), iter(other)
    first, second = next(ours, None), next(theirs, None)
    while first is not None or second is not None:
        if first is not None and second is not None and first.name == second.name:
            if found := _member_deviations(first, second, one, other):
                yield found
            first, second = next(ours, None), next(theirs, None)
        elif second is None or (first is not None and _order(first) < _order(second)):
            assert first is not None
            yield (Deviation(_path(first), "entry", "there", "missing"),)
            first = next(ours, None)
        else:
            yield (Deviation(_path(second), "entry", "missing", "there"),)
            second = next(theirs, None)


def _order(member: Member) -> tuple[bytes, ...]:
    return tuple(member.name.rstrip(b"/").split(b"/"))


def _path(member: Member) -> str:
    return "/" + os.fsdecode(member.name)


def _member_deviations(
    first: Member, second: Member, one: TarReader, other: TarReader
) -> tuple[Deviation, ...]:
    pairs = {
        "type": (first.kind.decode(), second.kind.decode()),
        "mode": (f"{first.mode:04o}", f"{second.mode:04o}"),
        "owner": (f"{first.uid}:{first.gid}", f"{second.uid}:{second.gid}"),
        "link": (os.fsdecode(first.link), os.fsdecode(second.link)),
        "device": (str(first.device), str(second.device)),
        "attributes": (str(first.xattrs), str(second.xattrs)),
        "size": (str(first.size), str(second.size)),
        TIME: (_seconds(first), _seconds(second)),
    }
    path = _path(first)
    found = [Deviation(path, what, *pair) for what, pair in pairs.items() if pair[0] != pair[1]]
    if (content := _content_deviation(path, one, other)) is not None:
        found.insert(0, content)
    return tuple(found)


def _seconds(member: Member) -> str:
    return str(member.mtime_ns // 10**9)


def _content_deviation(path: str, one: TarReader, other: TarReader) -> Deviation | None:
    """The first byte that differs."""
    ours, theirs = one.data(), other.data()
    left, right, offset = memoryview(b""), memoryview(b""), 0
    while True:
        left, right = left or next(ours, memoryview(b"")), right or next(theirs, memoryview(b""))
        length = min(len(left), len(right))
        if not length:
            if not left and not right:
                return None
            return Deviation(path, f"content at byte {offset}", _byte(left), _byte(right))
        if bytes(left[:length]) != bytes(right[:length]):
            at = next(n for n in range(length) if left[n] != right[n])
            return Deviation(path, f"content at byte {offset + at}", _byte(left[at:]), _byte(right[at:]))
        left, right, offset = left[length:], right[length:], offset + length


def _byte(data: memoryview) -> str:
    return repr(bytes(data[:16]))[1:] if data else "its end"


# --- config -------------------------------------------------------------------------------------------------------


def _config_difference(first: Any, second: Any, path: str) -> Deviation | None:
    """The first field that differs, depth first."""
    if first == second:
        return None
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted(first.keys() | second.keys())
        parts = [(f"{path}.{key}".lstrip("."), first.get(key), second.get(key)) for key in keys]
    elif isinstance(first, list) and isinstance(second, list):
        parts = [(f"{path}[{n}]", *pair) for n, pair in enumerate(zip_longest(first, second))]
    else:
        return Deviation(path, "value", str(first), str(second))
    found = (_config_difference(one, other, place) for place, one, other in parts)
    return next(each for each in found if each is not None)
