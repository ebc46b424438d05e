"""Where the data of a sparse tar member goes (GNU tar manual, "Storing Sparse Files"): the old header and PAX 0.0 to 1.0.

Pure: texts and blocks in, a map out. The map has offset, length, offset, length … in the order of the data; a million pieces
are 16 MiB.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

Map = array  # of the type "q"
PIECES_LIMIT = 1_000_000

OFFSET, LENGTH, MAP = b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.map"
_NAME, _SIZE, _REAL_SIZE, _MAJOR = (
    b"GNU.sparse.name",
    b"GNU.sparse.size",
    b"GNU.sparse.realsize",
    b"GNU.sparse.major",
)
_ENTRY = 24
_FIRST_ENTRIES = 4
_MORE_ENTRIES = 21


def gathered(records: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """PAX records by key. Version 0.0 repeats two keys per piece: they become one map, as 0.1 writes it."""
    found: dict[bytes, bytes] = {}
    pieces = []
    for key, value in records:
        if key in (OFFSET, LENGTH):
            pieces.append(value)
        else:
            found[key] = value
    if pieces:
        found[MAP] = b",".join(pieces)
    return found


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    return MAP in records or _MAJOR in records


def map_is_in_data(records: Mapping[bytes, bytes]) -> bool:
    """Version 1.0 keeps the map in front of the data."""
    return records.get(_MAJOR) == b"1"


def name_of(records: Mapping[bytes, bytes]) -> bytes | None:
    """The member's own name; the header then has a made-up one."""
    return records.get(_NAME)


def real_size(records: Mapping[bytes, bytes]) -> int:
    return int(records.get(_REAL_SIZE) or records.get(_SIZE) or b"-1")


def pairs(pieces: Map[int]) -> Iterator[tuple[int, int]]:
    """Offset and length of each piece."""
    return zip(islice(pieces, 0, None, 2), islice(pieces, 1, None, 2))


def parse_list(numbers: Iterable[bytes]) -> Map[int]:
    """`offset, length, offset, length …` as decimal texts."""
    values: Map[int] = array("q")
    for number in numbers:
        values.append(_in_range(int(number)))
        if len(values) > 2 * PIECES_LIMIT:
            raise ValueError(f"a sparse map has more than {PIECES_LIMIT} pieces")
    if len(values) % 2:
        raise ValueError("a sparse map has an odd number of values")
    return values


def split(text: bytes) -> Iterator[bytes]:
    """What is between commas; without a list of it all, which would be ten times as large."""
    begin = 0
    while (end := text.find(b",", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def parse_header(block: bytes) -> tuple[Map[int], bool, int]:
    """The map of an old GNU header, whether more of it follows, and the real size."""
    return _entries(block[386:], _FIRST_ENTRIES), block[482] != 0, _number(block[483:495])


def parse_continuation(block: bytes) -> tuple[Map[int], bool]:
    """A further block of an old GNU map."""
    return _entries(block, _MORE_ENTRIES), block[504] != 0


def _entries(data: bytes, count: int) -> Map[int]:
    found: Map[int] = array("q")
    for at in range(0, count * _ENTRY, _ENTRY):
        if not data[at : at + _ENTRY].strip(b"\0 "):
            break
        found.append(_in_range(_number(data[at : at + 12])))
        found.append(_in_range(_number(data[at + 12 : at + 24])))
    return found


def _in_range(value: int) -> int:
    """A file has no place for more than that."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a sparse map has the value {value}")
    return value


def _number(text: bytes) -> int:
    if text[0] & 0x80:
        return int.from_bytes(text[1:], "big")
    return int(text.strip(b" \0") or b"0", 8)


def check(pieces: Map[int], data_size: int, size: int) -> None:
    """The pieces must be in order, fit into the file and use up the data."""
    end = 0
    for offset, length in pairs(pieces):
        if offset < end:
            raise ValueError("a sparse map is out of order")
        end = offset + length
    if end > size or sum(islice(pieces, 1, None, 2)) != data_size:
        raise ValueError("a sparse map does not fit its file")
