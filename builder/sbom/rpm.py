"""Packages of rpm, from its database: one header blob for each.

A blob is two big-endian counts (index entries, bytes of data), the index (tag, type, offset, count), the data (rpm's
doc/manual/format_header.md; without the magic it has in a file). Blobs lie in SQLite (Fedora, RHEL 9), ndb (SUSE) or Berkeley DB
(what is older): `rpmfiles` reads the latter two.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import quote

from builder.sbom.files import RootFiles
from builder.sbom.package import Distribution, Findings, Package
from builder.sbom.rpmfiles import bdb_headers, ndb_headers

_DIRECTORIES = ("var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm")
_BLOB_LIMIT, _INDEX_LIMIT = 64 << 20, 1 << 16
_STEPS = 200_000_000  # of SQLite's machine: far more than a database of 10,000 packages takes
_ENTRY = struct.Struct(">IIII")
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9
_TAGS = {
    1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1011: "vendor", 1014: "license", 1022: "arch",
    1044: "upstream",
}  # fmt: skip


def read_rpm(files: RootFiles, distribution: Distribution, found: Findings) -> None:
    """The first database there is, of the newest kind; the other places are links to it."""
    for name, headers in _READERS:
        for directory in _DIRECTORIES:
            place = f"{directory}/{name}"
            if (path := files.host_path(place)) is not None:
                _read_database(headers(path), place, distribution, found)
                return


def _read_database(headers: Iterator[bytes], place: str, distribution: Distribution, found: Findings) -> None:
    try:
        for blob in headers:
            _add(header_fields(blob), place, distribution, found)
    except (sqlite3.Error, ValueError) as error:
        found.notes.append(f"/{place} cannot be read as an rpm database: {error}")


def _sqlite_headers(path: str) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as database:
        yield from _blobs(database)


def _blobs(database: sqlite3.Connection) -> list[bytes]:
    # The file is not ours: its schema may call nothing, and it may not keep us busy for ever.
    database.execute("PRAGMA trusted_schema = OFF")
    database.set_progress_handler(lambda: 1, _STEPS)
    rows = database.execute(
        "SELECT blob FROM Packages WHERE typeof(blob) = 'blob' AND length(blob) <= ? ORDER BY hnum",
        (_BLOB_LIMIT,),
    )
    return [bytes(row[0]) for row in rows]


_READERS: tuple[tuple[str, Callable[[str], Iterator[bytes]]], ...] = (
    ("rpmdb.sqlite", _sqlite_headers),
    ("Packages.db", ndb_headers),
    ("Packages", bdb_headers),
)


def header_fields(blob: bytes) -> dict[str, str]:
    """The tags we know of a header blob; ValueError when it is none."""
    if len(blob) < 8:
        raise ValueError("a header is shorter than its counts")
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + entries * _ENTRY.size
    if entries > _INDEX_LIMIT or start + size > len(blob):
        raise ValueError("a header is shorter than it says")
    data = blob[start : start + size]
    fields: dict[str, str] = {}
    for number in range(entries):
        tag, kind, offset, _ = _ENTRY.unpack_from(blob, 8 + number * _ENTRY.size)
        if tag in _TAGS and offset < size:
            fields.setdefault(_TAGS[tag], _value(data, kind, offset))
    return fields


def _value(data: bytes, kind: int, offset: int) -> str:
    if kind == _INT32 and offset + 4 <= len(data):
        return str(int.from_bytes(data[offset : offset + 4], "big"))
    if kind in (_STRING, _STRING_ARRAY, _I18N):
        return data[offset:].split(b"\0", 1)[0].decode("utf-8", "replace")
    return ""


def _add(fields: dict[str, str], place: str, distribution: Distribution, found: Findings) -> None:
    name, version = fields.get("name", ""), fields.get("version", "")
    if not name or not version or name == "gpg-pubkey":  # a key that was imported is kept as a package
        return
    found.packages.add(
        Package(
            kind="rpm",
            name=name,
            version="-".join(filter(None, (version, fields.get("release", "")))),
            namespace=distribution.id,
            license=fields.get("license", ""),
            supplier=fields.get("vendor", ""),
            place=place,
            qualifiers=distribution.qualifiers(
                arch=fields.get("arch", ""),
                epoch=fields.get("epoch", ""),
                upstream=fields.get("upstream", ""),
            ),
        )
    )
