"""Tar headers as bytes: ustar, and a PAX header before it only for what ustar cannot say (pax(1), EXTENDED DESCRIPTION).

No user or group names, no access or change times: they would differ between machines that made the same layer.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from zlib import adler32

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (bytes((48 + n,)) for n in range(7))
XATTR_PREFIX = b"SCHILY.xattr."

_ID_LIMIT = 0o7777777
_LARGEST = 0o77777777777  # a size, or a time: the year 2242
# Up to the name's end nothing is known; behind the link name all but the device numbers is always the same.
_TAIL = b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
_TAIL_SUM = sum(_TAIL)
_NO_LINK = bytes(100)
_PADDING = bytes(12)
_NO_PREFIX = bytes(155 + 12)
_BLANK_SUM = 8 * 32  # the checksum is taken with blanks in its own place
# Of a regular file, behind the checksum.
_FILE_END = b"\0 " + REGULAR + _NO_LINK + _TAIL + _NO_PREFIX
_FILE_SUM = REGULAR[0] + _TAIL_SUM + _BLANK_SUM - 1  # -1: see `_sum`
_OWNERS_LIMIT = 256

NO_XATTRS: Mapping[str, bytes] = {}
_TYPES = {
    stat.S_IFREG: REGULAR, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY, stat.S_IFIFO: FIFO,
}  # fmt: skip


def type_of(mode: int) -> bytes | None:
    """The tar type of a file mode; None for a socket, which a tar cannot hold."""
    return _TYPES.get(stat.S_IFMT(mode))


def header(
    name: bytes, kind: bytes, *, mode: int, uid: int = 0, gid: int = 0, size: int = 0, mtime: int = 0,
    link: bytes = b"", device: tuple[int, int] = (0, 0), xattrs: Mapping[str, bytes] = NO_XATTRS,
) -> bytes:  # fmt: skip
    """The header blocks of one entry."""
    small = uid <= _ID_LIMIT and gid <= _ID_LIMIT and size <= _LARGEST and 0 <= mtime <= _LARGEST
    if small and len(name) <= 100 and len(link) <= 100 and device == (0, 0) and not xattrs:
        return _plain(name, kind, mode, uid, gid, size, mtime, link)
    return _extended(name, kind, mode, uid, gid, size, mtime, link, device, xattrs)


_owners: dict[tuple[int, int, int], bytes] = {}  # mode, uid and gid as they are written; there are few


def file_header(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int) -> bytes:
    """What `header` gives for a regular file without attributes: most entries of most layers are."""
    owner = _owners.get((mode, uid, gid)) or _owner(mode, uid, gid)
    if not owner or len(name) > 100 or size > _LARGEST or not 0 <= mtime <= _LARGEST:
        return _extended(name, REGULAR, mode, uid, gid, size, mtime, b"", (0, 0), NO_XATTRS)
    numbers = b"%b%011o\0%011o\0" % (owner, size, mtime)
    checksum = (adler32(name + numbers) & 0xFFFF) + _FILE_SUM
    return b"%b%b%06o%b" % (name.ljust(100, b"\0"), numbers, checksum, _FILE_END)


def _owner(mode: int, uid: int, gid: int) -> bytes:
    """Nothing where it does not fit."""
    if uid > _ID_LIMIT or gid > _ID_LIMIT:
        return b""
    if len(_owners) >= _OWNERS_LIMIT:
        _owners.clear()
    found = _owners[mode, uid, gid] = b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
    return found


def _plain(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    checksum = _sum(name + numbers) + kind[0] + _TAIL_SUM + _BLANK_SUM
    if link:
        checksum += _sum(link)
    where = link.ljust(100, b"\0") if link else _NO_LINK
    return b"%b%b%06o\0 %b%b%b%b" % (
        name.ljust(100, b"\0"),
        numbers,
        checksum,
        kind,
        where,
        _TAIL,
        _NO_PREFIX,
    )


def _sum(data: bytes) -> int:
    """The sum of up to 256 bytes. The lower half of Adler-32 is one more, modulo 65521 (RFC 1950), and quick."""
    return (adler32(data) & 0xFFFF) - 1


def _extended(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes,
    device: tuple[int, int], xattrs: Mapping[str, bytes],
) -> bytes:  # fmt: skip
    records: dict[bytes, bytes] = {
        XATTR_PREFIX + key.encode("utf-8", "surrogateescape"): value for key, value in xattrs.items()
    }
    prefix, base = b"", name
    if len(name) > 100:
        prefix, base = _split(name)
        if not base:
            records[b"path"], base = name, name[:100]
    if len(link) > 100:
        records[b"linkpath"], link = link, link[:100]
    if uid > _ID_LIMIT:
        records[b"uid"], uid = b"%d" % uid, 0
    if gid > _ID_LIMIT:
        records[b"gid"], gid = b"%d" % gid, 0
    if size > _LARGEST:
        records[b"size"], size = b"%d" % size, 0
    if not 0 <= mtime <= _LARGEST:
        records[b"mtime"], mtime = b"%d" % mtime, 0
    return _pax(name, records) + _full(prefix, base, kind, mode, uid, gid, size, mtime, link, device)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """`(prefix, name)` as ustar can hold them, `(b"", b"")` when it cannot."""
    # The slash itself is not stored; a directory's own slash at the end must stay in the name.
    cut = name.find(b"/", len(name) - 101, len(name) - 1)
    return (name[:cut], name[cut + 1 :]) if 0 < cut <= 155 else (b"", b"")


def _full(
    prefix: bytes, name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes,
    device: tuple[int, int],
) -> bytes:  # fmt: skip
    first = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    last = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % device
    last += prefix.ljust(155, b"\0") + _PADDING
    return first + b"%06o\0 " % (sum(first) + sum(last) + _BLANK_SUM) + last


def _pax(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    """The extended header that precedes an entry, empty when there is nothing to say."""
    if not records:
        return b""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    own = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
    return _full(b"", own, b"x", 0o644, 0, 0, len(data), 0, b"", (0, 0)) + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def padding(size: int) -> bytes:
    """What fills the last block of `size` bytes of data."""
    return bytes(-size % BLOCK)
