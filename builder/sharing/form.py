"""What a cache looks like outside of a store. Pure.

A cache is an OCI image manifest: its config holds the records of the steps with the named fields of their keys, its
layers are the steps' layers. `diff_ids` of the config names the layers in the manifest's order, as the config of an image
does, and a record says which of them is its own. A record may be there without its layer: then the step is known, and
what needs no more than its name is found. An image carries the same config under `INLINE_KEY` of its own one.

Nothing in it depends on the machine: equal builds give equal bytes. BuildKit's own form
(`application/vnd.buildkit.cacheconfig.v0`) names layers, not keys we could match, and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from registry_client.oci.descriptor import Descriptor
from registry_client.oci.digest import Digest, parse_digest
from registry_client.oci.manifest import Manifest, canonical_json

CONFIG_TYPE = "application/vnd.pipe.cache.config.v1+json"
INLINE_KEY = "pipe.cache.v1"
VERSION = 1
CONFIG_LIMIT = 64 << 20
_NUMBERS = 1 << 63


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """One step that was done: `builder.cache.Record` without its snapshot, and the fields of its key."""

    key: str
    shape: str
    kind: str
    label: str
    root: str  # the chain id it stands on
    diff_id: Digest  # "" when there was nothing to do
    chain_id: Digest
    made: int  # nanoseconds
    size: int
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    files: tuple[str, ...] = ()  # what it took in, one line for each file, for `pipe why`; not of very many

    @property
    def place(self) -> str:
        """`[stage 2/5`: where in the Dockerfile."""
        return self.label.partition("]")[0]


@dataclass(frozen=True, slots=True)
class SharedContent:
    """The content digest of a selection of a finished root: with it a key is known without the root's files."""

    chain_id: str
    selector: str
    digest: str


@dataclass(frozen=True, slots=True)
class SharedCache:
    """A whole cache. `layers` are those that can be fetched, by diff_id."""

    records: tuple[SharedRecord, ...]
    contents: tuple[SharedContent, ...] = ()
    layers: Mapping[Digest, Descriptor] = field(default_factory=dict, hash=False)


def dump_records(records: Iterable[SharedRecord], contents: Iterable[SharedContent]) -> dict[str, Any]:
    """The JSON object of a cache, without its layers."""
    return {
        "version": VERSION,
        "records": [asdict(record) for record in records],
        "contents": [
            asdict(each) for each in sorted(contents, key=lambda each: (each.chain_id, each.selector))
        ],
    }


def dump_config(
    records: Iterable[SharedRecord], contents: Iterable[SharedContent], diff_ids: Sequence[Digest]
) -> bytes:
    """The config of a cache's manifest whose layers are `diff_ids`."""
    return canonical_json({**dump_records(records, contents), "diff_ids": list(diff_ids)})


def parse_cache(raw_config: bytes, manifest: Manifest) -> SharedCache | None:
    """The cache that a manifest is or, as an image, carries; None for an image without. ValueError when damaged."""
    try:
        record = json.loads(raw_config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the config is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("the config is not a JSON object")
    if manifest.config.media_type == CONFIG_TYPE:
        return _cache(record, record.get("diff_ids"), manifest)
    inline, rootfs = record.get(INLINE_KEY), record.get("rootfs")
    if not isinstance(inline, dict):
        return None
    return _cache(inline, rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, manifest)


def _cache(record: dict[str, Any], diff_ids: Any, manifest: Manifest) -> SharedCache:
    if record.get("version") != VERSION:
        raise ValueError(f"cache version {record.get('version')!r} is not known")
    try:
        # A lone surrogate is valid JSON, but no text that could be stored or shown.
        json.dumps(record, ensure_ascii=False).encode()
        names = [parse_digest(text) for text in diff_ids or ()]
        records = tuple(_record(each) for each in record["records"])
        contents = tuple(
            SharedContent(str(each["chain_id"]), str(each["selector"]), str(each["digest"]))
            for each in record["contents"]
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the cache's config is damaged: {error}") from error
    if len(names) != len(manifest.layers):
        raise ValueError(f"{len(manifest.layers)} layers in the manifest, {len(names)} in the config")
    return SharedCache(records, contents, dict(zip(names, manifest.layers)))


def _record(record: dict[str, Any]) -> SharedRecord:
    fields = record["fields"]
    if not isinstance(fields, dict):
        raise TypeError("the fields of a record are no object")
    files = tuple(str(line) for line in record["files"])
    texts = {name: str(record[name]) for name in ("key", "shape", "kind", "label", "root")}
    made, size = int(record["made"]), int(record["size"])
    if not (0 <= made < _NUMBERS and 0 <= size < _NUMBERS):
        raise ValueError(f"impossible time or size: {made}, {size}")
    return SharedRecord(
        **texts,
        diff_id=_digest(record["diff_id"]),
        chain_id=_digest(record["chain_id"]),
        made=made,
        size=size,
        fields=fields,
        files=files,
    )


def _digest(text: Any) -> Digest:
    return parse_digest(str(text)) if text else Digest("")
