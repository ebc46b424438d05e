"""Read a tar as a stream: ustar, PAX and GNU headers, sparse files. Hashes every byte, also those behind the end mark.

Everything comes from outside, so sizes are limited and nonsense is an `InvalidInput`. What a name means is not
decided here (see `apply`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO

from registry_client.oci.digest import Digest
from runtime.errors import InvalidInput
from runtime.store.layers import header, sparse
from runtime.store.layers.header import BLOCK, XATTR_PREFIX

_CHUNK = 1 << 20
EXTENSION_LIMIT = 4 << 20  # of all PAX headers and long names of an entry; xattrs may have 64 KiB each
_GLOBAL_LIMIT = 64 << 10  # of what PAX headers say of all entries that follow: each of them looks at it
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_EXTENSIONS = (PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK)
_REGULARS = (b"0", b"\0", b"7")
_ZEROS = bytes(BLOCK)
_LAST_ID = 0xFFFFFFFE  # the one above means "no change" to chown(2)
_TIME_LIMIT = 10**9 << 40  # nanoseconds; more than a header field can say


class Member:
    """One entry, as the tar spells it. `size` is that of the data in the tar."""

    __slots__ = (
        "device", "gid", "kind", "link", "mode", "mtime_ns", "name", "pieces", "real_size", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime_ns: int,
        link: bytes,
        device: tuple[int, int],
    ) -> None:
        self.name, self.kind, self.mode, self.uid, self.gid = name, kind, mode, uid, gid
        self.size, self.mtime_ns, self.link, self.device = size, mtime_ns, link, device
        self.xattrs: dict[str, bytes] = {}
        self.pieces: sparse.Map[int] | None = None  # of a sparse file: where the data belongs
        self.real_size = 0  # likewise: of the whole file


class TarReader:
    """Iterate to get the members; read a member's data with `data` before going on, or it is skipped."""

    def __init__(self, stream: BinaryIO, *, limit: int | None = None) -> None:
        self._stream, self._limit = stream, limit
        self._buffer = memoryview(b"")
        self._hash = hashlib.sha256()
        self._remaining = self._padding = 0
        self.size = 0

    def __iter__(self) -> Iterator[Member]:
        own: dict[bytes, bytes] = {}
        for_all: dict[bytes, bytes] = {}
        before = 0  # bytes of the extensions in front of an entry
        while (block := self._block()) is not None and block != _ZEROS:
            member = parse_header(block)
            self._expect(member.size if has_data(member.kind) else 0)
            if member.kind in _EXTENSIONS:
                before += member.size
                self._extension(member, before, own, for_all)
            else:
                self._complete(member, block, for_all | own)
                own, before = {}, 0
                yield member
            self.skip()

    def _extension(
        self, member: Member, before: int, own: dict[bytes, bytes], for_all: dict[bytes, bytes]
    ) -> None:
        """Take in what a header says of the entry that follows it, or of all of them."""
        if before > EXTENSION_LIMIT:
            raise InvalidInput(f"a tar header of {before} bytes is too large")
        if member.kind == PAX:
            own |= self._pax(member)
        elif member.kind == PAX_GLOBAL:
            for_all |= self._pax(member)
            if (size := sum(len(key) + len(value) for key, value in for_all.items())) > _GLOBAL_LIMIT:
                raise InvalidInput(f"global PAX headers of {size} bytes in the tar are too large")
        else:
            own[b"path" if member.kind == GNU_NAME else b"linkpath"] = self._long(member)

    def _complete(self, member: Member, block: bytes, records: dict[bytes, bytes]) -> None:
        """Add what PAX records say, and the map of a sparse file."""
        try:
            if records:
                extend(member, records)
                self._expect(member.size)
            if member.kind == GNU_SPARSE:
                self._read_old_map(member, block)
            elif sparse.is_sparse(records):
                self._read_pax_map(member, records)
            check_member(member)
        except ValueError as error:
            raise InvalidInput(f"invalid header in the tar: {error}") from error

    def _read_old_map(self, member: Member, block: bytes) -> None:
        pieces, more, member.real_size = sparse.parse_header(block)
        while more:
            following = self._block()
            if following is None or len(pieces) > 2 * sparse.PIECES_LIMIT:
                raise ValueError("a sparse map does not end")
            found, more = sparse.parse_continuation(following)
            pieces += found
        member.kind = header.REGULAR
        self._set_pieces(member, pieces)

    def _read_pax_map(self, member: Member, records: dict[bytes, bytes]) -> None:
        member.real_size = sparse.real_size(records)
        member.name = sparse.name_of(records) or member.name
        if sparse.map_is_in_data(records):
            self._set_pieces(member, self._map_in_data())
        else:
            self._set_pieces(member, sparse.parse_list(sparse.split(records[sparse.MAP])))

    def _map_in_data(self) -> sparse.Map[int]:
        """Decimal lines, the number of pieces first, filled up to a whole block."""
        lines = self._lines()
        count = 2 * int(next(lines))
        pieces = sparse.parse_list(islice(lines, count))
        if len(pieces) < count:
            raise ValueError("a sparse map does not end")
        return pieces

    def _lines(self) -> Iterator[bytes]:
        """What is in blocks of the data as lines; a block is taken when the one before it is used up."""
        text = b""
        while self._remaining >= BLOCK and (data := self._block()):
            self._remaining -= BLOCK
            *complete, text = (text + data).split(b"\n")
            yield from complete
            if len(text) > BLOCK:
                break
        raise ValueError("a sparse map does not end")

    def _set_pieces(self, member: Member, pieces: sparse.Map[int]) -> None:
        sparse.check(pieces, self._remaining, member.real_size)
        member.size, member.pieces = self._remaining, pieces

    def _expect(self, size: int) -> None:
        if size < 0:
            raise InvalidInput(f"a tar entry has the size {size}")
        self._remaining, self._padding = size, -size % BLOCK

    def _block(self) -> bytes | None:
        """The next block; None at a clean end of the stream."""
        view = self._take(BLOCK)
        if not view:
            return None
        data = bytes(view)
        while len(data) < BLOCK:
            more = self._take(BLOCK - len(data))
            if not more:
                raise InvalidInput("the tar ends in the middle of a header")
            data += more
        return data

    def _take(self, count: int) -> memoryview:
        """Up to `count` bytes, none at the end of the stream."""
        if not self._buffer:
            self._fill()
        view, self._buffer = self._buffer[:count], self._buffer[count:]
        return view

    def _fill(self) -> None:
        data = self._stream.read(_CHUNK)
        self._hash.update(data)
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise InvalidInput(f"the tar is larger than {self._limit} bytes")
        self._buffer = memoryview(data)

    def data(self) -> Iterator[memoryview]:
        """The data of the member at hand, in pieces."""
        while self._remaining:
            view = self._take(self._remaining)
            if not view:
                raise InvalidInput("the tar ends in the middle of a file")
            self._remaining -= len(view)
            yield view

    def skip(self) -> None:
        """Go to the end of the member at hand."""
        for _ in self.data():
            pass
        self._remaining, self._padding = self._padding, 0
        for _ in self.data():
            pass

    def finish(self) -> Digest:
        """Read to the end of the stream; the digest of all bytes."""
        self._buffer = memoryview(b"")
        before = -1
        while self.size != before:
            before = self.size
            self._fill()
        return Digest("sha256:" + self._hash.hexdigest())

    def _small(self, member: Member) -> bytes:
        return b"".join(self.data())

    def _long(self, member: Member) -> bytes:
        return self._small(member).partition(b"\0")[0]

    def _pax(self, member: Member) -> dict[bytes, bytes]:
        try:
            return sparse.gathered(pax_records(self._small(member)))
        except ValueError as error:
            raise InvalidInput(f"invalid PAX header in the tar: {error}") from error


