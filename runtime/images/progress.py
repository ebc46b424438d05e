"""Telling how far a transfer is."""

from __future__ import annotations

import time

from registry_client.oci.descriptor import Descriptor
from runtime.events import Emit, Progress

_SECONDS = 0.05


class Reporter:
    """Progress of one blob, not more often than anyone can see."""

    def __init__(self, emit: Emit, node: str, blob: Descriptor) -> None:
        self._emit, self._node, self._blob = emit, node, blob
        self._next = 0.0

    def at(self, current: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS
            self._send(current)

    def done(self) -> None:
        self._send(self._blob.size)

    def _send(self, current: int) -> None:
        item = self._blob.digest.partition(":")[2][:12]
        self._emit(Progress(node=self._node, item=item, current=current, total=self._blob.size))
