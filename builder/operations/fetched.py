"""Files that came from elsewhere, kept as snapshots with a record: so that the next build need not fetch them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from builder.cache import Cache, Record
from builder.content import EMPTY_CONTENT, Content
from builder.digests import NoMemory
from builder.keys import Shape, cache_key
from builder.operations.selection import Tree
from builder.state import FilesState
from registry_client.oci.digest import Digest
from runtime.store.store import Store

_NONE = Digest("")


def keep(
    store: Store, shape: Shape, version: str, fill: Callable[[str], None], notes: Mapping[str, str]
) -> Record:
    """A snapshot filled by `fill`, recorded under the shape and the version of what it holds."""
    from runtime.store.usage import size_of

    with store.snapshots.prepare(None) as draft:
        fill(draft.upper)
        size = size_of(draft.upper)
        snapshot = draft.commit()
    record = Record(_key(shape, version), shape.kind, snapshot.id, _NONE, _NONE, time.time_ns(), size)
    Cache(store).put(record, shape, EMPTY_CONTENT, notes=notes)
    return record


def find(store: Store, shape: Shape, version: str) -> Record | None:
    return Cache(store).find(_key(shape, version))


def _key(shape: Shape, version: str) -> str:
    return cache_key(shape, "", Content(version))


def as_files(
    store: Store, record: Record, *, name: str, subdir: str = "", time: int | None = None
) -> FilesState:
    """The snapshot's files as a source; they are root's, as those of a context."""
    path = store.snapshots.path(record.snapshot)
    return FilesState(Tree(f"{path}/{subdir}" if subdir else path, name=name), NoMemory(), record.key, time)
