"""An image's root file system as a directory or a tar (`--output type=local`, `type=tar`)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from builder.operations.copying import Copier, Style
from builder.operations.owners import Owner
from builder.operations.roots import Root
from builder.operations.selection import Tree, walk
from runtime.errors import InvalidInput
from runtime.store.durable import faults_of_the_host

if TYPE_CHECKING:
    from builder.operations.step import Setting


def write_directory(root: str, dest: str, setting: Setting) -> None:
    """Copy the files into `dest`, over what is there. They become the caller's, as with docker; devices are left out."""
    if os.path.exists(dest) and not os.path.isdir(dest):
        raise InvalidInput(f"output {dest} is not a directory")
    with faults_of_the_host(f"cannot write to {dest}"):
        os.makedirs(dest, exist_ok=True)
        target = Root(os.path.realpath(dest))
        style = Style(owner=Owner(os.geteuid(), os.getegid()), newest_ns=_newest(setting), directory_ns=0)
        copier = Copier(target, style, cancel=setting.cancel)
        for item in walk(Tree(root, keep_owner=True), ""):
            mode = item.status.st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                continue
            copier.place(item, item.name)
        target.settle()


def write_tar(root: str, out: BinaryIO, setting: Setting) -> None:
    """The whole root as one tar."""
    from runtime.store.layers import write_layer

    write_layer(root, out, epoch=setting.epoch)


def _newest(setting: Setting) -> int | None:
    return None if setting.epoch is None else setting.epoch * 10**9
