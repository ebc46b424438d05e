"""Base images from an OCI layout on disk: `--build-context name=oci-layout://DIR[:TAG|@DIGEST]` (A-92)."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from registry_client.oci.digest import parse_digest, split_digest
from registry_client.oci.platform import Platform
from runtime.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from runtime.images.image import Image
    from runtime.images.images import Images

SCHEME = "oci-layout://"
_JSON_LIMIT = 4 << 20


def load_layout(images: Images, reference: str, platform: Platform) -> Image:
    """Take the image in; it gets no name."""
    directory, tag, digest = split_layout(reference.removeprefix(SCHEME))
    if not os.path.isfile(os.path.join(directory, "oci-layout")):
        raise NotFound(f"{directory} is no OCI layout", hint="it has no file `oci-layout`")
    entries = _chosen(directory, tag, digest)
    with _as_archive(directory, entries) as stream:
        loaded = images.load(stream, platform)
    if not loaded:
        raise NotFound(f"no image {tag or digest} in the OCI layout {directory}")
    return loaded[0]


def split_layout(text: str) -> tuple[str, str, str]:
    """Directory, tag, digest."""
    rest, _, digest = text.partition("@")
    directory, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        directory, tag = rest, ""
    return directory, tag, digest


def _chosen(directory: str, tag: str, digest: str) -> list[dict[str, Any]]:
    """The entries of `index.json` that are meant. A digest may be that of any manifest or index in the layout."""
    entries = _parsed(os.path.join(directory, "index.json")).get("manifests") or []
    if digest:
        return [each for each in entries if each.get("digest") == digest] or [_of_digest(directory, digest)]
    if tag:
        found = [each for each in entries if _tag_of(each) == tag]
        if not found:
            raise NotFound(f"no tag {tag} in the OCI layout {directory}")
        return found
    tags = {_tag_of(each) for each in entries}
    if len(tags) > 1 and "latest" not in tags:
        known = ", ".join(sorted(filter(None, tags)))
        raise InvalidInput(
            f"the OCI layout {directory} holds several images", hint=f"name one: :TAG of {known}"
        )
    return [each for each in entries if len(tags) == 1 or _tag_of(each) == "latest"]


def _tag_of(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get("org.opencontainers.image.ref.name", ""))


def _of_digest(directory: str, digest: str) -> dict[str, Any]:
    path = _blob(directory, digest)
    if not os.path.isfile(path):
        raise NotFound(f"no image {digest} in the OCI layout {directory}")
    return {"mediaType": _parsed(path).get("mediaType", ""), "digest": digest, "size": os.path.getsize(path)}


def _blob(directory: str, digest: str) -> str:
    try:
        algorithm, encoded = split_digest(parse_digest(digest))
    except ValueError as error:
        raise InvalidInput(f"OCI layout {directory}: {error}") from error
    return os.path.join(directory, "blobs", algorithm, encoded)


def _parsed(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(_JSON_LIMIT))
        if isinstance(record, dict):
            return record
        raise ValueError("want an object")
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error


def _reachable(directory: str, entries: Iterable[dict[str, Any]]) -> list[str]:
    """Digests of what the entries name and is there, and of what that names."""
    found: dict[str, None] = {}
    waiting = [str(each.get("digest", "")) for each in entries]
    while waiting:
        digest = waiting.pop()
        if digest in found or not os.path.isfile(_blob(directory, digest)):
            continue
        found[digest] = None
        if os.path.getsize(_blob(directory, digest)) > _JSON_LIMIT:
            continue
        try:
            record = _parsed(_blob(directory, digest))
        except InvalidInput:
            continue  # a layer
        parts = [*(record.get("manifests") or ()), *(record.get("layers") or ()), record.get("config")]
        waiting += [str(part["digest"]) for part in parts if isinstance(part, dict) and "digest" in part]
    return list(found)


class _as_archive:
    """What belongs to some entries of a layout, as the tar stream `Images.load` reads, made in a thread beside it."""

    def __init__(self, directory: str, entries: Sequence[dict[str, Any]]) -> None:
        self._index = json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode()
        self._blobs = _reachable(directory, entries)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.stream = open(reading, "rb")  # noqa: SIM115  closed by __exit__
        self._thread = threading.Thread(target=self._write, args=(directory, writing), name="layout")

    def _write(self, directory: str, writing: int) -> None:
        try:
            with open(writing, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                archive.add(os.path.join(directory, "oci-layout"), arcname="oci-layout")
                member = tarfile.TarInfo("index.json")
                member.size = len(self._index)
                archive.addfile(member, io.BytesIO(self._index))
                for digest in self._blobs:
                    path = _blob(directory, digest)
                    archive.add(path, arcname=os.path.relpath(path, directory), recursive=False)
        except BrokenPipeError:
            return  # the reader has what it wants

    def __enter__(self):  # type: ignore[no-untyped-def]
        self._thread.start()
        return self.stream

    def __exit__(self, *error: object) -> None:
        self.stream.close()
        self._thread.join()
