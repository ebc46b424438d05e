"""What the store's file system can do, found out once and kept beside the layers: hold overlay's marks, carry an overlay.

The record is a line in the file `filesystem`: reading it costs less than a row of the database. The form of the layers in
it holds as long as the store; the rest is found out anew after a boot and when the store has come to another device.
"""

from __future__ import annotations

import os

from registry_client.values import frozen
from runtime.errors import Unsupported
from runtime.store.durable import faults_of_the_host, replace_file
from runtime.store.hiding import FORMS, OVERLAY, PLAIN, Form
from runtime.store.owners import boot_id

SNAPSHOTS = ("auto", "overlay", "copy")
_NAME, _LIMIT = "filesystem", 1000


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
            handle = os.open(os.path.join(self._root, _NAME), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            form, boot, device, refusal = os.read(handle, _LIMIT).decode().rstrip("\n").split(":", 3)
            return Place(FORMS[form], boot, int(device), refusal)
        except (KeyError, ValueError):
            return None
        finally:
            os.close(handle)

    @property
    def form(self) -> Form:
        """The form of the layers that are here."""
        if self._known is None:
            self._known = self._read()  # another process may have made the first one meanwhile
        return OVERLAY if self._known is None else self._known.form

    def settled_form(self) -> Form:
        """The form of the layers that are to be made here; the file system is looked at if it was not yet."""
        if self._wanted != "overlay":
            self._settle()
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
        place = self._settle()
        if place.form is PLAIN:
            return place.refusal or "the store's layers are in plain form"
        return place.refusal or ("asked for with PIPE_SNAPSHOTS=copy" if self._wanted == "copy" else "")

    def _settle(self) -> Place:
        """What is known, looked at again where it may have changed."""
        known = self._known or self._read()
        if known is None:
            known = self._look(None)
        elif known.form is OVERLAY and (known.boot, known.device) != (boot_id(), self._device):
            known = self._look(known)
        self._known = known
        return known

    def _look(self, before: Place | None) -> Place:
        from runtime.store.probing import adopt_form, probe

        probed = probe(os.path.join(self._root, "drafts"))
        if before is None:
            form = adopt_form(self._root, probed.holds)
        elif probed.holds:
            form = before.form
        else:
            raise Unsupported(
                f"the layers of the store {self._root} are in overlay form, which {probed.kind} cannot hold",
                hint="move the store back, or use another with PIPE_ROOT",
            )
        place = Place(form, boot_id(), self._device, probed.refusal)
        if probed.lasting:
            text = f"{form.directory}:{place.boot}:{place.device}:{place.refusal}\n"
            with faults_of_the_host(f"cannot write to {self._root}"):
                replace_file(os.path.join(self._root, _NAME), text.encode())
        return place
