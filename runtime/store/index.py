"""`index.json`: which tags the store has manifests for, as any OCI tool reads it (`skopeo inspect oci:<store>:<name>`).

The database decides; the file is written after it and from it alone, so a writer that dies in between is made up for
by the next. A tag appears under its canonical and its short name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from registry_client.oci import media_types
from registry_client.oci.config import parse_config
from registry_client.oci.descriptor import Descriptor
from registry_client.oci.manifest import make_index
from registry_client.reference import parse_reference
from runtime.store.durable import faults_of_the_host, replace_file
from runtime.store.locks import lock

if TYPE_CHECKING:
    from runtime.store.store import Store

_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_TAGGED = """SELECT tags.name, images.manifest, images.config, manifests.media_type
             FROM tags JOIN images ON images.id = tags.image
             JOIN manifests ON manifests.digest = images.manifest AND manifests.image = images.id
             GROUP BY tags.name ORDER BY tags.name"""


def update_index(store: Store) -> None:
    """Bring `index.json` up to date; not touched when it already is."""
    path = os.path.join(store.root, "index.json")
    with lock(store.root, "index.json"), faults_of_the_host(f"cannot write {path}"):
        raw = _index(store)
        with open(path, "rb") as file:
            if file.read() == raw:
                return
        replace_file(path, raw)


def _index(store: Store) -> bytes:
    entries = []
    for row in store.db.read(_TAGGED):
        if store.content.has(row["manifest"]):
            entries += _entries(store, row["name"], row["manifest"], row["media_type"], row["config"])
    return make_index(tuple(entries)).raw


def _entries(store: Store, name: str, digest: str, media_type: str, config: bytes) -> list[Descriptor]:
    found = Descriptor(media_type or media_types.OCI_MANIFEST, digest, 0)  # type: ignore[arg-type]
    size, platform = store.content.size(found.digest), parse_config(config).platform
    names = dict.fromkeys((parse_reference(name).familiar, name))
    return [
        Descriptor(found.media_type, found.digest, size, {_FULL_NAME: name, _REF_NAME: each}, platform)
        for each in names
    ]
