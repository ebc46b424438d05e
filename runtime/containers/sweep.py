"""Put right what the dead left: killed shims, starters that were killed half-way, directories without a row.

Cheap when there is nothing to do: one query, one listing, and a look at each container's state. Whatever is done here
may be done by two processes at once.
"""

from __future__ import annotations

import os
import signal

from runtime.containers.after import remove_container
from runtime.containers.records import ContainerRecords
from runtime.containers.state import ALIVE, EXITED, State, read_state, shim_lives, state_path, write_state
from runtime.errors import PipeError
from runtime.networks.networks import Networks
from runtime.store.durable import remove_tree
from runtime.store.owners import is_alive
from runtime.store.store import Store
from runtime.volumes import Volumes


class Sweeper:
    def __init__(self, store: Store, networks: Networks, volumes: Volumes) -> None:
        self._store, self._networks, self._volumes = store, networks, volumes
        self._records = ContainerRecords(store)

    def sweep(self) -> list[str]:
        """The ids of what was put right."""
        swept = []
        rows = self._records.ids()
        for name in os.listdir(self._records.directory):
            if name not in rows:
                swept += self._rowless(name)
            elif (state := self._raw(name)) is not None and state.status in ALIVE and not shim_lives(state):
                self._bury(name, state)
                swept.append(name)
        swept += [name for name, creator in self._records.unfinished() if self._abandoned(name, creator)]
        return swept

    def _raw(self, identifier: str) -> State | None:
        """The state as it was written."""
        try:
            with open(state_path(self._records.path(identifier)), "rb") as file:
                return State.from_json(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def _bury(self, identifier: str, state: State) -> None:
        """A container whose shim was killed: end what is left, and say how it ended."""
        container = self._records.find(identifier)
        if container is None:
            return
        self._end(container.cgroup)
        self._networks.release(identifier)
        final = read_state(container.directory)
        if final.status == EXITED:
            final.finished = final.finished or _now()
            write_state(container.directory, final)
        if container.spec.auto_remove:
            remove_container(self._store, self._volumes, identifier, volumes_too=True)

    def _abandoned(self, identifier: str, creator: str) -> bool:
        """Made to be started at once by a process that did not live to do it."""
        if is_alive(creator):
            return False
        container = self._records.find(identifier)
        if container is None or container.running:
            return False
        self._end(container.cgroup)
        self._networks.release(identifier)
        remove_container(self._store, self._volumes, identifier, volumes_too=True)
        return True

    def _rowless(self, name: str) -> list[str]:
        """A directory whose row went first (`remove_container`) and whose remover was killed.

        A row is always older than its directory, so one without a row never gets one; but the row may have come after
        we read the rows.
        """
        if self._records.find(name) is not None:
            return []
        state = self._raw(name)
        if state is not None and shim_lives(state):
            return []  # its shim is just about to remove it
        self._end(f"pipe/{name.partition('.')[0]}")
        remove_tree(os.path.join(self._records.directory, name))
        return [name]

    @staticmethod
    def _end(path: str) -> None:
        from runtime import cgroups

        try:
            cgroups.remove(path)
        except PipeError:
            # A process that cannot be killed (state D) keeps its group: the next sweep finds both again.
            for pid in cgroups.processes(path):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _now() -> float:
    import time

    return time.time()
