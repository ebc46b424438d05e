"""The last builds as clients ask for them."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from builder.control.history import History, older
from builder.control.messages.content import InfoRequest, ReadRequest
from builder.control.messages.control import HistoryEvent, HistoryRecord, HistoryRequest, HistoryUpdate
from runtime.cancel import Cancel
from runtime.grpc.status import Code, GrpcError

PREDICATE: dict[str, Any] = {
    "buildDefinition": {
        "buildType": "urn:type",
        "externalParameters": {
            "configSource": {"uri": "u", "path": "Dockerfile"},
            "request": {"frontend": "f"},
        },
        "internalParameters": {"builderPlatform": "linux/amd64"},
        "resolvedDependencies": [{"uri": "pkg:docker/x@1", "digest": {"sha256": "aa"}}],
    },
    "runDetails": {"builder": {"id": "urn:me"}, "metadata": {"invocationId": "i", "startedOn": "t"}},
}


def refs(history: History, **more: Any) -> list[str]:
    request = HistoryRequest(early_exit=True, **more)
    return [each.record.ref for each in history.listen(request, Cancel()) if each.record]


def test_what_is_known_is_told_all_of_it_or_one() -> None:
    history = History()
    for number in range(70):
        history.add(HistoryRecord(f"r{number}"), {})
    assert refs(history) == [f"r{number}" for number in range(6, 70)]  # the last 64
    assert refs(history, ref="r42") == ["r42"]
    assert refs(history, ref="other") == []
    assert refs(history, active_only=True) == []


def test_provenance_is_read_by_its_digest_as_long_as_the_build_is_known() -> None:
    history = History()
    history.add(HistoryRecord("one"), {"linux/amd64": PREDICATE})
    (event,) = history.listen(HistoryRequest(ref="one", early_exit=True), Cancel())
    assert event.record is not None and event.record.result is not None
    (described,) = event.record.result.attestations
    assert described.annotations["in-toto.io/predicate-type"].startswith("https://slsa.dev/provenance/")
    info = history.info(InfoRequest(described.digest)).info
    assert info is not None and info.size == described.size
    data = b"".join(each.data for each in history.read(ReadRequest(described.digest)))
    assert json.loads(data) == older(PREDICATE) and len(data) == described.size
    (piece,) = history.read(ReadRequest(described.digest, 3, 5))
    assert (piece.offset, piece.data) == (3, data[3:8])
    history.update(HistoryUpdate("one", delete=True))
    with pytest.raises(GrpcError) as caught:
        history.info(InfoRequest(described.digest))
    assert caught.value.code is Code.NOT_FOUND and refs(history) == []


def test_of_several_platforms_each_has_its_own() -> None:
    history = History()
    history.add(HistoryRecord("one"), {"linux/amd64": PREDICATE, "linux/arm64": PREDICATE})
    (event,) = history.listen(HistoryRequest(early_exit=True), Cancel())
    assert event.record is not None and event.record.result is None
    assert set(event.record.results) == {"linux/amd64", "linux/arm64"}


def test_an_older_predicate_says_the_same() -> None:
    assert older(PREDICATE) == {
        "builder": {"id": "urn:me"},
        "buildType": "urn:type",
        "materials": [{"uri": "pkg:docker/x@1", "digest": {"sha256": "aa"}}],
        "invocation": {
            "configSource": {"uri": "u", "entryPoint": "Dockerfile"},
            "parameters": {"frontend": "f"},
            "environment": {"platform": "linux/amd64"},
        },
        "metadata": {"buildInvocationID": "i", "buildStartedOn": "t"},
    }


def test_who_listens_hears_of_builds_to_come_and_of_those_forgotten() -> None:
    history, cancel = History(), Cancel()
    heard: list[HistoryEvent] = []
    begun, enough = threading.Event(), threading.Event()

    def listen() -> None:
        for event in history.listen(HistoryRequest(), cancel):
            heard.append(event)
            begun.set()
            if len(heard) == 3:
                enough.set()

    history.add(HistoryRecord("one"), {})
    thread = threading.Thread(target=listen)
    thread.start()
    assert begun.wait(20)
    history.add(HistoryRecord("two"), {})
    history.update(HistoryUpdate("one", delete=True))
    assert enough.wait(20)
    assert [(each.type, each.record and each.record.ref) for each in heard] == [
        (1, "one"),
        (1, "two"),
        (2, "one"),
    ]
    cancel.cancel()
    thread.join(20)
    assert not thread.is_alive()


def test_a_build_nobody_knows_cannot_be_changed() -> None:
    with pytest.raises(GrpcError) as caught:
        History().update(HistoryUpdate("x", delete=True))
    assert caught.value.code is Code.NOT_FOUND
