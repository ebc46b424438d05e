"""eStargz: a gzip layer whose files can be fetched one by one (stargz-snapshotter, docs/estargz.md).

Each file's data, in chunks of 4 MiB, is a gzip member of its own; behind the tar comes a table of contents as one more
tar entry, then a footer that says where. As in BuildKit the tar itself stays byte for byte what it was: the table lies
behind its end mark, so who unpacks the layer gets the files it had and no landmark. The diff_id covers the table, and is another.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
import time
import zlib
from collections.abc import Generator
from types import TracebackType
from typing import Any, BinaryIO

from registry_client.oci.digest import Digest
from runtime.cancel import Sink
from runtime.errors import InvalidInput, Unsupported
from runtime.store.layers import header, reader, sparse
from runtime.store.layers.compression import decompress, deflate_engine
from runtime.store.layers.gzmembers import GzipMembers

TOC_NAME = "stargz.index.json"
FOOTER_SIZE = 51
_FILE_CHUNK = 4 << 20
_TABLE_LIMIT = 1 << 30
_PIECE = 1 << 20
_ZEROS = bytes(header.BLOCK)
_TYPES = {
    header.REGULAR: "reg", header.HARD_LINK: "hardlink", header.SYMLINK: "symlink", header.CHARACTER: "char",
    header.BLOCK_DEVICE: "block", header.DIRECTORY: "dir", header.FIFO: "fifo",
}  # fmt: skip
_START, _END = b'{"version":1,"entries":[', b"]}"

Entry = dict[str, Any]
Parts = Generator[int, memoryview, None]  # asks for up to so many bytes and is sent some


class EStargz:
    """Write a tar into it, in a `with`; at its end `diff_id`, `size` (of the tar) and `toc_digest` are known.

    The table of a large layer waits in a file without a name in the directory `scratch`.
    """

    def __init__(self, out: Sink, scratch: str, level: int | None = None) -> None:
        # A level that was asked for is zlib's, as in plain gzip layers.
        engine, level = deflate_engine() if level is None else (zlib, level)
        self._out = out
        self._members = GzipMembers(out, engine, level)
        self._table: BinaryIO = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  closed by _end
        self._listed = 0
        self._hash = hashlib.sha256()
        self.size = 0
        self.toc_digest = self.diff_id = Digest("")
        self._between = True  # whether the tar may end here
        self._parts = self._read()
        self._wanted = next(self._parts)

    def write(self, data: bytes) -> int:
        self._count(data)
        view = memoryview(data)
        while view:
            piece, view = view[: self._wanted], view[self._wanted :]
            self._wanted = self._parts.send(piece)
        return len(data)

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> None:
        if not self._between:
            raise InvalidInput("the tar ends in the middle of an entry")
        self._members.start()
        offset = self._members.finish()
        self._write_table()
        self._members.finish()
        self._out.write(footer(offset))
        self.diff_id = Digest("sha256:" + self._hash.hexdigest())

    def _end(self) -> None:
        self._members.close()
        self._table.close()

    def __enter__(self) -> EStargz:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._end()

    # --- the tar --------------------------------------------------------------------------------------------------

    def _read(self) -> Parts:
        """Follow the tar, entry by entry, and hand all of it on."""
        own: dict[bytes, bytes] = {}
        for_all: dict[bytes, bytes] = {}
        while (block := (yield from self._block())) != _ZEROS:
            member = reader.parse_header(block)
            extension = yield from self._extension(member)
            if extension is None:
                records = for_all | own
                own = {}
                yield from self._entry(member, records)
            elif member.kind == reader.PAX_GLOBAL:
                for_all |= extension
            else:
                own |= extension
        self._between = True
        while True:
            self._members.add((yield _PIECE))

    def _block(self) -> Generator[int, memoryview, bytes]:
        self._between = True
        first = yield header.BLOCK
        self._between = False
        return (yield from self._exactly(header.BLOCK, first))

    def _exactly(self, size: int, got: bytes | memoryview = b"") -> Generator[int, memoryview, bytes]:
        data = bytes(got)
        while len(data) < size:
            data += yield size - len(data)
        self._members.add(data)
        return data

    def _extension(self, member: reader.Member) -> Generator[int, memoryview, dict[bytes, bytes] | None]:
        """What a header that is none of a file says of the next ones; None for that of a file."""
        if member.kind not in (reader.PAX, reader.PAX_GLOBAL, reader.GNU_NAME, reader.GNU_LINK):
            return None
        if member.size > reader.EXTENSION_LIMIT:
            raise InvalidInput(f"a tar header of {member.size} bytes is too large")
        data = (yield from self._exactly(member.size + -member.size % header.BLOCK))[: member.size]
        if member.kind in (reader.PAX, reader.PAX_GLOBAL):
            try:
                return sparse.gathered(reader.pax_records(data))
            except ValueError as error:
                raise InvalidInput(f"invalid PAX header in the tar: {error}") from error
        name = b"path" if member.kind == reader.GNU_NAME else b"linkpath"
        return {name: data.partition(b"\0")[0]}

    def _entry(self, member: reader.Member, records: dict[bytes, bytes]) -> Parts:
        try:
            reader.extend(member, records)
            reader.check_member(member)
        except ValueError as error:
            raise InvalidInput(f"invalid header in the tar: {error}") from error
        if member.kind not in _TYPES or sparse.is_sparse(records):
            raise Unsupported(
                f"estargz: {_text(member.name)!r} is of a kind its table does not know",
                hint="use compression=gzip",
            )
        if member.name.strip(b"./") == TOC_NAME.encode():
            raise Unsupported(f"estargz: the layer has a file {TOC_NAME}", hint="use compression=gzip")
        entry = _entry(member)
        if member.kind != header.REGULAR:
            self._list([entry])
        elif not member.size:
            self._list([entry | {"digest": _digest(hashlib.sha256())}])
        else:
            yield from self._content(member, entry)

    def _content(self, member: reader.Member, entry: Entry) -> Parts:
        """A file's data, each chunk in a gzip member of its own. What follows it in the tar is in the last one's."""
        whole = hashlib.sha256()
        entries: list[Entry] = []
        chunked = member.size > _FILE_CHUNK
        for start in range(0, member.size, _FILE_CHUNK):
            size = min(_FILE_CHUNK, member.size - start)
            chunk: Entry = {"name": entry["name"], "type": "chunk"} if start else entry
            entries.append(chunk)
            self._members.start()
            self._members.then(lambda offset, chunk=chunk: chunk.update(offset=offset))  # type: ignore[misc]
            part = hashlib.sha256() if chunked else whole
            left = size
            while left:
                piece = yield left
                left -= len(piece)
                self._members.add(piece)
                part.update(piece)
                if chunked:
                    whole.update(piece)
            if start:
                chunk["chunkOffset"] = start
            if start + size < member.size:
                chunk["chunkSize"] = size
            chunk["chunkDigest"] = _digest(part)
        entry["digest"] = _digest(whole)
        self._list(entries)
        if padding := -member.size % header.BLOCK:
            yield from self._exactly(padding)

    # --- the table of contents ------------------------------------------------------------------------------------

    def _list(self, entries: list[Entry]) -> None:
        """Have them in the table as soon as their offsets are known."""
        self._members.then(lambda _: self._put(entries))

    def _put(self, entries: list[Entry]) -> None:
        for entry in entries:
            if self._listed:
                self._table.write(b",")
            self._listed += 1
            self._table.write(json.dumps(entry, separators=(",", ":")).encode())

    def _write_table(self) -> None:
        size = self._table.tell() + len(_START) + len(_END)
        self._table.seek(0)
        digest = hashlib.sha256()
        self._add(header.header(TOC_NAME.encode(), header.REGULAR, mode=0, size=size))
        for data in (_START, *iter(lambda: self._table.read(_PIECE), b""), _END):
            digest.update(data)
            self._add(data)
        self._add(header.padding(size) + 2 * _ZEROS)
        self.toc_digest = Digest("sha256:" + digest.hexdigest())

    def _add(self, data: bytes) -> None:
        self._count(data)
        self._members.add(data)


def _entry(member: reader.Member) -> Entry:
    """What the table says of any entry; zeros and empty values are left out, as BuildKit does."""
    entry = {
        "name": _text(member.name),
        "type": _TYPES[member.kind],
        "size": member.size if member.kind == header.REGULAR else 0,
        "modtime": _time(member.mtime_ns),
        "linkName": _text(member.link) if member.kind in (header.SYMLINK, header.HARD_LINK) else "",
        "mode": member.mode,
        "uid": member.uid,
        "gid": member.gid,
        "devMajor": member.device[0],
        "devMinor": member.device[1],
        "xattrs": {name: base64.b64encode(value).decode() for name, value in member.xattrs.items()},
    }
    return {name: value for name, value in entry.items() if value}


def _text(name: bytes) -> str:
    """JSON has no other bytes than UTF-8's."""
    return name.decode("utf-8", "replace")


