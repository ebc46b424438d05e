"""A container's state in the words of docker's lists."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runtime.ages import age

if TYPE_CHECKING:
    from runtime.containers.container import Container


def status_text(container: Container) -> str:
    """`Up 3 minutes (healthy)`, `Exited (1) 2 hours ago`."""
    state = container.state
    if state.status == "created":
        return "Created"
    if state.status in ("restarting", "exited"):
        return f"{state.status.capitalize()} ({state.code}) {_since(state.finished)} ago"
    notes = {"": "", "starting": " (health: starting)"}
    health = notes.get(container.health, f" ({container.health})")
    return f"Up {_since(state.started)}{' (Paused)' if state.status == 'paused' else health}"


def _since(moment: float) -> str:
    return age(time.time() - moment)
