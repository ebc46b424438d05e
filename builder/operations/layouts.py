"""Base images from an OCI layout on disk: `--build-context name=oci-layout://DIR[:TAG|@DIGEST]` (A-92)."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from typing import TYPE_CHECKING

from registry_client.oci.platform import Platform
from runtime.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from runtime.images.image import Image
    from runtime.images.images import Images

SCHEME = "oci-layout://"


def load_layout(images: Images, reference: str, platform: Platform) -> Image:
    """Take the image in; it gets no name."""
    directory, tag, digest = split_layout(reference.removeprefix(SCHEME))
    if not os.path.isfile(os.path.join(directory, "oci-layout")):
        raise NotFound(f"{directory} is no OCI layout", hint="it has no file `oci-layout`")
    wanted = digest or _digest_of_tag(directory, tag)
    with _as_archive(directory) as stream:
        loaded = images.load(stream, platform)
    for image in loaded:
        if not wanted or wanted in (image.manifest_digest, image.id):
            return image
    if len(loaded) == 1:
        return loaded[0]  # named by an index, of which the platform's manifest was taken
    raise NotFound(f"no image {tag or digest} in the OCI layout {directory}")


def split_layout(text: str) -> tuple[str, str, str]:
    """Directory, tag, digest."""
    rest, _, digest = text.partition("@")
    directory, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        directory, tag = rest, ""
    return directory, tag, digest


def _digest_of_tag(directory: str, tag: str) -> str:
    if not tag:
        return ""
    with open(os.path.join(directory, "index.json"), encoding="utf-8") as file:
        try:
            entries = json.load(file).get("manifests", [])
        except ValueError as error:
            raise InvalidInput(f"{directory}/index.json is not JSON: {error}") from error
    for entry in entries:
        if (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name") == tag:
            return str(entry.get("digest", ""))
    raise NotFound(f"no tag {tag} in the OCI layout {directory}")


class _as_archive:
    """The directory as the tar stream `Images.load` reads, made in a thread beside it."""

    def __init__(self, directory: str) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.stream = open(reading, "rb")  # noqa: SIM115  closed by __exit__
        self._thread = threading.Thread(target=self._write, args=(directory, writing), name="layout")

    def _write(self, directory: str, writing: int) -> None:
        try:
            with open(writing, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                archive.add(directory, arcname=".")
        except BrokenPipeError:
            return  # the reader has what it wants

    def __enter__(self):  # type: ignore[no-untyped-def]
        self._thread.start()
        return self.stream

    def __exit__(self, *error: object) -> None:
        self.stream.close()
        self._thread.join()
