"""An overlay among a container's mounts: directories of the host, so it is put together before the root changes.

Its entry is OCI's with type "overlay" and options `lowerdir+=DIR` (topmost first), `upperdir=DIR`, `workdir=DIR`, `ro`.
Used for binds that are written to a layer of the container's own, and for images as mounts.
"""

from __future__ import annotations

import os

from runtime.linux import mounts as linux
from runtime.sandbox.mounts import FileSystem, Options, attach
from runtime.sandbox.paths import Root

_VALUE_LIMIT = 255  # of one fsconfig(2) string


class Layered(FileSystem):
    def __init__(self, target: str, options: Options) -> None:
        super().__init__("overlay", "overlay", target, options)
        self.tree = -1

    def prepare(self) -> None:
        pairs = [word.partition("=")[::2] for word in self.options.data]
        lowers = [value for key, value in pairs if key == "lowerdir+"]
        others = [(key, value) for key, value in pairs if key != "lowerdir+"]
        opened = [os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for lower in lowers]
        try:
            self.tree = self._make(opened, lowers, others)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _make(self, opened: list[int], lowers: list[str], others: list[tuple[str, str]]) -> int:
        context = linux.fsopen("overlay")
        try:
            # Descriptors make short names that need no escaping; only many layers need Linux 6.5's `lowerdir+`.
            joined = ":".join(f"/proc/self/fd/{descriptor}" for descriptor in opened)
            short = len(joined) <= _VALUE_LIMIT
            layers = [("lowerdir", joined)] if short else [("lowerdir+", lower) for lower in lowers]
            for key, value in (*layers, *others):
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
            linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
            return linux.fsmount(context, self.options.add)
        finally:
            os.close(context)

    def apply(self, root: Root) -> None:
        tree, self.tree = self.tree, -1
        attach(tree, root, self.target)
