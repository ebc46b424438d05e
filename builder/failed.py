"""A step that failed, for those who want to look (FEATURES B-27): while it is there, and afterwards.

While the build still waits, `FailedStep.start` runs a program in the step's sandbox: the same root, mounts, environment,
user, directory, secrets. Afterwards its root is an ordinary snapshot that nothing refers to, so the next garbage collection
takes it; a note beside the database says which it was and what the step saw. Values of secrets are in neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.graph import Exec, RunMount, Vertex
from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import as_dict, frozen
from runtime.errors import NotFound
from runtime.store.durable import replace_file
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.state import RootState
    from runtime.sandbox.spawner import Process
    from runtime.store.snapshots import Draft

_NOTE = "last-failed.json"
_KEPT_FREE = 256 << 20  # bytes


@frozen
class FailedStep:
    """A RUN whose sandbox is still standing. `start` wants words and the size of a terminal (rows, columns)."""

    label: str
    shell: str
    start: Callable[[Sequence[str], int, int], Process]


@frozen(kw_only=True)
class KeptMount:
    """A mount of a step as it can be had again. What was secret is named only: whoever wants it gives it once more."""

    type: str  # bind, cache, tmpfs, secret, ssh
    target: str
    source: str = ""  # the name of a cache's directory; the path within `snapshot`
    snapshot: str = ""
    readonly: bool = False
    id: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    env: str = ""


@frozen
class Situation:
    """A root and what a step saw in it: enough to go on from there. `diff_ids` are its layers, bottom first."""

    label: str
    diff_ids: tuple[Digest, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    shell: str = "/bin/sh"
    mounts: tuple[KeptMount, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()  # heredocs, by their names below /dev/pipes
    network: str = ""


def shell_of(argv: Sequence[str]) -> str:
    """The shell a RUN used, /bin/sh for one without."""
    return argv[0] if len(argv) > 1 and argv[1] == "-c" else "/bin/sh"


def keep_failed(
    store: Store, draft: Draft, parent: RootState, vertex: Vertex, binds: Mapping[str, tuple[str | None, str]]
) -> bool:
    """Let the root of a step that failed be, until the next collection, and note it down as the last.

    `binds` says by target which snapshot was shown there, and which path of it. False on a disk that is nearly full: the
    step may have failed of just that, and what it wrote is the first to go.
    """
    operation = vertex.operation
    assert isinstance(operation, Exec)
    disk = os.statvfs(store.root)
    if disk.f_bavail * disk.f_frsize < _KEPT_FREE:
        return False
    below = parent.diff_ids()
    snapshot = draft.commit()
    note = {
        "snapshot": snapshot.id,
        "label": vertex.label,
        "below": list(below),
        "env": [f"{name}={value}" for name, value in operation.env],
        "cwd": operation.cwd,
        "user": operation.user,
        "shell": shell_of(operation.argv),
        "network": operation.network,
        "mounts": [as_dict(_kept(mount, *binds.get(mount.target, ("", "")))) for mount in operation.mounts],
        "files": [[name, data.decode("utf-8", "surrogateescape")] for name, data in operation.files],
    }
    replace_file(os.path.join(store.root, _NOTE), json.dumps(note).encode(), 0o600)
    return True


def _kept(mount: RunMount, snapshot: str | None, path: str) -> KeptMount:
    if mount.type == "cache":
        from builder.operations.cachemounts import identity_of

        path = identity_of(mount.id)
    return KeptMount(
        type=mount.type,
        target=mount.target,
        source=path,
        snapshot=snapshot or "",
        readonly=mount.readonly,
        id=mount.id,
        mode=mount.mode or 0,
        uid=mount.uid,
        gid=mount.gid,
        env=mount.env,
    )


def last_failed(store: Store) -> Situation:
    """The step that failed last, its layer hashed now; NotFound when it was collected, or none failed."""
    note = _read_note(store)
    snapshot = store.snapshots.find(note["snapshot"]) if note else None
    if note is None or snapshot is None:
        raise NotFound(
            "no failed step is kept", hint="one is kept from its failure until the next garbage collection"
        )
    from runtime.store.layers import hash_layer

    info = hash_layer(store.snapshots.path(snapshot.id), lowers=store.snapshots.lowers(snapshot.id)[1:])
    below = tuple(Digest(each) for each in note["below"])
    with store.db.transaction():
        store.snapshots.identify(snapshot.id, info.diff_id, info.size)
        store.snapshots.link((*below, info.diff_id), snapshot.id)
    return Situation(
        note["label"],
        (*below, info.diff_id),
        tuple(note["env"]),
        note["cwd"],
        note["user"],
        note["shell"],
        tuple(KeptMount(**each) for each in note["mounts"]),
        tuple((name, text.encode("utf-8", "surrogateescape")) for name, text in note["files"]),
        note["network"],
    )


def _read_note(store: Store) -> dict[str, Any] | None:
    try:
        with open(os.path.join(store.root, _NOTE), encoding="utf-8") as file:
            note: dict[str, Any] = json.load(file)
            return note if "network" in note else None  # an older one says too little
    except FileNotFoundError:
        return None


def layers_of(store: Store, diff_ids: tuple[Digest, ...]) -> list[tuple[Digest, str]]:
    """Each layer with the snapshot it leads to."""
    found = []
    for diff_id, chain in zip(diff_ids, chain_ids(diff_ids), strict=True):
        snapshot = store.snapshots.by_chain(chain)
        if snapshot is None:
            raise NotFound(f"layer {diff_id[:19]} is not in the store any more", hint="build it again")
        found.append((diff_id, snapshot.id))
    return found
