"""`docker buildx du` and `docker buildx prune`: the build cache, and the clients' files that are kept."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

from builder.control.contexts import collect_contexts
from builder.control.messages.common import Timestamp
from builder.control.messages.control import PruneRequest, UsageRecord
from builder.prune import MOUNT, Entry, Policy, entries, prune
from runtime.errors import InvalidInput
from runtime.store.store import Store

_SECOND = 10**9
_CACHE_MOUNT, _STEP, _FILES = "exec.cachemount", "regular", "source.local"
# Which of our kinds a client means by BuildKit's.
_KINDS = {_STEP: ("exec", "copy", "makedirectory"), _CACHE_MOUNT: (MOUNT,), "source.git.checkout": ("git",)}


def usage(store: Store, filters: Iterable[str]) -> list[UsageRecord]:
    """A record for every step and cache mount, last used first."""
    found = [_record(entry) for entry in entries(store)]
    return [record for record in found if all(_is_meant(record, text) for text in filters)]


def _record(entry: Entry) -> UsageRecord:
    return UsageRecord(
        entry.id,
        mutable=entry.kind == MOUNT,
        size=entry.size,
        created=Timestamp.of(entry.made / _SECOND),
        used=Timestamp.of(entry.used / _SECOND),
        uses=entry.uses,
        description=entry.label,
        type=_CACHE_MOUNT if entry.kind == MOUNT else _STEP,
        shared=entry.shared,
    )


def _is_meant(record: UsageRecord, text: str) -> bool:
    """`type==regular`, `id~=abc`: containerd's filters, as far as clients write them; several in one have all to fit."""
    return all(_fits(record, each) for each in text.split(",") if each)


def _fits(record: UsageRecord, text: str) -> bool:
    for operator in ("~=", "==", "!=", "="):
        name, found, value = text.partition(operator)
        if not found:
            continue
        values = {"id": record.id, "type": record.type, "description": record.description}
        if name not in values:
            raise InvalidInput(f"filter {text!r}: unknown field {name!r}", hint="use id, type or description")
        if operator == "~=":
            return fnmatch.fnmatchcase(values[name], f"*{value}*")
        return (values[name] == value) is (operator != "!=")
    raise InvalidInput(f"filter {text!r} is not FIELD==VALUE")


def pruned(store: Store, request: PruneRequest) -> Iterator[UsageRecord]:
    """Remove what is asked for; a record for everything that is gone."""
    ids: list[str] = []
    kinds: list[str] = []
    for text in filter(None, request.filters):
        name, _, value = text.partition("==")
        if name == "id":
            ids.append(value)
        elif name == "type":
            kinds += _KINDS.get(value, (value,))
        else:
            raise InvalidInput(f"filter {text!r} is not supported here", hint="use until, id or type")
    policy = Policy(
        everything=request.all,
        unused_seconds=request.keep_duration / _SECOND,
        ids=tuple(ids),
        kinds=tuple(kinds),
        max_used=request.max_used_space or None,
        reserved=request.reserved_space or None,
        min_free=request.min_free_space,
    )
    for entry in prune(store, policy).entries:
        yield _record(entry)
    plain = (
        not request.filters and not request.keep_duration and policy.max_used is None and not policy.min_free
    )
    if plain and (freed := collect_contexts(store.root, everything=True)):
        yield UsageRecord("contexts", size=freed, type=_FILES, description="files of clients")
