"""Routes about a container's files: `docker cp` and `docker export` (FEATURES E-7, E-22 to E-24)."""

from __future__ import annotations

import base64
import json
import posixpath
import stat
from collections.abc import Iterable
from typing import BinaryIO

from runtime.cancel import Cancel
from runtime.containers.container import Container
from runtime.containers.copying import export, stat_path
from runtime.containers.inspect import moment
from runtime.daemon.api import Route
from runtime.daemon.engine import Engine
from runtime.daemon.streams import stream_bytes
from runtime.daemon.transfers import body_file
from runtime.errors import InvalidInput
from runtime.http.messages import Request, Response
from runtime.store.layers import decompress

_TAR = {"Content-Type": "application/x-tar"}
# Go's os.FileMode keeps the type of a file in bits of its own.
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24, stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}  # fmt: skip
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class ContainerFiles:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._containers = engine, engine.containers

    def routes(self) -> Iterable[Route]:
        one = "/containers/{id}"
        yield "HEAD", f"{one}/archive", self.about
        yield "GET", f"{one}/archive", self.fetch
        yield "PUT", f"{one}/archive", self.bring
        yield "GET", f"{one}/export", self.export

    def _get(self, request: Request) -> Container:
        from runtime.daemon.containers import found

        return found(self._engine, request.params["id"])

    def about(self, request: Request) -> Response:
        return Response(200, self._stat(self._get(request), _path(request)))

    def fetch(self, request: Request) -> Response:
        container, path = self._get(request), _path(request)
        headers = {**_TAR, **self._stat(container, path)}

        def work(out: BinaryIO, cancel: Cancel) -> None:
            self._containers.copy_out(container.id, path, out)

        return stream_bytes(request, work, self._engine.cancel, headers)

    def bring(self, request: Request) -> Response:
        container, path = self._get(request), _path(request)
        # The owners of the archive are kept, as docker has it; its client writes the ones that are meant.
        self._containers.copy_in(container.id, path, decompress(body_file(request)), keep_owners=True)
        return Response(200)

    def export(self, request: Request) -> Response:
        container = self._get(request)

        def work(out: BinaryIO, cancel: Cancel) -> None:
            export(self._containers, container, out)

        return stream_bytes(request, work, self._engine.cancel, {"Content-Type": "application/octet-stream"})

    def _stat(self, container: Container, path: str) -> dict[str, str]:
        """`X-Docker-Container-Path-Stat`: base64 of JSON."""
        status = stat_path(self._containers, container, path)
        record = {
            "name": posixpath.basename(path.rstrip("/")) or "/",
            "size": status.st_size,
            "mode": go_mode(status.st_mode),
            "mtime": moment(status.st_mtime),
            "linkTarget": "",
        }
        return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(record).encode()).decode()}


def go_mode(mode: int) -> int:
    """A mode as Go's os.FileMode has it."""
    bits = sum(go for bit, go in _GO_BITS.items() if mode & bit)
    return (mode & 0o777) | bits | _GO_TYPES.get(stat.S_IFMT(mode), 0)


def _path(request: Request) -> str:
    path = request.argument("path")
    if not path:
        raise InvalidInput("bad parameter: no path was given")
    return path if path.startswith("/") else f"/{path}"
