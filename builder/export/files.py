"""Where archives are written: a file that is complete or not there, standard output, or a directory."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from registry_client.oci.digest import Digest
from runtime.cancel import Cancel
from runtime.errors import HostFault, InvalidInput
from runtime.store.durable import faults_of_the_host, remove_file, replace_file
from runtime.store.store import Store

_CHUNK = 1 << 20


@contextmanager
def opened_output(dest: str) -> Iterator[BinaryIO]:
    """The file to write to, complete under its name at the end of the block or not at all."""
    if dest == "-":
        out = sys.stdout.buffer
        try:
            yield out
            out.flush()
        except BrokenPipeError:
            raise  # whoever read it has enough, which is no fault
        except OSError as error:
            raise HostFault(f"cannot write to standard output: {error.strerror}") from error
        return
    if os.path.isdir(dest):
        raise InvalidInput(f"output {dest} is a directory", hint="name a file")
    temporary = f"{dest}.{secrets.token_hex(4)}"
    with faults_of_the_host(f"cannot write {dest}"):
        os.makedirs(os.path.dirname(dest) or ".", exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                yield file
            os.rename(temporary, dest)
        except BaseException:
            remove_file(temporary)
            raise


def write_layout(
    store: Store, dest: str, blobs: Iterable[Digest], files: Mapping[str, bytes], cancel: Cancel
) -> None:
    """An OCI layout as a directory: blobs that are there already stay, `index.json` comes last."""
    from runtime.images.archive_out import blob_name

    if os.path.exists(dest) and not os.path.isdir(dest):
        raise InvalidInput(f"output {dest} is not a directory")
    with faults_of_the_host(f"cannot write to {dest}"):
        for digest in sorted(set(blobs)):
            place = os.path.join(dest, blob_name(digest))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if not os.path.exists(place):
                _copy_blob(store, digest, place, cancel)
        for name, data in sorted(files.items(), key=lambda each: each[0] == "index.json"):
            replace_file(os.path.join(dest, name), data)


def _copy_blob(store: Store, digest: Digest, place: str, cancel: Cancel) -> None:
    with store.content.open(digest) as source, opened_output(place) as out:
        while chunk := source.read(_CHUNK):
            cancel.check()
            out.write(chunk)
