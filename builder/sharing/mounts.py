"""Cache mounts between machines: `pipe cache export|import` (FEATURES B-11).

An OCI image manifest: one layer for each mount (its files as a tar), and a config that says which mount a layer is, with
owner and mode of its directory and when it was used last, so that the least recently used go first elsewhere too. A mount
is read and replaced only while no step uses it. What it is called comes from its name: an import cannot choose a place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import BinaryIO, cast

from builder.operations.cachemounts import hold, identity_of
from builder.prune import short_id
from builder.sharing.places import Place, read_blob
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of, parse_digest
from registry_client.oci.manifest import Manifest, canonical_json, make_manifest
from registry_client.oci.media_types import OCI_LAYER_ZSTD
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, NotFound
from runtime.store.durable import faults_of_the_host, remove_tree
from runtime.store.owners import own_token
from runtime.store.store import Store

CONFIG_TYPE = "application/vnd.pipe.cachemounts.config.v1+json"
_VERSION = 1
_CONFIG_LIMIT = 8 << 20
_LIMITS = {"number": 10_000, "mode": 0o10000, "uid": 0xFFFFFFFF, "gid": 0xFFFFFFFF}


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A cache mount as it travels. `number` is that of a private mount made beside one in use, else 0."""

    name: str
    number: int
    mode: int
    uid: int
    gid: int
    made: int  # nanoseconds
    used: int
    diff_id: Digest
    size: int

    @property
    def identity(self) -> str:
        return identity_of(self.name, self.number)


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one mount: exported, imported, or kept because there is one."""

    id: str
    name: str
    what: str
    size: int


# --- export -------------------------------------------------------------------------------------------------------


def export_mounts(store: Store, wanted: Sequence[str], place: Place, cancel: Cancel) -> list[Moved]:
    """Write the mounts called `wanted` (ids, their beginnings, or names; none: all) to a place."""
    rows = [
        row
        for row in store.db.read("SELECT id, name, made, used FROM cache_mounts ORDER BY id")
        if not wanted or any(is_called(row["id"], row["name"], each) for each in wanted)
    ]
    for each in wanted:
        if not any(is_called(row["id"], row["name"], each) for row in rows):
            raise NotFound(f"no cache mount {each}", hint="see `pipe cache ls`")
    layers: list[tuple[Descriptor, MountRecord]] = []
    for row in rows:
        with hold(store, row["id"], cancel):
            sent = _send(store, row["id"], place, cancel)
            if sent is not None:
                blob, status, diff_id, size = sent
                record = MountRecord(
                    row["name"],
                    int(row["id"].partition("-")[2] or 0),
                    stat.S_IMODE(status.st_mode),
                    status.st_uid,
                    status.st_gid,
                    row["made"],
                    row["used"],
                    diff_id,
                    size,
                )
                layers.append((blob, record))
    _finish(place, layers)
    return [Moved(short_id(each.identity), each.name, "exported", each.size) for _, each in layers]


def is_called(identity: str, name: str, wanted: str) -> bool:
    return (
        name == wanted or (len(wanted) >= 4 and identity.startswith(wanted)) or short_id(identity) == wanted
    )


def _send(
    store: Store, identity: str, place: Place, cancel: Cancel
) -> tuple[Descriptor, os.stat_result, Digest, int] | None:
    """Bring one mount's files there; None when a prune took them meanwhile."""
    from runtime.store.layers import compress, write_layer

    data = os.path.join(store.root, "cachemounts", identity, "data")
    if not os.path.isdir(data):
        return None
    # Without a name: whatever happens, nothing of it stays.
    with tempfile.TemporaryFile(dir=store.content.ingest) as file:
        sink = _Hashing(cast(BinaryIO, file), cancel)
        out = compress(sink, "zstd")
        with faults_of_the_host(f"cannot pack the cache mount {identity}"):
            info = write_layer(data, cast(BinaryIO, out))
            out.close()
            file.flush()
        blob = Descriptor(OCI_LAYER_ZSTD, sink.digest, sink.size)
        place.put(blob, _opener(file.fileno()))
    return blob, os.stat(data), info.diff_id, info.size


class _Hashing:
    def __init__(self, out: BinaryIO, cancel: Cancel) -> None:
        self._out, self._cancel, self._hash, self.size = out, cancel, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._cancel.check()
        self._hash.update(data)
        self.size += len(data)
        return self._out.write(data)

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hash.hexdigest()}")


