"""Numbers and kinds of our messages' fields, judged by the descriptors in docker's own client.

`tests/data/buildkit/messages.json` are the descriptors that buildx 0.29.1 carries (BuildKit 0.25), field by field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.control import inputs
from builder.control.messages import common, content, control, files, gateway, session
from runtime.grpc import status
from runtime.grpc.protobuf import BOOL, INT, RAW, TEXT, Kind, Message

THEIRS: Mapping[str, Mapping[str, str]] = json.loads(
    (Path(__file__).resolve().parents[2] / "data" / "buildkit" / "messages.json").read_text()
)
V1, FRONTEND = "moby.buildkit.v1", "moby.buildkit.v1.frontend"
CONTENT = "containerd.services.content.v1"
NAMES: Mapping[type[Message], str] = {
    common.Bytes: f"{V1}.BytesMessage",
    common.CacheEntry: f"{V1}.CacheOptionsEntry",
    common.Capability: f"{V1}.apicaps.APICap",
    common.Definition: "pb.Definition",
    common.Platform: "pb.Platform",
    common.Position: "pb.Position",
    common.Range: "pb.Range",
    common.SourceInfo: "pb.SourceInfo",
    common.Timestamp: "google.protobuf.Timestamp",
    common.Version: f"{V1}.types.BuildkitVersion",
    common.Worker: f"{V1}.types.WorkerRecord",
    content.Info: f"{CONTENT}.Info",
    content.InfoRequest: f"{CONTENT}.InfoRequest",
    content.InfoResponse: f"{CONTENT}.InfoResponse",
    content.ReadRequest: f"{CONTENT}.ReadContentRequest",
    content.ReadResponse: f"{CONTENT}.ReadContentResponse",
    content.WriteRequest: f"{CONTENT}.WriteContentRequest",
    content.WriteResponse: f"{CONTENT}.WriteContentResponse",
    control.CacheOptions: f"{V1}.CacheOptions",
    control.DiskUsageRequest: f"{V1}.DiskUsageRequest",
    control.DiskUsageResponse: f"{V1}.DiskUsageResponse",
    control.Descriptor: f"{V1}.Descriptor",
    control.HistoryEvent: f"{V1}.BuildHistoryEvent",
    control.HistoryRecord: f"{V1}.BuildHistoryRecord",
    control.HistoryRequest: f"{V1}.BuildHistoryRequest",
    control.HistoryUpdate: f"{V1}.UpdateBuildHistoryRequest",
    control.ResultInfo: f"{V1}.BuildResultInfo",
    control.Exporter: f"{V1}.Exporter",
    control.InfoResponse: f"{V1}.InfoResponse",
    control.ListWorkersResponse: f"{V1}.ListWorkersResponse",
    control.PruneRequest: f"{V1}.PruneRequest",
    control.SolveRequest: f"{V1}.SolveRequest",
    control.SolveResponse: f"{V1}.SolveResponse",
    control.StatusRequest: f"{V1}.StatusRequest",
    control.StatusResponse: f"{V1}.StatusResponse",
    control.UsageRecord: f"{V1}.UsageRecord",
    control.Vertex: f"{V1}.Vertex",
    control.VertexLog: f"{V1}.VertexLog",
    control.VertexStatus: f"{V1}.VertexStatus",
    control.VertexWarning: f"{V1}.VertexWarning",
    files.Packet: "fsutil.types.Packet",
    files.Stat: "fsutil.types.Stat",
    gateway.EvaluateRequest: f"{FRONTEND}.EvaluateRequest",
    gateway.InputsResponse: f"{FRONTEND}.InputsResponse",
    gateway.Pong: f"{FRONTEND}.PongResponse",
    gateway.Ref: f"{FRONTEND}.Ref",
    gateway.RefMap: f"{FRONTEND}.RefMap",
    gateway.Result: f"{FRONTEND}.Result",
    gateway.ReturnRequest: f"{FRONTEND}.ReturnRequest",
    gateway.SolveRequest: f"{FRONTEND}.SolveRequest",
    gateway.SolveResponse: f"{FRONTEND}.SolveResponse",
    inputs._Input: "pb.Input",
    inputs._Op: "pb.Op",
    inputs._SourceOp: "pb.SourceOp",
    session.AgentRequest: "moby.sshforward.v1.CheckAgentRequest",
    session.CredentialsRequest: "moby.filesync.v1.CredentialsRequest",
    session.CredentialsResponse: "moby.filesync.v1.CredentialsResponse",
    session.SecretRequest: "moby.buildkit.secrets.v1.GetSecretRequest",
    session.SecretResponse: "moby.buildkit.secrets.v1.GetSecretResponse",
    status.Any: "google.protobuf.Any",
    status.Status: "google.rpc.Status",
}
# The same encoding under other names: theirs to ours.
_SCALARS = {
    "string": TEXT, "bytes": RAW, "bool": BOOL, "int64": INT, "int32": INT, "uint32": INT, "uint64": INT,
    ".fsutil.types.Packet.PacketType": INT, f".{CONTENT}.WriteAction": INT, f".{V1}.BuildHistoryEventType": INT, f".{FRONTEND}.CacheOptionsEntry": common.CacheEntry,
    # What we do not look into: closed bytes, and metadata of which only the keys count.
    f".{V1}.sourcepolicy.Policy": RAW, ".pb.OpMetadata": common.Empty,
}  # fmt: skip


def fits(theirs: str, kind: Kind) -> bool:
    if kind.key:
        key, value = theirs.removeprefix("map<").removesuffix(">").split(",")
        return theirs.startswith("map<") and _SCALARS[key] == kind.key and fits(value, Kind(kind.of))
    if kind.many:
        return theirs.startswith("repeated ") and fits(theirs.removeprefix("repeated "), Kind(kind.of))
    if theirs in _SCALARS:
        return _SCALARS[theirs] == kind.of
    return not isinstance(kind.of, str) and theirs == f".{NAMES[kind.of]}"


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_every_field_is_what_the_client_has_under_its_number(kind: type[Message]) -> None:
    theirs = THEIRS[NAMES[kind]]
    wrong = {
        number: (name, theirs.get(str(number)))
        for number, (name, described) in kind.table().items()
        if str(number) not in theirs or not fits(theirs[str(number)], described)
    }
    assert wrong == {}


def test_every_message_is_looked_at() -> None:
    rooms = ("builder.control", "runtime.grpc")
    known = {each.__qualname__ for each in Message.__subclasses__() if each.__module__.startswith(rooms)}
    own = {"Empty", "HealthResponse"}  # nothing is in it; gRPC's own
    assert known - own == {kind.__qualname__ for kind in NAMES}
