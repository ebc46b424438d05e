"""What the store's file system can do, found out once and kept beside the layers: hold overlay's marks, carry an overlay.

The record is a symbolic link, `filesystem`, whose target is the text: reading it is one system call, replacing it one
rename. The form of the layers in it holds as long as the store; the rest is found out anew after a boot and when the
store has come to another device.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from registry_client.values import frozen
from runtime.errors import Unsupported
from runtime.store.hiding import FORMS, OVERLAY, PLAIN, Form
from runtime.store.owners import boot_id

if TYPE_CHECKING:
    from runtime.store.probing import Probed

SNAPSHOTS = ("auto", "overlay", "copy")
_NAME = "filesystem"


@frozen
class Place:
    """`refusal` says why no overlay with an upper directory can be mounted here; "" when one can."""

    form: Form
    boot: str
    device: int
    refusal: str


class Places:
    """The place of one store. `wanted` is the setting: auto, overlay (never copy) or copy (never mount)."""

    def __init__(self, root: str, device: int, wanted: str = "auto") -> None:
        self._root, self._device, self._wanted = root, device, wanted
        self._known = self._read()

    def _read(self) -> Place | None:
        try:
            form, boot, device, refusal = os.readlink(os.path.join(self._root, _NAME)).split(":", 3)
            return Place(FORMS[form], boot, int(device), refusal)
        except (FileNotFoundError, KeyError, ValueError):
            return None

    @property
    def form(self) -> Form:
        """The form of the layers that are here."""
        return OVERLAY if self._known is None else self._known.form

    def settled_form(self) -> Form:
        """The form of the layers that are to be made here; the file system is looked at if it was not yet."""
        if self._known is None and self._wanted != "overlay":
            self._look()
        return self.form

    @property
    def copies(self) -> str:
        """Why merged views must be made by copying; "" when they are mounted."""
        if self._wanted == "overlay":
            if self.form is PLAIN:
                raise Unsupported(
                    f"the layers of the store {self._root} are in plain form, which the kernel cannot merge",
                    hint="leave out PIPE_SNAPSHOTS=overlay, or use another store with PIPE_ROOT",
                )
            return ""
        if self._known is None or (self._known.boot, self._known.device) != (boot_id(), self._device):
            self._look()
        assert self._known is not None
        if self.form is PLAIN:
            return self._known.refusal or "its layers are in plain form"
        return self._known.refusal or ("asked for with PIPE_SNAPSHOTS=copy" if self._wanted == "copy" else "")

    def _look(self) -> None:
        from runtime.store.probing import adopt_form, probe

        probed = probe(os.path.join(self._root, "drafts"))
        if self._known is None:
            form = adopt_form(self._root, OVERLAY if probed.holds else PLAIN)
        else:
            form = self._still(self._known.form, probed)
        self._known = Place(form, boot_id(), self._device, probed.refusal)
        if probed.lasting:
            self._write(self._known)

    def _still(self, form: Form, probed: Probed) -> Form:
        if form is OVERLAY and not probed.holds:
            raise Unsupported(
                f"the layers of the store {self._root} are in overlay form, which {probed.kind} cannot hold",
                hint="move the store back, or use another with PIPE_ROOT",
            )
        return form

    def _write(self, place: Place) -> None:
        text = f"{place.form.directory}:{place.boot}:{place.device}:{place.refusal}"
        temporary = os.path.join(self._root, f".{_NAME}.{os.urandom(6).hex()}")
        os.symlink(text, temporary)
        os.rename(temporary, os.path.join(self._root, _NAME))
