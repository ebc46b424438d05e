"""What several services share: moments, places in a source, platforms, definitions (which stay closed to us)."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.grpc.protobuf import RAW, TEXT, Message, integer, many, mapping, raw, sub, text, truth
from runtime.spans import Span


@dataclass(slots=True)
class Empty(Message):
    """A message nothing is said in."""


@dataclass(slots=True)
class Bytes(Message):
    """`BytesMessage` of several services: a piece of a stream."""

    data: bytes = raw(1)


@dataclass(slots=True)
class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: int = integer(1)
    nanos: int = integer(2)

    @classmethod
    def of(cls, seconds: float) -> Timestamp:
        nanos = round(seconds * 10**9)
        return cls(nanos // 10**9, nanos % 10**9)


@dataclass(slots=True)
class Position(Message):
    """pb.Position; lines count from 1."""

    line: int = integer(1)
    character: int = integer(2)


@dataclass(slots=True)
class Range(Message):
    """pb.Range."""

    start: Position | None = sub(1, lambda: Position)
    end: Position | None = sub(2, lambda: Position)

    @classmethod
    def of(cls, span: Span) -> Range:
        return cls(Position(span.line), Position(span.last_line))


@dataclass(slots=True)
class SourceInfo(Message):
    """pb.SourceInfo."""

    filename: str = text(1)
    data: bytes = raw(2)
    language: str = text(4)

    @classmethod
    def of(cls, span: Span) -> SourceInfo:
        data = span.source.text.encode("utf-8", "surrogateescape")
        return cls(span.source.name, data, "Dockerfile")


@dataclass(slots=True)
class Platform(Message):
    """pb.Platform."""

    architecture: str = text(1)
    os: str = text(2)
    variant: str = text(3)


@dataclass(slots=True)
class Definition(Message):
    """pb.Definition: a graph of LLB. What we give out as one only says which build it stands for."""

    nodes: list[bytes] = many(1, RAW)
    metadata: dict[str, Empty] = mapping(
        2, lambda: Empty
    )  # by a node's digest; without any, clients see nothing at all


@dataclass(slots=True)
class CacheEntry(Message):
    """A place of a build cache: registry, local, inline… and its attributes."""

    type: str = text(1)
    attrs: dict[str, str] = mapping(2, TEXT)


@dataclass(slots=True)
class Version(Message):
    """BuildkitVersion."""

    package: str = text(1)
    version: str = text(2)
    revision: str = text(3)


@dataclass(slots=True)
class Worker(Message):
    """WorkerRecord."""

    id: str = text(1)
    labels: dict[str, str] = mapping(2, TEXT)
    platforms: list[Platform] = many(3, lambda: Platform)
    version: Version | None = sub(5, lambda: Version)


@dataclass(slots=True)
class Capability(Message):
    """APICap."""

    id: str = text(1)
    enabled: bool = truth(2)


def capabilities(names: tuple[str, ...]) -> list[Capability]:
    return [Capability(name, True) for name in names]
