"""The headers in rpm's databases that are no SQLite: Berkeley DB's hash files (`Packages`) and rpm's own ndb (`Packages.db`).

Written down in Berkeley DB's dbinc/db_page.h and rpm's lib/backend/ndb/rpmpkg.c. Both readers yield a header at a time, follow
no offset out of the file, and end on any file: ValueError says what is wrong with it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

HEADER_LIMIT = 64 << 20  # bytes of one package's header
_READ_LIMIT = 1 << 30  # bytes of one file, read again as often as it says


class _File:
    """Pieces of a file, each whole or a ValueError."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        self._left = _READ_LIMIT

    def at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset) if offset + length <= self.size else b""
        if len(data) < length:
            raise ValueError(f"it ends before byte {offset + length}")
        self._left -= length
        if self._left < 0:
            raise ValueError(f"its parts are more than {_READ_LIMIT >> 20} MiB")
        return data


# --- ndb ----------------------------------------------------------------------------------------------------------

_NDB_MAGIC, _SLOT_MAGIC, _BLOB_MAGIC = b"RpmP", b"Slot", b"BlbS"
_NDB_HEADER, _SLOT_PAGE, _SLOT, _BLOCK = 32, 4096, 16, 16  # bytes
_SLOT_PAGES_LIMIT = 4096  # a million packages


def ndb_headers(path: str) -> Iterator[bytes]:
    """The slots at the beginning say where each package's header lies."""
    with open(path, "rb") as opened:
        file = _File(opened)
        magic, version, _generation, pages = struct.unpack("<4sIII", file.at(0, 16))
        if magic != _NDB_MAGIC or version != 0 or not 0 < pages <= _SLOT_PAGES_LIMIT:
            raise ValueError("it does not begin like an ndb file")
        slots = file.at(0, pages * _SLOT_PAGE)
        for offset in range(_NDB_HEADER, len(slots), _SLOT):
            slot, package, block, count = struct.unpack_from("<4sIII", slots, offset)
            if slot != _SLOT_MAGIC:
                raise ValueError(f"there is no slot at byte {offset}")
            if package and block:
                yield _ndb_blob(file, package, block * _BLOCK, count * _BLOCK)


def _ndb_blob(file: _File, package: int, offset: int, room: int) -> bytes:
    """Between a head of 16 bytes and a tail of 12."""
    magic, number, _generation, length = struct.unpack("<4sIII", file.at(offset, 16))
    if magic != _BLOB_MAGIC or number != package or length + 28 > room or length > HEADER_LIMIT:
        raise ValueError(f"package {package} is not where its slot says")
    return file.at(offset + 16, length)


# --- Berkeley DB --------------------------------------------------------------------------------------------------

_HASH_MAGIC = 0x061561
_PAGE_HEADER = 26  # bytes: lsn, number, previous, next, entries, high-water mark, level, type
_HASH_PAGES = (2, 13)  # unsorted, as before Berkeley DB 4.6, and sorted
_OVERFLOW_PAGE = 7
_INLINE, _OFF_PAGE = 1, 3  # types of an item
_PAGES_LIMIT = 1 << 22
_KEY = 4  # bytes: a package's number


def bdb_headers(path: str) -> Iterator[bytes]:
    """The values of all hash pages; a large one lies on a chain of pages of its own."""
    with open(path, "rb") as opened:
        reader = _Pages(_File(opened))
        yield from reader.values()


class _Pages:
    def __init__(self, file: _File) -> None:
        head = file.at(0, 72)
        self._order = next((o for o in "<>" if struct.unpack_from(f"{o}I", head, 12)[0] == _HASH_MAGIC), "")
        if not self._order:
            raise ValueError("it does not begin like a hash file of Berkeley DB")
        self._file = file
        self._size = self._number(head, 20)
        self._last = self._number(head, 32)
        if self._size not in (1 << n for n in range(9, 17)) or self._last > _PAGES_LIMIT:
            raise ValueError(f"it has {self._last} pages of {self._size} bytes")

    def _number(self, data: bytes, offset: int) -> int:
        return int(struct.unpack_from(f"{self._order}I", data, offset)[0])

    def _short(self, data: bytes, offset: int) -> int:
        return int(struct.unpack_from(f"{self._order}H", data, offset)[0])

    def _page(self, number: int) -> bytes:
        if not 0 < number <= self._last:
            raise ValueError(f"there is no page {number}")
        return self._file.at(number * self._size, self._size)

    def values(self) -> Iterator[bytes]:
        for number in range(1, self._last + 1):
            page = self._page(number)
            if page[25] in _HASH_PAGES:
                items = list(self._items(page))
                for key, value in zip(items[::2], items[1::2]):
                    # The key 0 holds the number of the package to come.
                    if len(key) == 1 + _KEY and any(key[1:]) and (data := self._data(value)) is not None:
                        yield data

    def _items(self, page: bytes) -> Iterator[bytes]:
        """Keys and values in turn: offsets grow behind the header, items from the page's end downwards."""
        end = self._size
        for entry in range(min(self._short(page, 20), (self._size - _PAGE_HEADER) // 2)):
            start = self._short(page, _PAGE_HEADER + 2 * entry)
            if not _PAGE_HEADER <= start < end:
                raise ValueError("the items of a page overlap")
            yield page[start:end]
            end = start

    def _data(self, item: bytes) -> bytes | None:
        if item[0] == _INLINE:
            return item[1:]
        if item[0] != _OFF_PAGE or len(item) < 12:
            return None
        number, length = self._number(item, 4), self._number(item, 8)
        if length > HEADER_LIMIT:
            raise ValueError(f"a header of {length} bytes")
        found = bytearray()
        while len(found) < length:
            page = self._page(number)
            piece = page[_PAGE_HEADER : _PAGE_HEADER + self._short(page, 22)]
            if page[25] != _OVERFLOW_PAGE or not piece:
                raise ValueError(f"page {number} is not what a long value goes on with")
            found += piece
            number = self._number(page, 16)
        return bytes(found[:length])