def _time(mtime_ns: int) -> str:
    """The nearest second; nothing for the epoch, which means unknown there."""
    seconds = (mtime_ns + 500_000_000) // 1_000_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""


def _digest(hashed: hashlib._Hash) -> str:
    return "sha256:" + hashed.hexdigest()


def footer(offset: int) -> bytes:
    """An empty gzip member that says where the table's begins, in a stored block: so it always has 51 bytes."""
    said = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % offset
    start = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff" + len(said).to_bytes(2, "little")
    return start + said + b"\x01\x00\x00\xff\xff" + bytes(8)


def table_offset(end: bytes) -> int | None:
    """Where the table begins, by the last bytes of a blob; None if it is no eStargz."""
    last = end[-FOOTER_SIZE:]
    if (
        len(last) < FOOTER_SIZE
        or last[:4] != b"\x1f\x8b\x08\x04"
        or last[12:14] != b"SG"
        or last[32:38] != b"STARGZ"
    ):
        return None
    try:
        return int(last[16:32], 16)
    except ValueError:
        return None


def table_digest(stream: BinaryIO) -> str:
    """The digest of the table that begins here, for its annotation; "" if there is none."""
    try:
        entries = reader.TarReader(decompress(stream), limit=_TABLE_LIMIT)
        for member in entries:
            if member.name != TOC_NAME.encode():
                return ""
            found = hashlib.sha256()
            for piece in entries.data():
                found.update(piece)
            return _digest(found)
    except InvalidInput:
        return ""
    return ""
