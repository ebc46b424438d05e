"""Google's protobuf library as the judge of our messages: classes made from our own tables."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from runtime.grpc.protobuf import BOOL, INT, RAW, TEXT, Kind, Message

_SCALARS = {TEXT: 9, RAW: 12, INT: 3, BOOL: 8}  # numbers of FieldDescriptorProto.Type


def foreign(kind: type[Message]) -> Any:
    """Google's class for one of our messages; its fields are called as ours."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{kind.__name__}.proto", package="t", syntax="proto3")
    known: dict[type[Message], str] = {}
    _add(file, kind, known)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{known[kind]}"))


def _add(file: Any, kind: type[Message], known: dict[type[Message], str]) -> str:
    if kind in known:
        return known[kind]
    known[kind] = name = f"M{len(known)}"
    own = file.message_type.add(name=name)
    for number, (field, described) in kind.table().items():
        if described.key:
            entry = own.nested_type.add(name="".join(w.title() for w in field.split("_")) + "Entry")
            entry.options.map_entry = True
            _field(file, entry, 1, "key", Kind(described.key), known)
            _field(file, entry, 2, "value", Kind(described.of), known)
            made = own.field.add(name=field, number=number, type=11, label=3)
            made.type_name = f".t.{name}.{entry.name}"
        else:
            _field(file, own, number, field, described, known)
    return name


def _field(file: Any, own: Any, number: int, name: str, kind: Kind, known: dict[type[Message], str]) -> None:
    made = own.field.add(name=name, number=number, label=3 if kind.many else 1)
    if isinstance(kind.of, str):
        made.type = _SCALARS[kind.of]
    else:
        made.type = 11
        made.type_name = f".t.{_add(file, kind.of, known)}"
