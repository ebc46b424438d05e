"""One blob on its way into the store: verified, resumed where it broke, fetched once by all who want it, and readable
while it comes.

Who reads an arrival sees bytes that nobody verified yet. What an unpacker makes of them is checked against the diff_id,
and counts only when the blob was found right as well.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from runtime.errors import InvalidInput
from runtime.store.locks import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry_client.oci.descriptor import Descriptor
    from registry_client.oci.digest import Digest
    from registry_client.reference import Reference
    from runtime.cancel import Cancel
    from runtime.images.progress import Reporter
    from runtime.images.transport import Client
    from runtime.store import Store
    from runtime.store.content import Writer


class Restarted(Exception):
    """What came first was wrong and comes again: read the blob when it is whole."""


def is_here(store: Store, digest: Digest) -> bool:
    """Whether a blob is in the store; it is kept from now on."""
    # Leased first, so that what is found is not collected afterwards.
    store.leases.keep("blob", digest)
    return store.content.has(digest)


def receive(
    store: Store,
    client: Client,
    source: Reference,
    blob: Descriptor,
    cancel: Cancel,
    report: Reporter | None = None,
) -> None:
    """Get a blob into the store, unless it is there."""
    arrival = Arrival(store, blob)
    arrival.run(client, source, cancel, report)
    arrival.wait()


class Arrival:
    """One blob. `run` brings it, in one thread; others may read what has come and wait for the end."""

    def __init__(self, store: Store, blob: Descriptor) -> None:
        self.blob = blob
        self._store = store
        self._changed = threading.Condition()
        self._descriptor = -1  # of the partial file, while it is received by us
        self._received = self.restarts = 0
        self._whole = False
        self._error: BaseException | None = None

    # --- bringing -------------------------------------------------------------------------------------------------

    def run(self, client: Client, source: Reference, cancel: Cancel, report: Reporter | None = None) -> None:
        """Fetch the blob; how it went is told by `wait`. Another process that fetches the same one is waited for."""
        try:
            cancel.check()
            if not is_here(self._store, self.blob.digest):
                with lock(self._store.root, f"blob {self.blob.digest}", cancel):
                    if not self._store.content.has(self.blob.digest):
                        self._transfer(client, source, cancel, report)
            if report is not None:
                report.done()
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            self._end(error)
        else:
            self._end(None)

    def _transfer(self, client: Client, source: Reference, cancel: Cancel, report: Reporter | None) -> None:
        blob = self.blob
        with (
            self._store.content.writer(blob.digest, blob.size, resume_key=blob.digest) as writer,
            self._shown(writer),
        ):
            resumed = writer.offset > 0
            self._receive(writer, client, source, cancel, report)
            try:
                writer.commit()
            except InvalidInput:
                if not resumed:
                    raise
                # What an earlier process left was not what it should be (a power loss may do that): all anew.
                writer.restart()
                with self._changed:
                    self._received, self.restarts = 0, self.restarts + 1
                    self._changed.notify_all()
                self._receive(writer, client, source, cancel, report)
                writer.commit()

    @contextmanager
    def _shown(self, writer: Writer) -> Iterator[None]:
        """Let others read the partial file."""
        with self._changed:
            self._descriptor, self._received = writer.reading(), writer.offset
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                os.close(self._descriptor)
                self._descriptor = -1

    def _receive(
        self, writer: Writer, client: Client, source: Reference, cancel: Cancel, report: Reporter | None
    ) -> None:
        blob = self.blob
        # The writer hashes anyway; the client need not.
        with client.blob(
            source.path, blob.digest, offset=writer.offset, size=blob.size, urls=blob.urls, verify=False
        ) as chunks:
            for chunk in chunks:
                cancel.check()
                writer.write(chunk)
                with self._changed:
                    self._received = writer.offset
                    self._changed.notify_all()
                if report is not None:
                    report.at(writer.offset)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error, self._whole = error, error is None
            self._changed.notify_all()

    # --- using ----------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Until the blob is in the store; raises what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: self._whole or self._error is not None)
        if self._error is not None:
            raise self._error

    def open(self) -> BinaryIO:
        """The blob's bytes as they come. Reading waits for more, and raises what went wrong with the transfer."""
        return cast(BinaryIO, _Following(self))

    def read_at(self, offset: int, size: int, restarts: int) -> bytes | None:
        """Bytes of the partial file; None when the blob is in its place and has to be read there."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._whole
                    or self._error is not None
                    or self.restarts > restarts
                    or (self._descriptor >= 0 and self._received > offset)
                )
            )
            if self._error is not None:
                raise self._error
            if self.restarts > restarts:
                raise Restarted
            if self._whole:
                return None
            return os.pread(self._descriptor, min(size, self._received - offset), offset)

    def open_whole(self) -> BinaryIO:
        return self._store.content.open(self.blob.digest)


class _Following:
    """A reader a step behind the writer."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival, self._restarts = arrival, arrival.restarts
        self._offset = 0
        self._file: BinaryIO | None = None

    def read(self, size: int) -> bytes:
        if self._file is None:
            data = self._arrival.read_at(self._offset, size, self._restarts)
            if data is not None:
                self._offset += len(data)
                return data
            self._file = self._arrival.open_whole()
            self._file.seek(self._offset)
        return self._file.read(size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> BinaryIO:
        return cast(BinaryIO, self)

    def __exit__(self, *error: object) -> None:
        self.close()
