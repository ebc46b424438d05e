"""A `docker save` archive as comparable text: every file of the flattened layers, and the config.

Written apart from the project's own reader and writer of layers, so that one mistake cannot hide in both. A line says all of a
file: path, type, mode, owner, time, hard links, content, link target, device numbers, attributes.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THESE_DAYS = 1_735_689_600  # 2025: nothing in a context or archive of the cases is from then or later, only what was made
XATTR = "SCHILY.xattr."
TYPES = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file", tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
}  # fmt: skip


@dataclass
class Inode:
    """What one or more names of a root lead to."""

    kind: str
    mode: int
    owner: str
    mtime: int
    target: str = ""
    content: str = ""
    device: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    layer: int = 0


@dataclass
class Built:
    """An image as a builder left it: `tree` by path, and the config as JSON."""

    tree: dict[str, Inode]
    config: dict[str, Any]
    layers: int

    def lines(self, below: int = 0) -> dict[str, str]:
        """One line for each path of the layers from number `below`; times of these days read `now`."""
        until = time.time() + 3600
        names = Counter(id(inode) for inode in self.tree.values())
        first: dict[int, str] = {}
        for path in sorted(self.tree):
            first.setdefault(id(self.tree[path]), path)
        found = {}
        for path, inode in sorted(self.tree.items()):
            if inode.layer < below:
                continue
            hard = f"={first[id(inode)]}" if names[id(inode)] > 1 else ""
            when = "now" if THESE_DAYS <= inode.mtime < until else str(inode.mtime)
            attributes = " ".join(f"{name}={value}" for name, value in sorted(inode.attributes.items()))
            words = (inode.kind, f"{inode.mode:04o}", inode.owner, when, hard, inode.content, inode.device)
            target = f"-> {inode.target!r}" if inode.kind == "link" else ""
            found[path] = " ".join(word for word in (*words, target, attributes) if word)
        return found


def read_archive(path: Path) -> Built:
    """Flatten the first image of an archive that `docker save`, `buildah push docker-archive:` or we wrote."""
    with tarfile.open(path) as archive:
        manifest = json.load(_member(archive, "manifest.json"))[0]
        config = json.load(_member(archive, manifest["Config"]))
        tree: dict[str, Inode] = {}
        for number, name in enumerate(manifest["Layers"]):
            with tarfile.open(fileobj=_member(archive, name), errors="surrogateescape") as layer:
                _apply(tree, layer, number)
    return Built(tree, config, len(manifest["Layers"]))


def _member(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.getmember(name)
    while member.issym():  # docker save links equal layers to each other
        parent = Path(member.name).parent
        member = archive.getmember(str((Path("/") / parent / member.linkname).resolve().relative_to("/")))
    file = archive.extractfile(member)
    assert file is not None, name
    return file


def _apply(tree: dict[str, Inode], layer: tarfile.TarFile, number: int) -> None:
    added: set[str] = set()
    for member in layer:
        name = member.name.removeprefix("./").strip("/")
        if name in ("", "."):
            continue
        parent, _, last = name.rpartition("/")
        if last == ".wh..wh..opq":
            for path in [p for p in tree if p.startswith(f"{parent}/") and p not in added]:
                del tree[path]
        elif last.startswith((".wh.plnk", ".wh..wh.")):
            continue
        elif last.startswith(".wh."):
            _remove(tree, f"{parent}/{last[4:]}".lstrip("/"))
        else:
            if tree.get(name) is not None and (tree[name].kind != "dir" or not member.isdir()):
                _remove(tree, name)
            tree[name] = (
                tree[member.linkname.removeprefix("./").strip("/")]
                if member.islnk()
                else _inode(layer, member, number)
            )
            added.add(name)


def _remove(tree: dict[str, Inode], name: str) -> None:
    for path in [path for path in tree if path == name or path.startswith(f"{name}/")]:
        del tree[path]


def _inode(layer: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> Inode:
    content = ""
    if TYPES[member.type] == "file":
        file = layer.extractfile(member)
        digest = hashlib.file_digest(file, "sha256").hexdigest() if file else ""  # type: ignore[arg-type]
        content = f"{member.size}:{digest[:16]}"
    attributes = {
        name.removeprefix(XATTR): value.encode("utf-8", "surrogateescape").hex()
        for name, value in member.pax_headers.items()
        if name.startswith(XATTR)
    }
    return Inode(
        kind=TYPES[member.type],
        mode=stat.S_IMODE(member.mode) if member.type != tarfile.SYMTYPE else 0o777,
        owner=f"{member.uid}:{member.gid}",
        mtime=int(member.mtime),
        target=member.linkname if member.issym() else "",
        content=content,
        device=f"{member.devmajor}:{member.devminor}" if member.ischr() or member.isblk() else "",
        attributes=attributes,
        layer=number,
    )
