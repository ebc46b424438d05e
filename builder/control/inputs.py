"""A result of one build as an input of another (bake's `contexts = {x = "target:y"}`).

Clients hand results on as definitions of LLB. Ours has one source, whose identifier names the result, and the end node
every definition has; that is all clients look for, and all we look for when it comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.control.messages.common import Definition, Empty
from registry_client.oci.digest import digest_of
from runtime.grpc.protobuf import DecodeError, Message, integer, many, sub, text

_SCHEME = "pipe-result://"


@dataclass(slots=True)
class _Input(Message):
    """pb.Input."""

    digest: str = text(1)
    index: int = integer(2)


@dataclass(slots=True)
class _SourceOp(Message):
    """pb.SourceOp."""

    identifier: str = text(1)


@dataclass(slots=True)
class _Op(Message):
    """pb.Op."""

    inputs: list[_Input] = many(1, lambda: _Input)
    source: _SourceOp | None = sub(3, lambda: _SourceOp)


def definition_of(result: str) -> Definition:
    source = _Op(source=_SourceOp(f"{_SCHEME}{result}")).encode()
    digest = str(digest_of(source))
    return Definition([source, _Op([_Input(digest)]).encode()], {digest: Empty()})


def result_in(definition: Definition) -> str | None:
    """The result a definition stands for; None when it is somebody else's."""
    for node in definition.nodes:
        try:
            op = _Op.decode(node)
        except DecodeError:
            continue
        if op.source is not None and op.source.identifier.startswith(_SCHEME):
            return op.source.identifier.removeprefix(_SCHEME)
    return None
