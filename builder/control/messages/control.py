"""moby.buildkit.v1.Control."""

from __future__ import annotations

from dataclasses import dataclass

from builder.control.messages.common import (
    CacheEntry,
    Definition,
    Range,
    SourceInfo,
    Timestamp,
    Version,
    Worker,
)
from runtime.grpc.protobuf import RAW, TEXT, Message, integer, many, mapping, raw, sub, text, truth
from runtime.grpc.status import Status


@dataclass(slots=True)
class Exporter(Message):
    type: str = text(1)
    attrs: dict[str, str] = mapping(2, TEXT)


@dataclass(slots=True)
class CacheOptions(Message):
    exports: list[CacheEntry] = many(4, lambda: CacheEntry)
    imports: list[CacheEntry] = many(5, lambda: CacheEntry)


@dataclass(slots=True)
class SolveRequest(Message):
    """`exporters` came with 0.13; clients before name one in `exporter`."""

    ref: str = text(1)
    definition: Definition | None = sub(2, lambda: Definition)
    exporter: str = text(3)
    exporter_attrs: dict[str, str] = mapping(4, TEXT)
    session: str = text(5)
    frontend: str = text(6)
    frontend_attrs: dict[str, str] = mapping(7, TEXT)
    cache: CacheOptions | None = sub(8, lambda: CacheOptions)
    entitlements: list[str] = many(9, TEXT)
    frontend_inputs: dict[str, Definition] = mapping(10, lambda: Definition)
    internal: bool = truth(11)
    source_policy: bytes = raw(12)
    exporters: list[Exporter] = many(13, lambda: Exporter)


@dataclass(slots=True)
class SolveResponse(Message):
    exporter_response: dict[str, str] = mapping(1, TEXT)


@dataclass(slots=True)
class StatusRequest(Message):
    ref: str = text(1)


@dataclass(slots=True)
class Vertex(Message):
    digest: str = text(1)
    inputs: list[str] = many(2, TEXT)
    name: str = text(3)
    cached: bool = truth(4)
    started: Timestamp | None = sub(5, lambda: Timestamp)
    completed: Timestamp | None = sub(6, lambda: Timestamp)
    error: str = text(7)


@dataclass(slots=True)
class VertexStatus(Message):
    id: str = text(1)
    vertex: str = text(2)
    name: str = text(3)
    current: int = integer(4)
    total: int = integer(5)
    timestamp: Timestamp | None = sub(6, lambda: Timestamp)
    started: Timestamp | None = sub(7, lambda: Timestamp)
    completed: Timestamp | None = sub(8, lambda: Timestamp)


@dataclass(slots=True)
class VertexLog(Message):
    vertex: str = text(1)
    timestamp: Timestamp | None = sub(2, lambda: Timestamp)
    stream: int = integer(3)
    data: bytes = raw(4)


@dataclass(slots=True)
class VertexWarning(Message):
    vertex: str = text(1)
    level: int = integer(2)
    short: bytes = raw(3)
    detail: list[bytes] = many(4, RAW)
    url: str = text(5)
    info: SourceInfo | None = sub(6, lambda: SourceInfo)
    ranges: list[Range] = many(7, lambda: Range)


@dataclass(slots=True)
class StatusResponse(Message):
    vertexes: list[Vertex] = many(1, lambda: Vertex)
    statuses: list[VertexStatus] = many(2, lambda: VertexStatus)
    logs: list[VertexLog] = many(3, lambda: VertexLog)
    warnings: list[VertexWarning] = many(4, lambda: VertexWarning)


@dataclass(slots=True)
class ListWorkersResponse(Message):
    workers: list[Worker] = many(1, lambda: Worker)


@dataclass(slots=True)
class InfoResponse(Message):
    version: Version | None = sub(1, lambda: Version)


@dataclass(slots=True)
class UsageRecord(Message):
    """Sizes in bytes."""

    id: str = text(1)
    mutable: bool = truth(2)
    in_use: bool = truth(3)
    size: int = integer(4)
    created: Timestamp | None = sub(6, lambda: Timestamp)
    used: Timestamp | None = sub(7, lambda: Timestamp)
    uses: int = integer(8)
    description: str = text(9)
    type: str = text(10)
    shared: bool = truth(11)
    parents: list[str] = many(12, TEXT)


@dataclass(slots=True)
class DiskUsageRequest(Message):
    filters: list[str] = many(1, TEXT)


@dataclass(slots=True)
class DiskUsageResponse(Message):
    records: list[UsageRecord] = many(1, lambda: UsageRecord)


@dataclass(slots=True)
class PruneRequest(Message):
    """`keep_duration` is nanoseconds; the sizes are bytes."""

    filters: list[str] = many(1, TEXT)
    all: bool = truth(2)
    keep_duration: int = integer(3)
    reserved_space: int = integer(4)
    max_used_space: int = integer(5)
    min_free_space: int = integer(6)


@dataclass(slots=True)
class HealthResponse(Message):
    """grpc.health.v1; 1 is serving."""

    status: int = integer(1)


@dataclass(slots=True)
class Descriptor(Message):
    media_type: str = text(1)
    digest: str = text(2)
    size: int = integer(3)
    annotations: dict[str, str] = mapping(5, TEXT)


@dataclass(slots=True)
class ResultInfo(Message):
    attestations: list[Descriptor] = many(2, lambda: Descriptor)


@dataclass(slots=True)
class HistoryRecord(Message):
    """A build that ended. One platform has its `result`, several have theirs by name."""

    ref: str = text(1)
    frontend: str = text(2)
    frontend_attrs: dict[str, str] = mapping(3, TEXT)
    exporters: list[Exporter] = many(4, lambda: Exporter)
    error: Status | None = sub(5, lambda: Status)
    created: Timestamp | None = sub(6, lambda: Timestamp)
    completed: Timestamp | None = sub(7, lambda: Timestamp)
    exporter_response: dict[str, str] = mapping(9, TEXT)
    result: ResultInfo | None = sub(10, lambda: ResultInfo)
    results: dict[str, ResultInfo] = mapping(11, lambda: ResultInfo)
    generation: int = integer(12)
    cached_steps: int = integer(15)
    total_steps: int = integer(16)
    completed_steps: int = integer(17)
    warnings: int = integer(19)


@dataclass(slots=True)
class HistoryEvent(Message):
    type: int = integer(1)
    record: HistoryRecord | None = sub(2, lambda: HistoryRecord)


@dataclass(slots=True)
class HistoryRequest(Message):
    """`early_exit`: only what is known now."""

    active_only: bool = truth(1)
    ref: str = text(2)
    early_exit: bool = truth(3)


@dataclass(slots=True)
class HistoryUpdate(Message):
    ref: str = text(1)
    pinned: bool = truth(2)
    delete: bool = truth(3)
