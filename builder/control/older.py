"""`POST /build?version=2`: how clients built with BuildKit before there was buildx (docker's command line up to 22).

The client opens a session as for the API proper, but asks in the query of `/build` and reads a stream of records: status
messages of BuildKit in base64, the image's id at the end.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from builder.control.builds import NODE, Ground, Wanted, run_build
from builder.control.messages.common import CacheEntry
from builder.control.messages.control import Exporter
from builder.control.sessions import Sessions
from builder.control.vertices import Told
from runtime.cancel import Cancel
from runtime.daemon.asked import flag, json_of
from runtime.daemon.streams import Tell
from runtime.errors import InvalidInput, PipeError, StepFailed, Unsupported
from runtime.http.messages import Request

_LOCAL, _UPLOAD = "client-session", "upload-request"


class SessionBuilds:
    def __init__(self, ground: Ground, sessions: Sessions) -> None:
        self._ground, self._sessions = ground, sessions

    def build(self, request: Request, tell: Tell, cancel: Cancel) -> None:
        """Build; everything the client reads goes to `tell`."""
        wanted = wanted_of(request)
        told = Told(request.argument("buildid") or os.urandom(8).hex(), NODE)
        try:
            with _followed(told, tell):
                done = run_build(self._ground, self._sessions, wanted, told.emit, cancel)
        except StepFailed as error:
            # The exit code of a step is the classic builder's to tell: here clients end with 1.
            raise PipeError(error.message, error.span, hint=error.hint) from error
        tell({"id": "moby.image.id", "aux": {"ID": str(done.result.image_id)}})


@contextmanager
def _followed(told: Told, tell: Tell) -> Iterator[None]:
    """Whatever happens is told before the block is over."""

    def follow() -> None:
        for response in told.follow(Cancel()):
            tell({"id": "moby.buildkit.trace", "aux": base64.b64encode(response.encode()).decode()})

    thread = threading.Thread(target=follow, name="trace", daemon=True)
    thread.start()
    try:
        yield
    finally:
        told.end()
        thread.join()


def wanted_of(request: Request) -> Wanted:
    """The query in the attributes of the Dockerfile front end."""
    session = request.argument("session")
    if not session:
        raise InvalidInput("version 2 of a build needs a session")
    return Wanted(
        session=session,
        attrs=_attrs(request),
        exporters=_exporters(request),
        cache_from=tuple(
            CacheEntry("registry", {"ref": str(name)})
            for name in json_of(request, "cachefrom", "cache-from") or ()
        ),
        cache_to=(CacheEntry("inline"),) if _arguments(request).get("BUILDKIT_INLINE_CACHE") == "1" else (),
        entitlements=("network.host",),
    )


def _attrs(request: Request) -> dict[str, str]:
    remote = request.argument("remote")
    if remote == _UPLOAD:
        raise Unsupported(
            "an archive as the context of an older client", hint="build with buildx, or unpack it"
        )
    found = {f"build-arg:{name}": value for name, value in _arguments(request).items()}
    found |= {
        f"label:{name}": str(value) for name, value in (json_of(request, "labels", "labels") or {}).items()
    }
    for name, attribute in (("dockerfile", "filename"), ("target", "target"), ("shmsize", "shm-size")):
        if (value := request.argument(name)) not in ("", "0"):
            found[attribute] = value
    if platform := request.argument("platform"):
        found["platform"] = platform
    if (network := request.argument("networkmode")) in ("host", "none"):
        found["force-network-mode"] = network
    if flag(request, "nocache"):
        found["no-cache"] = ""
    if flag(request, "pull"):
        found["image-resolve-mode"] = "pull"
    hosts = [text.replace(":", "=", 1) for text in request.query.get("extrahosts", ()) if text]
    if hosts:
        found["add-hosts"] = ",".join(hosts)
    if remote and remote != _LOCAL:
        found["context"] = remote
    return found


def _arguments(request: Request) -> dict[str, str]:
    """A variable the client has not is null, and stays unset."""
    record = json_of(request, "buildargs", "build args") or {}
    return {name: str(value) for name, value in record.items() if value is not None}


def _exporters(request: Request) -> tuple[Exporter, ...]:
    names = ",".join(filter(None, request.query.get("t", ())))
    given: Any = json.loads(request.argument("outputs") or "[]")
    if not given:
        return (Exporter("moby", {"name": names}),)
    found = []
    for record in given:
        attrs = {str(name): str(value) for name, value in (record.get("Attrs") or {}).items()}
        kind = str(record.get("Type", ""))
        if names and kind != "local":
            attrs.setdefault("name", names)
        found.append(Exporter("moby" if kind in ("image", "") else kind, attrs))
    return tuple(found)
