"""WORKDIR: a directory and its missing parents (A-45)."""

from __future__ import annotations

from builder.content import EMPTY_CONTENT, Content
from builder.graph import MakeDirectory
from builder.keys import Shape, directory_shape
from builder.operations.owners import ROOT, resolve_owner
from builder.operations.roots import Root
from builder.operations.step import Outcome, Setting
from runtime.store.snapshots import Draft


class DirectoryStep:
    independent = False

    def __init__(self, operation: MakeDirectory, setting: Setting) -> None:
        self._operation, self._setting = operation, setting
        self.shape: Shape = directory_shape(operation, setting.surroundings)

    def content(self) -> Content:
        return EMPTY_CONTENT

    def execute(self, draft: Draft) -> Outcome:
        root = Root(draft.upper, draft.lowers)
        path = root.resolve(self._operation.path)
        if root.directories(path):
            return Outcome(unneeded=True)
        owner = resolve_owner(self._operation.user, root) if self._operation.user else ROOT
        root.ensure(path, uid=owner.uid, gid=owner.gid, mtime_ns=self._setting.directory_ns())
        root.settle()
        return Outcome()
