"""A layer of `COPY --link` and the root it is for: it is made without it, and put on it when somebody needs both (A-72).

So it can be made, and pushed, while its root's own layers are at a registry.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.pools import Task
from builder.state import Made, RootState
from registry_client.oci.digest import Digest
from runtime.store.store import Store


def linked(store: Store, snapshot: str, root: RootState, diff_id: Digest, size: int) -> str:
    """The layer of a snapshot that stands on something else, on `root`: the same files by hard links."""
    from builder.operations.linking import link_tree

    with store.snapshots.prepare(root.snapshot()) as draft:
        link_tree(store.snapshots.path(snapshot), draft.upper)
        made = draft.commit()
    store.snapshots.identify(made.id, diff_id, size, below=root.chain() or None)
    return made.id


def standing_alone(
    store: Store,
    snapshot: str,
    root: RootState,
    made: Made | Task[Made],
    moved: Callable[[str, Digest], None],
    *,
    cached: bool,
    definition: str,
) -> RootState:
    """The state after a step whose layer is `snapshot`, on nothing. `moved` is told where it stands once it was joined."""

    def join() -> str:
        done = made.result() if isinstance(made, Task) else made
        known = store.snapshots.by_chain(done.chain_id)
        if known is not None:
            return known.id
        for below in root.unjoined():
            below.snapshot()  # one after the other: a line of many must not recurse
        joined = linked(store, snapshot, root, done.diff_id, done.size)
        moved(joined, done.chain_id)
        return joined

    return RootState(
        parent=root,
        unpack=join,
        made=made,
        cached=cached,
        definition=definition,
        joins=True,
    )
