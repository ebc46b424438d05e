"""Stores, trees, archives and a registry in memory, for tests of `runtime.store` and `runtime.images`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from registry_client import errors
from registry_client.oci import media_types
from registry_client.oci.config import ImageConfig, dump_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.manifest import Manifest, make_index, make_manifest
from registry_client.oci.platform import Platform, host_platform
from registry_client.reference import Reference


def digest_of_file(path: str | Path) -> str:
    return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()


# --- trees ----------------------------------------------------------------------------------------------------------


def tree(root: str | Path, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything a layer is about, by path, in a form that compares and prints well. Overlay marks included."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    top = os.fsencode(root)
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(names + files):
            full = os.path.join(directory, name)
            path = os.fsdecode(os.path.relpath(full, top))
            found[path] = _entry(full, path, first, times)
    return found


def _entry(full: bytes, path: str, first: dict[tuple[int, int], str], times: bool) -> tuple[Any, ...]:
    status = os.lstat(full)
    content: Any = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(Path(os.fsdecode(full)).read_bytes()).hexdigest()[:16]
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(full)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        content = (os.major(status.st_rdev), os.minor(status.st_rdev))
    link = ""
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        link = first.setdefault((status.st_dev, status.st_ino), path)
    ignored = ("trusted.overlay.origin", "trusted.overlay.impure", "security.selinux")
    names = [name for name in os.listxattr(full, follow_symlinks=False) if name not in ignored]
    attributes = {name: os.getxattr(full, name, follow_symlinks=False) for name in sorted(names)}
    time = int(status.st_mtime) if times else 0
    return (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content, link, attributes, time)


# --- tars -----------------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """A member of a tar that is made by hand (so that it may be as wrong as a test needs)."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""
    uid: int = 0
    gid: int = 0
    mtime: float = 1_000_000_000
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **more: Any) -> Entry:
    return Entry(name, type=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.SYMTYPE, mode=0o777, link=target)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.LNKTYPE, link=target)


def make_tar(*entries: Entry, kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, errors="surrogateescape") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.linkname = entry.type, entry.mode, entry.link
            info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
            info.devmajor, info.devminor = entry.device
            info.size, info.pax_headers = len(entry.data), entry.pax
            archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


# --- images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MadeImage:
    """An image made by hand: its parts as bytes."""

    config: bytes
    layers: tuple[bytes, ...]  # uncompressed
    blobs: tuple[bytes, ...]
    manifest: Manifest

    @property
    def id(self) -> Digest:
        return digest_of(self.config)


def make_image(
    *layers: bytes, compressed: bool = True, platform: Platform | None = None, docker: bool = False
) -> MadeImage:
    """An image of the given layer tars."""
    config = dump_config(
        ImageConfig(platform=platform or host_platform(), diff_ids=tuple(digest_of(each) for each in layers))
    )
    blobs = tuple(gzip.compress(each, mtime=0) if compressed else each for each in layers)
    layer_type = media_types.OCI_LAYER_GZIP if compressed else media_types.OCI_LAYER
    if docker:
        layer_type = media_types.DOCKER_LAYER_GZIP
    config_type = media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG
    manifest = make_manifest(
        Descriptor(config_type, digest_of(config), len(config)),
        tuple(Descriptor(layer_type, digest_of(blob), len(blob)) for blob in blobs),
    )
    if docker:
        raw = manifest.raw.replace(media_types.OCI_MANIFEST.encode(), media_types.DOCKER_MANIFEST.encode())
        manifest = Manifest(raw, media_types.DOCKER_MANIFEST, manifest.config, manifest.layers)
    return MadeImage(config, layers, blobs, manifest)


def docker_archive(image: MadeImage, *names: str) -> bytes:
    """As `docker save` wrote it before it had OCI layouts."""
    entries = [Entry(f"{image.id[7:]}.json", image.config)]
    paths = []
    for number, layer in enumerate(image.layers):
        paths.append(f"{number:064x}/layer.tar")
        entries += [
            directory(f"{number:064x}"),
            Entry(f"{number:064x}/VERSION", b"1.0"),
            Entry(paths[-1], layer),
        ]
    record = [{"Config": f"{image.id[7:]}.json", "RepoTags": list(names) or None, "Layers": paths}]
    return make_tar(*entries, Entry("manifest.json", json.dumps(record).encode()))


# --- a registry in memory -------------------------------------------------------------------------------------------


class FakeRegistry:
    """Implements `runtime.images.transport.Transport` and `Client`. `on_chunk` is called before each chunk of a blob."""

    def __init__(self, chunk: int = 64 << 10) -> None:
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.offsets: list[int] = []
        self.on_chunk: Callable[[Digest, int], None] = lambda digest, offset: None
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._chunk = chunk

    # what tests put in

    def add(self, repository: str, tag: str, image: MadeImage) -> Digest:
        self.blobs |= {digest_of(each): each for each in (image.config, *image.blobs)}
        return self._put(repository, tag, image.manifest.raw, image.manifest.media_type)

    def add_index(self, repository: str, tag: str, images: Iterable[tuple[Platform, MadeImage]]) -> Digest:
        entries = []
        for platform, image in images:
            self.add(repository, image.manifest.digest, image)
            manifest = image.manifest
            entries.append(
                Descriptor(manifest.media_type, manifest.digest, len(manifest.raw), platform=platform)
            )
        index = make_index(tuple(entries))
        return self._put(repository, tag, index.raw, index.media_type)

    def _put(self, repository: str, tag: str, raw: bytes, media_type: str) -> Digest:
        digest = digest_of(raw)
        self.manifests[repository, tag] = self.manifests[repository, digest] = (raw, media_type)
        return digest

    # the client

    def client(self, reference: Reference) -> FakeRegistry:
        return self

    def manifest(self, repository: str, selector: str) -> tuple[bytes, str, Digest]:
        self.asked.append(f"manifest {selector}")
        try:
            raw, media_type = self.manifests[repository, selector]
        except KeyError:
            raise errors.NotFound(f"no manifest {repository}:{selector}", status=404) from None
        return raw, media_type, digest_of(raw)

    @contextmanager
    def blob(
        self, repository: str, digest: Digest, *, offset: int = 0, **more: Any
    ) -> Iterator[Iterator[bytes]]:
        with self._lock:
            self.asked.append(f"blob {digest}")
            self.offsets.append(offset)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield self._chunks(digest, offset)
        finally:
            with self._lock:
                self._now -= 1

    def _chunks(self, digest: Digest, offset: int) -> Iterator[bytes]:
        data = self.blobs[digest]
        for at in range(offset, len(data), self._chunk):
            self.on_chunk(digest, at)
            yield data[at : at + self._chunk]

    def has_blob(self, repository: str, digest: Digest) -> bool:
        return digest in self.blobs

    def push_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        *,
        mount_from: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if descriptor.digest in self.blobs:
            self.asked.append(f"exists {descriptor.digest} from {mount_from}")
            return
        with open_at(0) as file:
            data = file.read()
        assert digest_of(data) == descriptor.digest and len(data) == descriptor.size
        self.blobs[descriptor.digest] = data
        self.asked.append(f"push {descriptor.digest}")
        if progress:
            progress(len(data))

    def put_manifest(self, repository: str, selector: str, raw: bytes, media_type: str) -> Digest:
        parts = json.loads(raw)
        if "manifests" in parts:
            assert all((repository, each["digest"]) in self.manifests for each in parts["manifests"])
        else:
            assert all(each["digest"] in self.blobs for each in (parts["config"], *parts["layers"]))
        return self._put(repository, selector, raw, media_type)
