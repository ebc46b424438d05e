"""The last builds, for `docker buildx history` and for the provenance in buildx's metadata file.

In memory: a daemon that is started anew knows none. What is said of a result is kept beside its record, as a blob that can
be read by its digest. Clients of this API read SLSA's version 0.2, so it is told in those words.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from builder.control.messages.content import Info, InfoRequest, InfoResponse, ReadRequest, ReadResponse
from builder.control.messages.control import (
    Descriptor,
    HistoryEvent,
    HistoryRecord,
    HistoryRequest,
    HistoryUpdate,
    ResultInfo,
)
from registry_client.oci.digest import digest_of
from runtime.cancel import Cancel
from runtime.grpc.status import Code, GrpcError

_KEPT = 64
_COMPLETE, _DELETED = 1, 2
_IN_TOTO = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"
_SLSA = "https://slsa.dev/provenance/v0.2"


class History:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: deque[HistoryRecord] = deque(maxlen=_KEPT)
        self._blobs: dict[str, dict[str, bytes]] = {}  # of a build: by digest
        self._events = 0  # how many there were, deletions too
        self._last: deque[HistoryEvent] = deque(maxlen=_KEPT)

    def add(self, record: HistoryRecord, provenance: Mapping[str, Mapping[str, Any]]) -> None:
        """A build ended; `provenance` by platform."""
        blobs: dict[str, bytes] = {}
        for platform, predicate in provenance.items():
            data = json.dumps(older(predicate), separators=(",", ":")).encode()
            described = Descriptor(_IN_TOTO, str(digest_of(data)), len(data), {_PREDICATE: _SLSA})
            blobs[described.digest] = data
            record.results[platform] = ResultInfo([described])
        if len(record.results) == 1:
            record.result = record.results.popitem()[1]
        with self._changed:
            self._records.append(record)
            self._blobs[record.ref] = blobs
            for ref in self._blobs.keys() - {each.ref for each in self._records}:
                del self._blobs[ref]
            self._tell(HistoryEvent(_COMPLETE, record))

    def _tell(self, event: HistoryEvent) -> None:
        self._last.append(event)
        self._events += 1
        self._changed.notify_all()

    def listen(self, request: HistoryRequest, cancel: Cancel) -> Iterator[HistoryEvent]:
        """The builds that are known, and those to come until nobody listens."""
        with self._changed:
            known = [] if request.active_only else list(self._records)
            seen = self._events
        for record in known:
            if request.ref in ("", record.ref):
                yield HistoryEvent(_COMPLETE, record)
        while not request.early_exit:
            events, seen = self._since(seen, cancel)
            if cancel.cancelled:
                return
            for event in events:
                if event.record is not None and request.ref in ("", event.record.ref):
                    yield event

    def _since(self, seen: int, cancel: Cancel) -> tuple[list[HistoryEvent], int]:
        with cancel.on_cancel(self._wake), self._changed:
            self._changed.wait_for(lambda: self._events > seen or cancel.cancelled)
            new = min(self._events - seen, len(self._last))
            return list(self._last)[len(self._last) - new :], self._events

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def update(self, request: HistoryUpdate) -> None:
        """Forget a build, if that is asked; nothing else can be changed of one."""
        with self._changed:
            found = next((each for each in self._records if each.ref == request.ref), None)
            if found is None:
                raise GrpcError(Code.NOT_FOUND, f"there is no record of a build {request.ref!r}")
            if request.delete:
                self._records.remove(found)
                self._blobs.pop(found.ref, None)
                self._tell(HistoryEvent(_DELETED, found))

    # --- what is said of the results ------------------------------------------------------------------------------

    def info(self, request: InfoRequest) -> InfoResponse:
        return InfoResponse(Info(request.digest, len(self._blob(request.digest))))

    def read(self, request: ReadRequest) -> Iterator[ReadResponse]:
        data = self._blob(request.digest)
        end = request.offset + request.size if request.size else len(data)
        yield ReadResponse(request.offset, data[request.offset : end])

    def _blob(self, digest: str) -> bytes:
        with self._changed:
            found = next((blobs[digest] for blobs in self._blobs.values() if digest in blobs), None)
        if found is None:
            raise GrpcError(Code.NOT_FOUND, f"content {digest}: not found")
        return found


def older(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """A predicate of SLSA v1 as one of v0.2."""
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    external, metadata = definition["externalParameters"], details.get("metadata", {})
    source = dict(external["configSource"])
    entry = source.pop("path", "")
    found: dict[str, Any] = {
        "builder": details["builder"],
        "buildType": definition["buildType"],
        "materials": definition["resolvedDependencies"],
        "invocation": {
            "configSource": {**source, "entryPoint": entry},
            "parameters": external["request"],
            "environment": {"platform": definition["internalParameters"]["builderPlatform"]},
        },
    }
    times = {"buildStartedOn": metadata.get("startedOn"), "buildFinishedOn": metadata.get("finishedOn")}
    known = {"buildInvocationID": metadata.get("invocationId"), **times}
    return {**found, "metadata": {name: value for name, value in known.items() if value}}
