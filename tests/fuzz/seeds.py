"""Where each target starts from: the project's test data, and a few lines of each form."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from builder.control.messages.files import Packet, PacketType
from tests.fuzz.targets import DATA, MANY, ONE
from tests.support.packets import recorded

WORDS = ("$a ${b:-${a}} ${a##*/} 'x'\"$b\"\\$c", "${a//b/c} ${a%?} ${b:?no} ${a/x}", 'a=b c="d e" f\\ g')
IGNORES = (
    "a/b\n*\n!a\n**/*.log\n",
    "x/y/z\n/x/*/z\n!x/[a-c^]?\n# c\n",
    ".git\n**\n!src/**\nsrc/**/*_test.go\n",
)
REMOTES = (
    "https://example.org/app.git?ref=v1&subdir=a&keep-git-dir=true", "git@github.com:o/r.git#main:dir",
    "https://example.org/a.tar.gz", "ssh://git@[::1]:22/x#y", "http://[", "git://h/p",
)  # fmt: skip
REFERENCES = ("localhost:5000/a/b:t@sha256:" + "a" * 64, "busybox", "docker.io/library/x_y--z:1.2-3")
VALUES = {
    "build_arg": "A=1", "tag": "a/b:1", "platform": "linux/arm64/v8,linux/amd64", "secret": "id=x,env=A", "ssh": "default=/x",
    "label": "a=b", "annotation": "index[linux/amd64]:a=b", "add_host": "a:1.2.3.4", "ulimit": "nofile=10:20",
    "output": "type=oci,dest=x,compression=zstd,compression-level=3,annotation.a=b", "attest": "type=provenance,mode=max",
    "cache_to": "type=registry,ref=a/b:c,mode=max", "cache_from": "type=local,src=x", "allow": "network.host",
    "memory": "10m", "shm_size": "64MiB", "network": "host", "build_context": "a=docker-image://b", "epoch": "1700000000",
    "provenance": "mode=min", "sbom": "true",
}  # fmt: skip


def seeds(target: str) -> Iterator[bytes]:
    """First inputs of a target."""
    if target == "dockerfile":
        for pattern in ("real/*.Dockerfile", "parser/*/Dockerfile", "parser/*", "parser-negative/*"):
            yield from (path.read_bytes() for path in (DATA / "dockerfile").glob(pattern) if path.is_file())
        for path in (DATA / "builds").glob("*.case"):
            yield path.read_bytes().partition(b"-- Dockerfile --\n")[2].partition(b"\n-- ")[0]
    elif target == "hcl":
        for path in (DATA / "bake").glob("*.case"):
            lines = path.read_bytes().splitlines(keepends=True)
            yield b"".join(line for line in lines if not line.startswith((b"--- ", b"args: ", b"env: ")))
    elif target in ("tar", "add", "estargz"):
        yield from _archives()
    elif target == "transfer":
        yield _recorded_transfer()
    elif target in ("config", "manifest"):
        yield from _documents()
    elif target == "flags":
        names = MANY + ONE
        for name, value in VALUES.items():
            yield (chr(names.index(name) + 2 * len(names)) + value).encode()
    else:
        texts = {"words": WORDS, "ignore": IGNORES, "remote": REMOTES, "reference": REFERENCES}[target]
        yield from (text.encode() for text in texts)


def _recorded_transfer() -> bytes:
    """What docker's client sent, with less content."""
    played = recorded()
    packets = [
        *played.coming,
        *(Packet(PacketType.DATA, id=number) for number in played.contents),
        Packet(PacketType.END),
    ]
    encoded = [packet.encode() for packet in packets]
    return b"".join(len(data).to_bytes(2) + data for data in encoded)


def _archives() -> Iterator[bytes]:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        for mode in ("w", "w:gz", "w:xz", "w:bz2"):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
                for name, kind in (
                    ("d", tarfile.DIRTYPE),
                    ("d/f", tarfile.REGTYPE),
                    ("d/l", tarfile.SYMTYPE),
                    ("h", tarfile.LNKTYPE),
                ):
                    member = tarfile.TarInfo(name)
                    member.type, member.linkname = kind, "d/f"
                    member.size = 3 if kind == tarfile.REGTYPE else 0
                    if form == tarfile.PAX_FORMAT:
                        member.pax_headers = {
                            "SCHILY.xattr.user.a": "b",
                            "mtime": "1.5",
                            "comment": "x" * 120,
                        }
                    archive.addfile(member, io.BytesIO(b"abc"))
            yield out.getvalue()


def _documents() -> Iterator[bytes]:
    digest = "sha256:" + "a" * 64
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 1}
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    for record in (
        {
            "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00.123Z", "author": "a",
            "config": {
                "Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
                "Labels": {"a": "b"}, "User": "1", "WorkingDir": "/", "StopSignal": "SIGINT", "OnBuild": ["RUN x"],
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Retries": 3}, "Shell": ["/bin/sh", "-c"],
            },
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
        },
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": layer, "layers": [layer]},
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**layer, "platform": platform, "annotations": {"a": "b"}}],
        },
    ):  # fmt: skip
        yield json.dumps(record).encode()
