"""How a container is at the moment: `containers/<id>/state.json`, written by its shim and by nobody else while that lives.

The file is replaced as a whole, so a reader sees one state or the next. It names the process that wrote it: when that
is dead and the state says "running", the state is a dead shim's word and means exited (137).
"""

from __future__ import annotations

import json
import os
from typing import Any

CREATED, RUNNING, PAUSED, RESTARTING, EXITED = "created", "running", "paused", "restarting", "exited"
ALIVE = (RUNNING, PAUSED, RESTARTING)


class State:
    """Times are seconds since the epoch, 0 is "never"."""

    def __init__(self) -> None:
        self.status = CREATED
        self.pid = 0
        self.shim = ""  # owner token
        self.code = 0
        self.oom_killed = False
        self.error = ""
        self.started = 0.0
        self.finished = 0.0
        self.restarts = 0
        self.by_hand = False  # the last end was asked for: `always` does not bring it back
        self.health: dict[str, Any] | None = None

    @property
    def alive(self) -> bool:
        return self.status in ALIVE

    def to_json(self) -> bytes:
        return json.dumps(vars(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> State:
        state = cls()
        record = json.loads(data)
        for name in vars(state):
            if name in record:
                setattr(state, name, record[name])
        return state


def state_path(directory: str) -> str:
    return os.path.join(directory, "state.json")


def write_state(directory: str, state: State) -> None:
    """Replace the state. Not synced: after a power loss nothing of a container runs anyway."""
    path = state_path(directory)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, state.to_json())
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def read_state(directory: str) -> State:
    """The state as it is: what a dead shim left behind as running is exited."""
    try:
        with open(state_path(directory), "rb") as file:
            state = State.from_json(file.read())
    except FileNotFoundError:
        return State()
    except ValueError:  # a power loss kept the name and lost the data
        state = State()
        state.status, state.code, state.error = EXITED, 137, "the state was lost with the power"
        return state
    if state.alive and not shim_lives(state):
        state.status, state.code, state.pid = EXITED, 137, 0
        state.error = "the container's shim was killed"
        state.health = None
    return state


def shim_lives(state: State) -> bool:
    from runtime.store.owners import is_alive

    return bool(state.shim) and is_alive(state.shim)


def await_shim_end(state: State, seconds: float) -> None:
    """Wait until the process that wrote `state` has ended. Its connections close a little earlier than it does."""
    import select

    if not shim_lives(state):
        return
    try:
        descriptor = os.pidfd_open(int(state.shim.split(".")[2]))
    except ProcessLookupError:
        return
    try:
        if shim_lives(state):  # still the one we mean: no other process can have its number while it has
            select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)