def has_data(kind: bytes) -> bool:
    return kind not in (
        header.HARD_LINK, header.SYMLINK, header.CHARACTER, header.BLOCK_DEVICE, header.DIRECTORY, header.FIFO,
    )  # fmt: skip


def is_header(block: bytes) -> bool:
    """Whether a tar may begin with this block."""
    try:
        return len(block) == BLOCK and block != _ZEROS and bool(parse_header(block))
    except InvalidInput:
        return False


def parse_header(block: bytes) -> Member:
    try:
        checksum = _number(block[148:156])
        if checksum != sum(block[:148]) + sum(block[156:]) + 256:
            raise ValueError("checksum does not match")
        name, link, kind = _text(block[:100]), _text(block[157:257]), block[156:157]
        if block[257:263] == b"ustar\0" and block[345]:
            name = _text(block[345:500]) + b"/" + name
        if kind in _REGULARS:
            # Only the oldest tars say it so; in others the name may be the cut-off beginning of a long one.
            kind = header.DIRECTORY if kind == b"\0" and name.endswith(b"/") else header.REGULAR
        device = (0, 0)
        if kind in (header.CHARACTER, header.BLOCK_DEVICE):
            device = (_number(block[329:337]), _number(block[337:345]))
        return Member(
            name, kind, _number(block[100:108]), _number(block[108:116]), _number(block[116:124]),
            _number(block[124:136]), _number(block[136:148]) * 1_000_000_000, link, device,
        )  # fmt: skip
    except ValueError as error:
        raise InvalidInput(f"not a tar, or a damaged one: {error}") from error


