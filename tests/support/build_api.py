"""Contexts for `POST /build`, and what it answers, record by record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support.daemon import Daemon
from tests.support.store import Entry, make_tar


def context(files: Mapping[str, str | bytes]) -> bytes:
    """A tar of a context."""
    return make_tar(
        *(Entry(name, data if isinstance(data, bytes) else data.encode()) for name, data in files.items())
    )


def build(
    daemon: Daemon, body: bytes, *, headers: Mapping[str, str] = {}, **query: Any
) -> list[dict[str, Any]]:
    """The records of a build that began."""
    answer = daemon.http.post(
        "/build", params=query, content=body, headers={"Content-Type": "application/x-tar", **headers}
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def text_of(records: list[dict[str, Any]]) -> str:
    return "".join(record.get("stream", "") for record in records)


def image_of(records: list[dict[str, Any]]) -> str:
    """The id of the image that was built."""
    found: list[str] = [record["aux"]["ID"] for record in records if "aux" in record]
    assert found, records
    return found[-1]


def refusal(daemon: Daemon, body: bytes, **query: Any) -> tuple[int, str]:
    answer = daemon.http.post("/build", params=query, content=body)
    return answer.status_code, answer.json()["message"]
