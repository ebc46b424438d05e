"""`POST /build`, `/build/prune` and `/build/cancel`: the classic builder's API (FEATURES B-23, E-27, E-28).

The context is put down in the store before anything else happens, so memory stays flat; it goes with the request. Who
builds is handed in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from registry_client.credentials import Credentials
from registry_client.oci.config import ContainerConfig
from runtime.cancel import Cancel
from runtime.daemon.api import Route
from runtime.daemon.build_query import BuildAsked, PruneAsked, parse_build, parse_prune
from runtime.daemon.engine import Engine
from runtime.daemon.logins import sent_logins
from runtime.daemon.streams import Tell, stream
from runtime.errors import HostFault
from runtime.http.messages import HttpError, Request, Response, json_response
from runtime.store.durable import remove_tree
from runtime.store.owners import own_token

SessionBuild = Callable[[Request, Tell, Cancel], None]


class ImageBuilder(Protocol):
    """What this package needs of a builder."""

    def build(self, asked: BuildAsked, credentials: Credentials, tell: Tell, cancel: Cancel) -> None:
        """Build; everything a client reads goes to `tell`."""
        ...

    def prune(self, asked: PruneAsked) -> tuple[list[str], int]:
        """The ids of what went, and the bytes that are free now."""
        ...

    def config_of(self, changes: Sequence[str]) -> ContainerConfig:
        """What the instructions of `changes` make of an empty config."""
        ...

    def cached(self) -> list[dict[str, Any]]:
        """What the build cache holds, in the words of `/system/df`."""
        ...


class Building:
    def __init__(
        self,
        engine: Engine,
        builder: ImageBuilder,
        in_session: SessionBuild | None = None,
    ) -> None:
        """`in_session` builds what clients ask for as version 2, with a session beside the request."""
        self._engine, self._builder, self._in_session = engine, builder, in_session
        self._lock = threading.Lock()
        self._running: dict[str, Cancel] = {}  # by the id a client gave its build

    def routes(self) -> Iterable[Route]:
        yield "POST", "/build", self.build
        yield "POST", "/build/prune", self.prune
        yield "POST", "/build/cancel", self.cancel

    def build(self, request: Request) -> Response:
        if request.argument("version") == "2" and self._in_session is not None:
            return self._build_in_session(request, self._in_session)
        asked = parse_build(request)
        credentials = sent_logins(request)
        place = _Place(self._engine.store.root)
        try:
            if not asked.remote:
                place.fill(request)
        except BaseException:
            place.remove()
            raise

        def work(tell: Tell, cancel: Cancel) -> None:
            with self._known(request.argument("buildid"), cancel):
                try:
                    self._builder.build(place.of(asked), credentials, tell, cancel)
                finally:
                    place.remove()

        return stream(request, work, self._engine.cancel)

    def _build_in_session(self, request: Request, build: SessionBuild) -> Response:
        for _ in request.body:
            pass  # the context comes through the session

        def work(tell: Tell, cancel: Cancel) -> None:
            with self._known(request.argument("buildid"), cancel):
                build(request, tell, cancel)

        return stream(request, work, self._engine.cancel)

    @contextmanager
    def _known(self, name: str, cancel: Cancel) -> Iterator[None]:
        with self._lock:
            self._running[name] = cancel
        try:
            yield
        finally:
            with self._lock:
                if self._running.get(name) is cancel:
                    del self._running[name]

    def cancel(self, request: Request) -> Response:
        name = request.argument("id")
        if not name:
            raise HttpError(400, "build ID not provided")
        with self._lock:
            found = self._running.get(name)
        if found is not None:
            found.cancel("the build was cancelled")
        return Response(200)

    def prune(self, request: Request) -> Response:
        gone, freed = self._builder.prune(parse_prune(request))
        return json_response({"CachesDeleted": gone or None, "SpaceReclaimed": freed})


class _Place:
    """Where a context is put down: among the drafts, under our name, so that after a kill it is known for garbage."""

    def __init__(self, root: str) -> None:
        self._directory = os.path.join(root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")

    def fill(self, request: Request) -> None:
        try:
            os.mkdir(self._directory, 0o700)
            with open(self._path, "xb") as file:
                for chunk in request.body:
                    file.write(chunk)
        except OSError as error:
            raise HostFault(f"cannot take the context in: {error.strerror or error}") from error

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, "context")

    def of(self, asked: BuildAsked) -> BuildAsked:
        from registry_client.values import replace

        return asked if asked.remote else replace(asked, archive=self._path)

    def remove(self) -> None:
        if os.path.isdir(self._directory):
            remove_tree(self._directory)
