"""The steps an image was made by, and which one somebody means: by number, by text, or as stage/step.

Records of the build cache know them best; what was pulled has only its history. Reads only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder.cache import fields_of
from builder.failed import KeptMount, Situation, shell_of
from builder.history import config_at
from registry_client.oci.digest import Digest, chain_ids
from runtime.errors import InvalidInput, NotFound
from runtime.store.store import Store

if TYPE_CHECKING:
    from runtime.images.image import Image


def find_step(store: Store, image: Image, wanted: str) -> Situation:
    """The state after the step `wanted` of an image."""
    if match := re.fullmatch(r"([^/\s]+)/([0-9]+)", wanted):
        return _of_stage(store, image, match[1], int(match[2]))
    steps = _instructions(store, image)
    if wanted.isdigit():
        if not 1 <= int(wanted) <= len(steps):
            raise NotFound(f"the image has no step {wanted}", hint=f"it has {len(steps)}; see `pipe history`")
        return _after(store, image, int(wanted), steps[int(wanted) - 1])
    found = [n for n, text in enumerate(steps, 1) if wanted.lower() in text.lower()]
    if not found:
        raise NotFound(f"no step of the image says {wanted!r}", hint="see `pipe history`")
    if len(found) > 1:
        numbers = ", ".join(str(number) for number in found)
        raise InvalidInput(f"steps {numbers} all say {wanted!r}", hint="give the number, or more of the text")
    return _after(store, image, found[0], steps[found[0] - 1])


def _instructions(store: Store, image: Image) -> list[str]:
    """What made each layer, bottom first."""
    history = [entry.created_by for entry in image.config.history if not entry.empty_layer]
    texts = history + [""] * (len(image.diff_ids) - len(history))
    records = [_record(store, chain) for chain in chain_ids(image.diff_ids)]
    return [str(row["label"]) if row is not None else text for row, text in zip(records, texts)]


def _record(store: Store, chain: str) -> Any:
    return store.db.one("SELECT * FROM cache_records WHERE chain_id = ? ORDER BY used DESC LIMIT 1", (chain,))


def _after(store: Store, image: Image, number: int, label: str) -> Situation:
    diff_ids = image.diff_ids[:number]
    row = _record(store, chain_ids(diff_ids)[-1])
    fields = fields_of(row) if row is not None else {}
    return _of_run(label, diff_ids, fields) if "args" in fields else config_at(image.config, number, label)


def _of_run(label: str, diff_ids: tuple[Digest, ...], fields: dict[str, Any]) -> Situation:
    """A RUN knows what it saw, arguments included, and which secrets and agents it had."""
    args: Sequence[str] = fields["args"]
    names = ("type", "target", "id", "mode", "uid", "gid", "env")
    mounts = tuple(
        KeptMount(**{name: each[name] for name in names if name in each})
        for each in fields.get("mounts", ())
        if each["type"] in ("secret", "ssh", "tmpfs")
    )
    return Situation(
        label,
        diff_ids,
        tuple(fields["env"]),
        fields["cwd"],
        fields["user"],
        shell_of(args),
        mounts,
        network=fields.get("network", ""),
    )


# --- other stages of the same Dockerfile --------------------------------------------------------------------------


def _of_stage(store: Store, image: Image, stage: str, number: int) -> Situation:
    """A step of any stage of the Dockerfile the image was built from: its newest record."""
    for chain in reversed(chain_ids(image.diff_ids)):
        row = _record(store, chain)
        if row is not None and row["place"]:
            break
    else:
        raise NotFound("nothing is known of how the image was built", hint="give the number of a step")
    file = str(row["place"]).rpartition(":[")[0]
    name = "" if stage == "stage-0" else rf"{re.escape(stage)} "
    sought = re.compile(rf"\[(?:\S+ )?{name}\s*{number}/[0-9]+")
    rows = store.db.read("SELECT * FROM cache_records WHERE place LIKE ? ORDER BY used DESC", (f"{file}:[%",))
    for candidate in rows:
        if sought.match(candidate["label"]) and candidate["chain_id"]:
            diff_ids, fields = _diff_ids(store, candidate["chain_id"]), fields_of(candidate)
            if "args" in fields:
                return _of_run(candidate["label"], diff_ids, fields)
            return Situation(candidate["label"], diff_ids, **_near(rows, name, number))
    raise NotFound(f"no record of step {number} of stage {stage}", hint="build it again")


def _near(rows: Sequence[Any], name: str, number: int) -> dict[str, Any]:
    """What the nearest RUN of the same stage saw: the image's history does not tell of other stages."""
    found: dict[int, Any] = {}
    for row in rows:
        place = re.match(rf"\[(?:\S+ )?{name}\s*([0-9]+)/[0-9]+", row["label"])
        if place and row["chain_id"] and "args" in (fields := fields_of(row)):
            found.setdefault(int(place[1]), fields)
    if not found:
        return {}
    fields = found[min(found, key=lambda n: (abs(n - number), n > number))]
    return {"env": tuple(fields["env"]), "cwd": fields["cwd"], "user": fields["user"]}


def _diff_ids(store: Store, chain: str) -> tuple[Digest, ...]:
    found: list[Digest] = []
    here: str | None = chain
    while here:
        row = store.db.one("SELECT parent, diff_id FROM chains WHERE chain_id = ? LIMIT 1", (here,))
        if row is None:
            raise NotFound(
                f"the layers below {chain[:19]} are not in the store any more", hint="build it again"
            )
        found.append(Digest(row["diff_id"]))
        here = row["parent"]
    return tuple(reversed(found))
