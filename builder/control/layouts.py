"""OCI layouts that lie with the client: caches of `type=local`, contexts of `oci-layout://`, outputs that are directories.

The client offers the blobs of such a directory by digest (containerd's content service) and keeps `index.json` itself. Here
a layout is a directory in the build's scratch, so the rest of the builder knows none but local ones. What comes is
verified; what goes is sent from the leaves up, so that nothing refers to what is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from builder.control.messages.content import (
    COMMIT,
    STAT,
    WRITE,
    InfoRequest,
    InfoResponse,
    ReadRequest,
    ReadResponse,
    WriteRequest,
    WriteResponse,
)
from builder.control.sessions import Session
from registry_client.oci.digest import Digest, parse_digest, split_digest
from runtime.cancel import Cancel
from runtime.errors import HostFault, InvalidInput, Unavailable
from runtime.grpc.status import Code, GrpcError

_CONTENT = "/containerd.services.content.v1.Content/"
_STORE = "buildkit-attachable-store-id"
_PIECE = 256 << 10
_JSON_LIMIT = 4 << 20
_DEEPEST = 8  # indexes of indexes
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class ClientLayout:
    """One of the client's directories, by the name it offers it under."""

    def __init__(self, session: Session, store: str, cancel: Cancel) -> None:
        self._session, self._cancel = session, cancel
        self._store = store
        self._metadata = [(_STORE, store)]

    # --- from the client ----------------------------------------------------------------------------------------------

    def fetch(self, digest: str, directory: str) -> None:
        """Make `directory` a layout with that manifest or index and all it refers to."""
        top = _parsed(digest)
        os.makedirs(os.path.join(directory, "blobs", "sha256"), exist_ok=True)
        record = self._fetch_tree(top, directory, 0)
        entry = {
            "mediaType": record.get("mediaType") or _kind_of(record),
            "digest": top,
            "size": os.path.getsize(_place(directory, top)),
        }
        _write(os.path.join(directory, "oci-layout"), _LAYOUT)
        index = {"schemaVersion": 2, "manifests": [entry]}
        _write(os.path.join(directory, "index.json"), json.dumps(index).encode())

    def _fetch_tree(self, digest: Digest, directory: str, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise InvalidInput(f"{digest}: indexes are nested too deep")
        self._fetch_blob(digest, directory, _JSON_LIMIT)
        record = _read_json(_place(directory, digest))
        for each in _children(record):
            if _is_manifest(each):
                self._fetch_tree(_parsed(each["digest"]), directory, depth + 1)
            else:
                self._fetch_blob(_parsed(each["digest"]), directory, int(each.get("size") or 0))
        return record

    def _fetch_blob(self, digest: Digest, directory: str, limit: int) -> None:
        place = _place(directory, digest)
        if os.path.exists(place):
            return
        found, size = hashlib.sha256(), 0
        read = self._session.stream(f"{_CONTENT}Read", self._metadata, self._cancel)
        with self._asking(digest), open(place, "xb") as file, read as stream:
            stream.write(ReadRequest(digest))
            stream.end_sending()
            for piece in stream.messages(ReadResponse):
                size += len(piece.data)
                if size > limit:
                    raise InvalidInput(f"{digest} is larger than it should be ({limit} bytes)")
                found.update(piece.data)
                file.write(piece.data)
        if f"sha256:{found.hexdigest()}" != digest:
            raise InvalidInput(f"the client sent something else than {digest}")

    # --- to the client ------------------------------------------------------------------------------------------------

    def send(self, directory: str) -> dict[str, Any]:
        """All that the layout's index names; its first entry."""
        entries = _read_json(os.path.join(directory, "index.json")).get("manifests") or []
        if not entries:
            raise Unavailable(f"nothing was written that could be sent to {self._store}")
        sent: set[str] = set()
        for entry in entries:
            for digest in _leaves_first(directory, entry["digest"]):
                if digest not in sent:
                    self._send_blob(directory, _parsed(digest))
                    sent.add(digest)
        first: dict[str, Any] = entries[0]
        return first

    def _send_blob(self, directory: str, digest: Digest) -> None:
        if self._has(digest):
            return
        place = _place(directory, digest)
        size = os.path.getsize(place)
        ref = f"pipe-{digest}-{os.urandom(4).hex()}"
        with (
            self._asking(digest),
            self._session.stream(f"{_CONTENT}Write", self._metadata, self._cancel) as stream,
        ):

            def ask(request: WriteRequest) -> WriteResponse:
                stream.write(request)
                answer = stream.read(WriteResponse)
                if answer is None:
                    raise GrpcError(Code.INTERNAL, "the upload ended early")
                return answer

            ask(WriteRequest(STAT, ref, size, digest))
            offset = 0
            with open(place, "rb") as file:
                while data := file.read(_PIECE):
                    ask(WriteRequest(WRITE, ref, offset=offset, data=data))
                    offset += len(data)
            ask(WriteRequest(COMMIT, ref, size, digest, offset))
            stream.end_sending()

    def _has(self, digest: Digest) -> bool:
        try:
            self._session.call(f"{_CONTENT}Info", InfoRequest(digest), InfoResponse, self._metadata)
        except GrpcError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise Unavailable(f"the client's directory cannot be read: {error.message}") from None
        return True

    def _asking(self, digest: Digest) -> _Asking:
        return _Asking(self._cancel, digest)


class _Asking:
    """Errors of the client and of our disk in our words. That a blob is there already is none."""

    def __init__(self, cancel: Cancel, digest: Digest) -> None:
        self._cancel, self._digest = cancel, digest

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, GrpcError):
            self._cancel.check()
            if error.code is Code.ALREADY_EXISTS:
                return True
            raise Unavailable(f"{self._digest} does not come or go: {error.message}") from None
        if isinstance(error, OSError):
            raise HostFault(f"cannot keep {self._digest}: {error.strerror}") from error
        return False


def _leaves_first(directory: str, digest: str, depth: int = 0) -> Iterator[str]:
    """What a manifest or index needs, then itself."""
    if depth > _DEEPEST:
        raise InvalidInput(f"{digest}: indexes are nested too deep")
    for each in _children(_read_json(_place(directory, _parsed(digest)))):
        if _is_manifest(each):
            yield from _leaves_first(directory, each["digest"], depth + 1)
        else:
            yield each["digest"]
    yield digest


def _children(record: dict[str, Any]) -> list[dict[str, Any]]:
    found = [record.get("config"), *(record.get("layers") or ()), *(record.get("manifests") or ())]
    return [each for each in found if isinstance(each, dict)]


def _is_manifest(descriptor: dict[str, Any]) -> bool:
    kind = str(descriptor.get("mediaType", ""))
    return kind.endswith(("manifest.v1+json", "index.v1+json", "manifest.v2+json", "manifest.list.v2+json"))


def _kind_of(record: dict[str, Any]) -> str:
    return f"application/vnd.oci.image.{'index' if 'manifests' in record else 'manifest'}.v1+json"


def _parsed(digest: object) -> Digest:
    try:
        return parse_digest(str(digest))
    except ValueError as error:
        raise InvalidInput(f"{digest!r} is no digest") from error


def _place(directory: str, digest: Digest) -> str:
    algorithm, encoded = split_digest(digest)
    return os.path.join(directory, "blobs", algorithm, encoded)


def _read_json(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        data = file.read(_JSON_LIMIT + 1)
    try:
        record = json.loads(data)
    except ValueError as error:
        raise InvalidInput(f"{os.path.basename(path)} is no JSON") from error
    if not isinstance(record, dict):
        raise InvalidInput(f"{os.path.basename(path)} is no manifest")
    return record


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
