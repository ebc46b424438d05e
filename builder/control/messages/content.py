"""containerd.services.content.v1.Content: blobs by digest, a client's or (of a build's history) ours."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.grpc.protobuf import Message, integer, raw, sub, text

STAT, WRITE, COMMIT = 0, 1, 2  # WriteAction


@dataclass(slots=True)
class Info(Message):
    digest: str = text(1)
    size: int = integer(2)


@dataclass(slots=True)
class InfoRequest(Message):
    digest: str = text(1)


@dataclass(slots=True)
class InfoResponse(Message):
    info: Info | None = sub(1, lambda: Info)


@dataclass(slots=True)
class ReadRequest(Message):
    """A `size` of 0 is all there is."""

    digest: str = text(1)
    offset: int = integer(2)
    size: int = integer(3)


@dataclass(slots=True)
class ReadResponse(Message):
    offset: int = integer(1)
    data: bytes = raw(2)


@dataclass(slots=True)
class WriteRequest(Message):
    """`ref` names an upload until it is committed."""

    action: int = integer(1)
    ref: str = text(2)
    total: int = integer(3)
    expected: str = text(4)
    offset: int = integer(5)
    data: bytes = raw(6)


@dataclass(slots=True)
class WriteResponse(Message):
    action: int = integer(1)
    offset: int = integer(4)
    total: int = integer(5)
    digest: str = text(6)
