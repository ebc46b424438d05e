"""moby.buildkit.v1.frontend.LLBBridge: what a client's own build function asks for."""

from __future__ import annotations

from dataclasses import dataclass

from builder.control.messages.common import CacheEntry, Capability, Definition, Worker
from runtime.grpc.protobuf import RAW, TEXT, Message, many, mapping, sub, text, truth
from runtime.grpc.status import Status


@dataclass(slots=True)
class Ref(Message):
    """A result that may be asked about."""

    id: str = text(1)
    definition: Definition | None = sub(2, lambda: Definition)


@dataclass(slots=True)
class RefMap(Message):
    refs: dict[str, Ref] = mapping(1, lambda: Ref)


@dataclass(slots=True)
class Result(Message):
    """One of `ref` and `refs`, or neither: then only `metadata` was asked for."""

    ref: Ref | None = sub(3, lambda: Ref)
    refs: RefMap | None = sub(4, lambda: RefMap)
    metadata: dict[str, bytes] = mapping(10, RAW)


@dataclass(slots=True)
class SolveRequest(Message):
    definition: Definition | None = sub(1, lambda: Definition)
    frontend: str = text(2)
    options: dict[str, str] = mapping(3, TEXT)
    allow_result: bool = truth(5)
    cache_imports: list[CacheEntry] = many(12, lambda: CacheEntry)
    inputs: dict[str, Definition] = mapping(13, lambda: Definition)
    evaluate: bool = truth(14)


@dataclass(slots=True)
class SolveResponse(Message):
    ref: str = text(1)
    result: Result | None = sub(3, lambda: Result)


@dataclass(slots=True)
class ReturnRequest(Message):
    result: Result | None = sub(1, lambda: Result)
    error: Status | None = sub(2, lambda: Status)


@dataclass(slots=True)
class Pong(Message):
    frontend: list[Capability] = many(1, lambda: Capability)
    llb: list[Capability] = many(2, lambda: Capability)
    workers: list[Worker] = many(3, lambda: Worker)


@dataclass(slots=True)
class EvaluateRequest(Message):
    ref: str = text(1)


@dataclass(slots=True)
class InputsResponse(Message):
    definitions: dict[str, Definition] = mapping(1, lambda: Definition)
