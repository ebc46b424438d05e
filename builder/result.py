"""From the solved graph to the image's config: history, layers, times (A-55, A-97, A-98). Pure.

A layer's time is when its step was really done, so a rebuild from the cache gives the same config, and with it the same
image id. Metadata takes the time of the layer below. With an epoch everything has that time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from builder.graph import StageGraph
from builder.state import RootState, State
from registry_client.oci.config import History, dump_config
from registry_client.oci.digest import Digest
from registry_client.values import replace

COMMENT = "buildkit.dockerfile.v0"


def image_config(graph: StageGraph, states: Mapping[Digest, State], epoch: int | None) -> bytes:
    """The config's bytes."""
    base = graph.base_config
    history = list(base.history) if base is not None else []
    diff_ids = list(base.diff_ids) if base is not None else []
    created = base.created if base is not None else ""
    if epoch is not None:
        created = rfc3339(epoch * 10**9)
    for instruction in graph.instructions:
        made = None
        if instruction.vertex is not None:
            state = states[instruction.vertex.digest]
            assert isinstance(state, RootState)
            made = state.made()
        if made is not None and made.diff_id:
            diff_ids.append(made.diff_id)
            if epoch is None:
                created = max(created, rfc3339(made.made))
        history.append(
            History(
                created=created,
                created_by=instruction.created_by,
                empty_layer=made is None or not made.diff_id,
                comment=COMMENT,
                author=graph.config.author,
            )
        )
    config = replace(
        graph.config,
        diff_ids=tuple(diff_ids),
        history=tuple(history),
        created=created or rfc3339(0),
    )
    return dump_config(config)


def rfc3339(time_ns: int) -> str:
    """UTC with nanoseconds, trailing zeros left out as Go does."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"
