"""Routes about the engine itself: `/_ping`, `/version`, `/info` (FEATURES E-39 to E-42)."""

from __future__ import annotations

import datetime
import threading
from collections import Counter
from collections.abc import Iterable

from runtime.daemon import wire
from runtime.daemon.api import NEWEST, OLDEST, EngineApi, Route, spelled
from runtime.daemon.engine import Engine
from runtime.daemon.host import forwards, open_files
from runtime.http.messages import HttpError, Request, Response, json_response

_OF_SWARMS = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")
_NOT_KEPT = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


class System:
    def __init__(self, engine: Engine, api: EngineApi) -> None:
        self._engine, self._api = engine, api

    def routes(self) -> Iterable[Route]:
        yield "GET", "/_ping", self.ping
        yield "HEAD", "/_ping", self.ping
        yield "GET", "/version", self.version
        yield "GET", "/info", self.info
        yield "GET", "/plugins", lambda request: json_response([])
        for path in _OF_SWARMS:
            yield "GET", path, self.no_swarm
        yield "POST", "/swarm/leave", self.no_swarm

    def ping(self, request: Request) -> Response:
        """Clients choose their builder by what is said here: 2 is BuildKit."""
        headers = {
            **_NOT_KEPT,
            "Builder-Version": "2" if self._api.serves("POST", "/grpc") else "1",
            "Swarm": "inactive",
            "Content-Type": "text/plain; charset=utf-8",
        }
        return Response(200, headers, b"OK" if request.method == "GET" else b"")

    def no_swarm(self, request: Request) -> Response:
        raise HttpError(503, "This node is not a swarm manager.")

    def version(self, request: Request) -> Response:
        return json_response(wire.version_record(self._engine.facts, spelled(NEWEST), spelled(OLDEST)))

    def info(self, request: Request) -> Response:
        engine = self._engine
        counts = Counter(each.state.status for each in engine.containers.list(everything=True))
        record = wire.info_record(
            engine.facts,
            identity=engine.id,
            root=engine.store.root,
            driver="copy" if engine.store.snapshots.copied_because else "overlay",
            images=len(engine.images.list()),
            containers=counts,
            forwards=forwards(),
            open_files=open_files(),
            threads=threading.active_count(),
            listeners=engine.happened.listeners,
            now=datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
            insecure=engine.insecure,
        )
        return json_response(record)
