"""What a killed run left: containers, networks and volumes of stages whose process is dead. Told by their labels.

The engine has put right their states already; whether a thing that ended may go is the pipeline's to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.engines import Engine
from runtime.store.owners import is_alive, own_token

KIND, OWNER = "pipe.kind", "pipe.owner"


def stage_labels() -> dict[str, str]:
    """On everything that exists only for a stage."""
    return {KIND: "stage", OWNER: own_token()}


def remove_leftovers(engine: Engine) -> list[str]:
    """Remove what belongs to no living process; the names."""
    wanted = {KIND: "stage"}
    removed = []
    for state in engine.containers(wanted):
        if _is_dead(state.labels):
            engine.remove(state.id)
            removed.append(state.name)
    for name, labels in list(engine.networks(wanted)):
        if _is_dead(labels):
            engine.remove_network(name)
            removed.append(name)
    for name, labels in list(engine.volumes(wanted)):
        if _is_dead(labels):
            engine.remove_volume(name)
            removed.append(name)
    return removed


def _is_dead(labels: Mapping[str, str]) -> bool:
    return not is_alive(labels.get(OWNER, ""))
