"""Messages in the protobuf encoding (proto3): a dataclass whose fields name their numbers.

    @dataclass(slots=True)
    class Exporter(Message):
        type: str = text(1)
        attrs: dict[str, str] = mapping(2, TEXT)

Only what the services we speak need: strings, bytes, integers, truths, messages, lists and maps of them. Fields nobody
named are skipped, as the encoding wants it. Google's library does the same with generated code, which would be ten times
this and has to be generated again for each of its versions; in the tests it judges every message (ARCHITECTURE.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar, cast

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NUMBER = "number"
_DEEPEST = 64  # messages within messages; more is an attack

TEXT, RAW, INT, BOOL = "text", "bytes", "int", "bool"


class DecodeError(ValueError):
    """What was received is no such message."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field is written. `of` is a scalar's name or the class of a message."""

    of: Any
    many: bool = False
    key: str = ""  # a map's keys


def _described(number: int, kind: Kind, default: Any) -> Any:
    described = {_NUMBER: number, "kind": kind}
    if callable(default):
        return field(default_factory=default, metadata=described)
    return field(default=default, metadata=described)


def text(number: int) -> str:
    """A string."""
    return cast(str, _described(number, Kind(TEXT), ""))


def raw(number: int) -> bytes:
    """Bytes."""
    return cast(bytes, _described(number, Kind(RAW), b""))


def integer(number: int) -> int:
    """int32, int64, uint32, uint64 or an enum: all are written alike."""
    return cast(int, _described(number, Kind(INT), 0))


def truth(number: int) -> bool:
    """A bool."""
    return cast(bool, _described(number, Kind(BOOL), False))


def sub(number: int, of: Callable[[], type[M]]) -> M | None:
    """A message; None when it is not there. Given as a function, since it may be the class being defined."""
    return cast("M | None", _described(number, Kind(of), None))


def many(number: int, of: str | Callable[[], type[M]]) -> list[Any]:
    """A repeated field."""
    return cast("list[Any]", _described(number, Kind(of, many=True), list))


def mapping(number: int, of: str | Callable[[], type[M]], key: str = TEXT) -> dict[Any, Any]:
    """A map."""
    return cast("dict[Any, Any]", _described(number, Kind(of, key=key), dict))


class Message:
    """What all messages have. Subclasses are dataclasses with slots."""

    __slots__ = ()
    _tables: ClassVar[dict[type[Message], dict[int, tuple[str, Kind]]]] = {}

    @classmethod
    def table(cls) -> dict[int, tuple[str, Kind]]:
        """Its fields: number to name and kind."""
        known = Message._tables.get(cls)
        if known is None:
            known = {
                each.metadata[_NUMBER]: (each.name, _resolved(each.metadata["kind"]))
                for each in fields(cast(Any, cls))
            }
            Message._tables[cls] = known
        return known

    def encode(self) -> bytes:
        out = bytearray()
        for number, (name, kind) in self.table().items():
            value = getattr(self, name)
            if value or (value is not None and not kind.many and not kind.key and isinstance(kind.of, type)):
                _write_field(out, number, kind, value)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """The message in `data`; DecodeError if it is none."""
        return cls._decode(memoryview(data), 0)

    @classmethod
    def _decode(cls, data: memoryview, depth: int) -> Self:
        if depth > _DEEPEST:
            raise DecodeError("messages are nested too deep")
        made, table, at = cls(), cls.table(), 0
        while at < len(data):
            tag, at = _varint(data, at)
            number, wire = tag >> 3, tag & 7
            value, at = _wire_value(data, at, wire)
            known = table.get(number)
            if known is not None:
                _take(made, known[0], known[1], wire, value, depth)
        return made


M = TypeVar("M", bound=Message)


def _resolved(kind: Kind) -> Kind:
    return kind if isinstance(kind.of, str) else Kind(kind.of(), kind.many, kind.key)


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_field(out: bytearray, number: int, kind: Kind, value: Any) -> None:
    if kind.key:
        for key, item in value.items():
            entry = bytearray()
            _write_one(entry, 1, kind.key, key)
            _write_one(entry, 2, kind.of, item)
            _write_bytes(out, number, entry)
    elif kind.many and kind.of in (INT, BOOL):
        packed = bytearray()
        for item in value:
            _write_varint(packed, int(item))
        _write_bytes(out, number, packed)
    elif kind.many:
        for item in value:
            _write_one(out, number, kind.of, item)
    else:
        _write_one(out, number, kind.of, value)


def _write_one(out: bytearray, number: int, of: Any, value: Any) -> None:
    if of == TEXT:
        _write_bytes(out, number, value.encode("utf-8", "replace"))
    elif of == RAW:
        _write_bytes(out, number, value)
    elif of in (INT, BOOL):
        _write_varint(out, number << 3 | _VARINT)
        _write_varint(out, int(value))
    else:
        _write_bytes(out, number, value.encode())


def _write_bytes(out: bytearray, number: int, data: bytes | bytearray) -> None:
    _write_varint(out, number << 3 | _BYTES)
    _write_varint(out, len(data))
    out += data


def _write_varint(out: bytearray, value: int) -> None:
    value &= (1 << 64) - 1  # a negative number is its two's complement in 64 bits
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


# --- reading ----------------------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1  # most are small
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise DecodeError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise DecodeError("a number has more than 64 bits")


def _wire_value(data: memoryview, at: int, wire: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return _varint(data, at)
    if wire == _BYTES:
        size, at = _varint(data, at)
    elif wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    else:
        raise DecodeError(f"unknown wire type {wire}")
    if at + size > len(data):
        raise DecodeError(f"a field of {size} bytes is cut off")
    return data[at : at + size], at + size


def _take(made: Message, name: str, kind: Kind, wire: int, value: Any, depth: int) -> None:
    if kind.key:
        key, item = _entry(kind, value, wire, depth)
        getattr(made, name)[key] = item
    elif kind.many:
        items = getattr(made, name)
        if wire == _BYTES and kind.of in (INT, BOOL):
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                items.append(_read_one(kind.of, _VARINT, number, depth))
        else:
            items.append(_read_one(kind.of, wire, value, depth))
    else:
        setattr(made, name, _read_one(kind.of, wire, value, depth))


def _entry(kind: Kind, data: Any, wire: int, depth: int) -> tuple[Any, Any]:
    if wire != _BYTES:
        raise DecodeError(f"a map has wire type {wire}")
    parts: list[Any] = [_empty(kind.key), _empty(kind.of)]
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _wire_value(data, at, tag & 7)
        if tag >> 3 in (1, 2):
            parts[(tag >> 3) - 1] = _read_one((kind.key, kind.of)[(tag >> 3) - 1], tag & 7, value, depth)
    return parts[0], parts[1]


def _empty(of: Any) -> Any:
    return {TEXT: "", RAW: b"", INT: 0, BOOL: False}[of] if isinstance(of, str) else of()


def _read_one(of: Any, wire: int, value: Any, depth: int) -> Any:
    if of in (INT, BOOL):
        if wire != _VARINT:
            raise DecodeError(f"a number has wire type {wire}")
        if of == BOOL:
            return bool(value)
        return value - (1 << 64) if value >> 63 else value
    if wire != _BYTES:
        raise DecodeError(f"a field of bytes has wire type {wire}")
    if of == RAW:
        return bytes(value)
    if of == TEXT:
        return bytes(value).decode("utf-8", "replace")
    return of._decode(value, depth + 1)
