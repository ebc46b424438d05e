"""An image's root file system as a directory or a tar (`--output type=local`, `type=tar`).

Several platforms lie in directories of their own, `linux_amd64` and so on; what is attested lies beside the files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from builder.digests import NoMemory
from builder.operations.copying import Copier, Style
from builder.operations.owners import Owner
from builder.operations.roots import Root
from builder.operations.selection import Tree, walk
from builder.operations.walking import Item
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform
from registry_client.values import frozen
from runtime.errors import InvalidInput
from runtime.store.durable import faults_of_the_host

if TYPE_CHECKING:
    from builder.attest.statement import Subject
    from builder.operations.step import Setting
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.store.store import Store


@contextmanager
def opened_root(store: Store, images: Images, image: Image) -> Iterator[str]:
    """The image's file system at a path."""
    snapshot = images.snapshot(image)
    if snapshot is None:
        yield os.path.join(store.root, "empty")
        return
    with store.snapshots.mounted(snapshot) as path:
        yield path


def platform_directory(platform: Platform) -> str:
    return str(platform).replace("/", "_")


def file_subjects(root: str, setting: Setting) -> tuple[Subject, ...]:
    """Every regular file with its digest: whom a statement about a root file system is about."""
    from builder.attest.statement import Subject

    found = []
    for item in _files(root):
        if stat.S_ISREG(item.status.st_mode):
            setting.cancel.check()
            with open(item.path, "rb") as file:
                encoded = hashlib.file_digest(file, "sha256").hexdigest()
            name = item.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found.append(Subject(name, Digest(f"sha256:{encoded}")))
    return tuple(found)


def _files(root: str) -> Iterator[Item]:
    stretches = walk(Tree(root, keep_owner=True), "", os.stat(root))
    return (item for stretch in stretches for item in stretch.items())


def write_directory(root: str, dest: str, setting: Setting, beside: Mapping[str, bytes]) -> set[str]:
    """Copy the files into `dest`, over what is there; the names. They become the caller's, as with docker; devices are left out."""
    if os.path.exists(dest) and not os.path.isdir(dest):
        raise InvalidInput(f"output {dest} is not a directory")
    with faults_of_the_host(f"cannot write to {dest}"):
        os.makedirs(dest, exist_ok=True)
        target = Root(os.path.realpath(dest))
        style = Style(owner=Owner(os.geteuid(), os.getegid()), newest_ns=_newest(setting), directory_ns=0)
        copier = Copier(target, style, NoMemory(), setting.cancel)
        names = set(beside)
        for item in _files(root):
            mode = item.status.st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                continue
            copier.place(item, item.name)
            names.add(item.name)
        target.settle()
        for name, data in beside.items():
            _write_beside(os.path.join(target.upper, name), data, setting)
    return names


def remove_others(dest: str, kept: Set[str]) -> None:
    """Remove what is in `dest` and was not written now. Links are removed, not followed."""
    from runtime.store.durable import remove_tree

    def clear(directory: str, prefix: str) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + entry.name
                if name not in kept:
                    remove_tree(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    clear(entry.path, f"{name}/")

    with faults_of_the_host(f"cannot clear {dest}"):
        clear(dest, "")


def check_clearable(dest: str, context: str) -> None:
    """A directory whose other files go must not be the one with the sources."""
    real = os.path.realpath(dest)
    inside = os.path.realpath(context) if os.path.exists(context) else os.getcwd()
    if os.path.commonpath([real, inside]) == real:
        raise InvalidInput(
            f"--output: mode=delete would remove {context} itself", hint="give a directory of its own as dest"
        )


def _write_beside(place: str, data: bytes, setting: Setting) -> None:
    from runtime.store.durable import replace_file

    replace_file(place, data)
    os.chmod(place, 0o644)
    if setting.epoch is not None:
        os.utime(place, (setting.epoch, setting.epoch))


@frozen
class Piece:
    """One root of a tar, below the directory `prefix`, and the files that lie beside its own."""

    root: str
    prefix: str
    beside: Mapping[str, bytes]


def write_tar(root: str, out: BinaryIO, setting: Setting) -> None:
    """The whole root as one tar."""
    from runtime.store.layers import write_layer

    write_layer(root, out, epoch=setting.epoch)


def write_pieces(pieces: Sequence[Piece], out: BinaryIO, setting: Setting) -> None:
    """Several roots, or one with files beside it, as one tar."""
    from runtime.store.layers import LayerWriter, add_tree

    with LayerWriter(out, epoch=setting.epoch) as writer:
        for piece in pieces:
            setting.cancel.check()
            add_tree(writer, piece.root, piece.prefix.encode())
            for name, data in sorted(piece.beside.items()):
                status = _Ours(len(data), (setting.epoch or 0) * 10**9)
                writer.add(os.path.join(piece.prefix, name).encode(), status, data)
        writer.finish()


@frozen
class _Ours:
    """What a tar says of a file we made."""

    st_size: int
    st_mtime_ns: int
    st_mode: int = stat.S_IFREG | 0o644
    st_uid: int = 0
    st_gid: int = 0
    st_nlink: int = 1
    st_ino: int = 0
    st_dev: int = 0
    st_rdev: int = 0


def _newest(setting: Setting) -> int | None:
    return None if setting.epoch is None else setting.epoch * 10**9
