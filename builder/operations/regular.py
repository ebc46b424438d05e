"""Reading regular files: their content digests, the attributes a layer carries, and one pass that serves several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.operations.feed import NO_XATTRS, LayerFeed
from builder.operations.walking import Item, changed_while_read, unreadable

if TYPE_CHECKING:
    from builder.digests import Directory
    from runtime.cancel import Cancel

CHUNK = 1 << 20


def read_digest(item: Item, files: Directory, cancel: Cancel | None = None) -> bytes:
    """The content digest, read only if it is not remembered; nothing for what is no regular file."""
    if item.status.st_mode >> 12 != 0o10:
        return b""
    known = files.know(item.status)
    if known is not None:
        return known
    try:
        handle = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(item.path, error) from error
    with open(handle, "rb", buffering=0) as file:
        hasher = hashlib.sha256()
        while data := file.read(CHUNK):
            hasher.update(data)
            if cancel is not None and len(data) == CHUNK:
                cancel.check()
        digest = with_xattrs(hasher.digest(), visible(handle))
    files.learn(item.status, digest)
    return digest


def digest_of_data(data: bytes, xattrs: Mapping[str, bytes]) -> bytes:
    """The content digest of a file that was read at once."""
    return with_xattrs(hashlib.sha256(data).digest(), xattrs)


def with_xattrs(digest: bytes, found: Mapping[str, bytes]) -> bytes:
    """The digest of a file's data together with the extended attributes a layer carries, if it has any."""
    if not found:
        return digest
    values = b"".join(os.fsencode(name) + b"\0" + found[name] + b"\0" for name in sorted(found))
    return hashlib.sha256(digest + values).digest()


def visible(source: str | int) -> Mapping[str, bytes]:
    """What a layer carries of extended attributes."""
    names = os.listxattr(source)
    if not names:
        return NO_XATTRS
    return {
        name: os.getxattr(source, name) for name in names if name.startswith(("user.", "security.capability"))
    }


def copy_visible_xattrs(source: str, target: str) -> None:
    for name, value in visible(source).items():
        os.setxattr(target, name, value)


def stream(
    source: int,
    item: Item,
    data: bytes,
    feed: LayerFeed | None,
    cancel: Cancel,
    *,
    copy: int | None,
    digest: bool,
) -> bytes:
    """Read a long file on from its first piece `data` to the end, for the layer, for a copy and for the digest of the data.

    The hashes are computed beside the reading and writing. What is no longer as long as it was listed is an error.
    """
    from runtime.store.layers.pipe import Hashing

    size, done = item.status.st_size, 0
    with Hashing(hashlib.sha256()) as hashing:
        while data:
            cancel.check()
            done += len(data)
            if done > size:
                break
            if digest:
                hashing.update(data)
            if feed is not None:
                feed.write(data)
            if copy is not None:
                write_all(copy, data)
            data = os.read(source, CHUNK)
        if done != size:
            raise changed_while_read(item.path)
        return hashing.digest() if digest else b""


def write_all(handle: int, data: bytes) -> None:
    written = os.write(handle, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(handle, view[written:])
