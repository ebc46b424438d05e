"""Small images for registry tests: real enough to be unpacked and run, made without any tool."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from registry_client.oci import media_types
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import digest_of
from registry_client.oci.manifest import Manifest, make_manifest

BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class SmallImage:
    """A manifest with the bytes of its config and layers."""

    manifest: Manifest
    blobs: tuple[tuple[Descriptor, bytes], ...]

    @property
    def layer(self) -> tuple[Descriptor, bytes]:
        return self.blobs[0]


def small_image(content: bytes = b"hello\n", *, busybox: bool = False) -> SmallImage:
    """An image with one gzip layer: `/hello` with `content`, and busybox as `/bin/sh` where asked for."""
    tar = _tar(content, busybox)
    layer = gzip.compress(tar, 1, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh", "-c", "cat /hello"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
            "history": [{"created_by": "tests"}],
        }
    ).encode()
    layer_part = Descriptor(media_types.OCI_LAYER_GZIP, digest_of(layer), len(layer))
    config_part = Descriptor(media_types.OCI_CONFIG, digest_of(config), len(config))
    return SmallImage(make_manifest(config_part, (layer_part,)), ((layer_part, layer), (config_part, config)))


def layered_image(
    *files: Mapping[str, bytes],
    busybox: bool = True,
    architecture: str = "amd64",
    onbuild: tuple[str, ...] = (),
) -> SmallImage:
    """An image with a gzip layer for each mapping of names to contents; the first has a busybox userland as well."""
    tars = []
    for number, layer in enumerate(files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            if busybox and number == 0:
                _add_busybox(tar)
            for name, content in layer.items():
                _add(tar, name, content, 0o644)
        tars.append(out.getvalue())
    blobs = [gzip.compress(tar, 1, mtime=0) for tar in tars]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "OnBuild": list(onbuild)},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(tars))],
        }
    ).encode()
    parts = [(Descriptor(media_types.OCI_LAYER_GZIP, digest_of(blob), len(blob)), blob) for blob in blobs]
    described = (Descriptor(media_types.OCI_CONFIG, digest_of(config), len(config)), config)
    manifest = make_manifest(described[0], tuple(descriptor for descriptor, _ in parts))
    return SmallImage(manifest, (*parts, described))


def opener(data: bytes) -> Callable[[int], BinaryIO]:
    """What `push_blob` wants: the content from an offset on."""

    def open_at(offset: int) -> BinaryIO:
        file = io.BytesIO(data)
        file.seek(offset)
        return file

    return open_at


def _tar(content: bytes, busybox: bool) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "hello", content, 0o644)
        if busybox:
            _add_busybox(tar)
    return out.getvalue()


def _add_busybox(tar: tarfile.TarFile) -> None:
    _add(tar, "bin", None, 0o755)
    _add(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for name in ("sh", "cat", "true"):
        link = tarfile.TarInfo(f"bin/{name}")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)


def _add(tar: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