def _opener(descriptor: int) -> Callable[[int], BinaryIO]:
    def open_at(offset: int) -> BinaryIO:
        file = open(f"/proc/self/fd/{descriptor}", "rb")  # noqa: SIM115  the place closes it
        file.seek(offset)
        return file

    return open_at


def _finish(place: Place, layers: Sequence[tuple[Descriptor, MountRecord]]) -> None:
    raw = canonical_json({"version": _VERSION, "mounts": [asdict(record) for _, record in layers]})
    config = Descriptor(CONFIG_TYPE, digest_of(raw), len(raw))
    place.put(config, lambda offset: io.BytesIO(raw[offset:]))
    place.name(make_manifest(config, tuple(blob for blob, _ in layers)))


# --- import -------------------------------------------------------------------------------------------------------


def import_mounts(store: Store, place: Place, cancel: Cancel, *, replace: bool = False) -> list[Moved]:
    """Take in the mounts of a place. One that is here stays, unless it is to be replaced."""
    moved = []
    for manifest in place.manifests():
        for record, blob in zip(_records(place, manifest), manifest.layers, strict=True):
            with hold(store, record.identity, cancel):
                taken = _take(store, place, record, blob, replace)
            what = "imported" if taken else "kept"
            moved.append(Moved(short_id(record.identity), record.name, what, record.size))
    return moved


def _records(place: Place, manifest: Manifest) -> list[MountRecord]:
    if manifest.config.media_type != CONFIG_TYPE:
        raise InvalidInput(
            f"these are no cache mounts but {manifest.config.media_type}",
            hint="records of steps are taken with `pipe build --cache-from`",
        )
    try:
        record = json.loads(read_blob(place, manifest.config, _CONFIG_LIMIT))
        if record["version"] != _VERSION:
            raise ValueError(f"version {record['version']!r} is not known")
        found = [_record(each) for each in record["mounts"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"the config of the cache mounts is damaged: {error}") from error
    if len(found) != len(manifest.layers):
        raise InvalidInput(
            f"{len(manifest.layers)} layers in the manifest, {len(found)} mounts in the config"
        )
    return found


def _record(record: dict[str, object]) -> MountRecord:
    numbers = {
        name: int(str(record[name])) for name in ("number", "mode", "uid", "gid", "made", "used", "size")
    }
    impossible = [name for name, number in numbers.items() if not 0 <= number < _LIMITS.get(name, 1 << 63)]
    if impossible:
        raise ValueError(f"impossible numbers: {', '.join(impossible)}")
    str(record["name"]).encode()  # a lone surrogate is valid JSON, but no name
    return MountRecord(name=str(record["name"]), diff_id=parse_digest(str(record["diff_id"])), **numbers)


def _take(store: Store, place: Place, record: MountRecord, blob: Descriptor, replace: bool) -> bool:
    home = os.path.join(store.root, "cachemounts", record.identity)
    data = os.path.join(home, "data")
    if os.path.isdir(data) and not replace:
        return False
    with _scratch(store) as scratch:
        fresh = os.path.join(scratch, "data")
        _unpack(place, record, blob, fresh)
        with faults_of_the_host(f"cannot import the cache mount {record.name}"):
            if os.path.isdir(data):
                os.rename(data, os.path.join(scratch, "before"))
            os.rename(fresh, data)
    with store.db.transaction() as connection:
        row = (record.identity, record.name, record.made, record.used)
        connection.execute("INSERT OR REPLACE INTO cache_mounts VALUES (?, ?, ?, ?)", row)
    return True


@contextmanager
def _scratch(store: Store) -> Iterator[str]:
    """A directory on the store's file system that goes with us, whatever happens to us."""
    path = os.path.join(store.root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")
    os.mkdir(path, 0o711)
    try:
        yield path
    finally:
        remove_tree(path)


def _unpack(place: Place, record: MountRecord, blob: Descriptor, directory: str) -> None:
    from runtime.store.layers import apply_layer, decompress

    os.mkdir(directory, 0o700)
    with place.blob(blob) as chunks:
        info = apply_layer(decompress(cast(BinaryIO, _Stream(chunks))), directory)
    if info.diff_id != record.diff_id:
        raise InvalidInput(f"the cache mount {record.name} is damaged: it is {info.diff_id}")
    os.chown(directory, record.uid, record.gid)
    os.chmod(directory, record.mode)


class _Stream:
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            data, self._rest = self._rest + b"".join(self._chunks), b""
            return data
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