def _text(field_bytes: bytes) -> bytes:
    return field_bytes.partition(b"\0")[0]


def _number(field_bytes: bytes) -> int:
    """Octal text, or GNU's base 256 with the top bit set."""
    if field_bytes[0] & 0x80:
        value = int.from_bytes(field_bytes, "big")
        bits = 8 * len(field_bytes)
        return value - (1 << bits) if field_bytes[0] == 0xFF else value & ~(0x80 << (bits - 8))
    return int(field_bytes.strip(b" \0") or b"0", 8)


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(data):
        blank = data.index(b" ", position, position + 20)
        length = int(data[position:blank])
        record = data[blank + 1 : position + length]
        if length <= blank + 1 - position or not record.endswith(b"\n") or b"=" not in record:
            raise ValueError("a record has a wrong length")
        key, _, value = record[:-1].partition(b"=")
        yield key, value
        position += length


def extend(member: Member, records: dict[bytes, bytes]) -> None:
    """Let the PAX records say what they say better than the header."""
    for key, value in records.items():
        if key.startswith(XATTR_PREFIX):
            member.xattrs[key.removeprefix(XATTR_PREFIX).decode("utf-8", "surrogateescape")] = value
        elif value and (setter := _SETTERS.get(key)):
            setter(member, value)
    if not has_data(member.kind):
        member.size = 0


def check_member(member: Member) -> None:
    """Refuse what the kernel has no room for."""
    if not (0 <= member.uid <= _LAST_ID and 0 <= member.gid <= _LAST_ID):
        raise ValueError(f"owner {member.uid}:{member.gid} is out of range")
    if abs(member.mtime_ns) >= _TIME_LIMIT or not all(0 <= part < 1 << 20 for part in member.device):
        raise ValueError("a time or device number is out of range")
    if member.size < 0 or b"\0" in member.name + member.link or any("\0" in name for name in member.xattrs):
        raise ValueError("a negative size, or a zero byte in a name")


def _nanoseconds(text: bytes) -> int:
    """Decimal seconds, maybe with a fraction and a sign, as whole nanoseconds."""
    whole, _, fraction = text.partition(b".")
    part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    return int(whole) * 1_000_000_000 + (-part if whole.startswith(b"-") else part)


def _set_name(member: Member, value: bytes) -> None:
    member.name = value


def _set_link(member: Member, value: bytes) -> None:
    member.link = value


def _set_uid(member: Member, value: bytes) -> None:
    member.uid = int(value)


def _set_gid(member: Member, value: bytes) -> None:
    member.gid = int(value)


def _set_size(member: Member, value: bytes) -> None:
    member.size = int(value)


def _set_mtime(member: Member, value: bytes) -> None:
    member.mtime_ns = _nanoseconds(value)


_SETTERS: dict[bytes, Callable[[Member, bytes], None]] = {
    b"path": _set_name,
    b"linkpath": _set_link,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"size": _set_size,
    b"mtime": _set_mtime,
}
