"""Bring a release about: change only what differs, keep the old containers until the new ones have proved themselves.

A container that is replaced is renamed and stopped, not removed. When the gate opens it goes; when it does not, the new
one goes and the old one takes its name back and is started again. So a failed deploy leaves what was there before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.deploy.gate import Gate
from pipeline.deploy.release import COMPOSE, Release, ReleaseService, used_networks
from pipeline.engines import ContainerState, Engine
from pipeline.spec import NetworkSpec
from runtime.cancel import Cancel
from runtime.containers.spec import Mount
from runtime.errors import NotFound, PipeError, StepFailed

LOG_LINES = 30
_ASIDE = "-old-"  # in the name of a container that waits for the new one to prove itself
Say = Callable[[str], None]
SecretsFor = Callable[[ReleaseService], tuple[tuple[Mount, ...], tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Change:
    """A container put in place of another, or of none. `was_running`: the old one is to be started on the way back."""

    service: ReleaseService
    name: str
    new: str
    old: str = ""
    was_running: bool = False


@dataclass(slots=True, kw_only=True)
class Rollout:
    """One deploy of one release. `say` tells people what happens; `secrets` gives mounts and variables."""

    release: Release
    engine: Engine
    say: Say
    secrets: SecretsFor = lambda service: ((), ())
    number: int = 0
    _changes: list[Change] = field(default_factory=list)
    _gone: list[ContainerState] = field(default_factory=list)
    _made_networks: list[str] = field(default_factory=list)

    def run(self, cancel: Cancel) -> bool:
        """Apply it and wait until it is up; False when nothing had to change. On failure everything is as before."""
        self._undo_interrupted()
        before = self._present()
        self._prepare()
        try:
            for service in self.release.services:
                self._wait_for_needs(service, cancel)
                for index in range(1, service.replicas + 1):
                    cancel.check()
                    self._apply(service, index, before)
            self._stop_strangers(before)
            self._gate().wait(cancel)
        except PipeError as error:
            self._attach_logs(error)
            self._undo()
            raise
        self._clean_up()
        return bool(self._changes or self._gone)

    def _labels(self) -> dict[str, str]:
        return {COMPOSE + "project": self.release.project}

    def _present(self) -> dict[str, ContainerState]:
        """The project's containers by name."""
        return {state.name: state for state in self.engine.containers(self._labels())}

    def container_name(self, service: ReleaseService, index: int) -> str:
        return service.spec.name or f"{self.release.project}-{service.name}-{index}"

    def _undo_interrupted(self) -> None:
        """A deploy that was killed left old containers aside: they are the last ones known to be good, so they come back."""
        present = self._present()
        for name, old in present.items():
            original, mark, _ = name.rpartition(_ASIDE)
            if not mark:
                continue
            self.say(f"{original}: a deploy was interrupted, bringing the old one back")
            unproven = present.get(original)
            if unproven is not None:
                self.engine.remove(unproven.id)
            self.engine.rename(old.id, original)
            if not old.running:
                self.engine.start(old.id)

    def _prepare(self) -> None:
        labels = self._labels()
        declared = {network.name: network for network in self.release.networks}
        for name in used_networks(self.release):
            network = declared.get(name, NetworkSpec(name))
            if network.external:
                continue
            self.engine.network(
                self.release.network_name(name),
                labels={**labels, **dict(network.labels), COMPOSE + "network": name},
                internal=network.internal,
                subnet=network.subnet,
                gateway=network.gateway,
            )
        for volume in self.release.volumes:
            if not volume.external:
                real = volume.real_name or f"{self.release.project}_{volume.name}"
                own = {**labels, **dict(volume.labels), COMPOSE + "volume": volume.name}
                self.engine.volume(real, labels=own, options=dict(volume.options))

    def _wait_for_needs(self, service: ReleaseService, cancel: Cancel) -> None:
        for need in service.depends_on:
            states = self._of_service(need.service)
            if not states and need.required:
                raise StepFailed(f"service `{service.name}` needs `{need.service}`, which is not running")
            for state in states:
                self._wait_one(need.service, need.condition, state.id, cancel)

    def _wait_one(self, name: str, condition: str, container: str, cancel: Cancel) -> None:
        if condition == "completed":
            status = None
            while status is None:
                cancel.check()
                status = self.engine.wait(container, 0.5)
            if status.code:
                raise StepFailed(f"service `{name}` exited with {status.code}", exit_code=status.code)
        elif condition == "healthy":
            health = replace(self.release.health, http="", tcp="", exec=(), soak=0.0)
            Gate(
                health=health,
                engine=self.engine,
                members=lambda: {name: self._of_service(name)},
                finished_is_fine=lambda service: True,
            ).wait(cancel)

    def _of_service(self, name: str) -> list[ContainerState]:
        service = next((s for s in self.release.services if s.name == name), None)
        if service is None:
            return []
        names = {self.container_name(service, index) for index in range(1, service.replicas + 1)}
        return [state for state in self._present().values() if state.name in names]

    def _apply(self, service: ReleaseService, index: int, before: dict[str, ContainerState]) -> None:
        name = self.container_name(service, index)
        old = before.get(name)
        if old is not None and self._is_current(service, old):
            if not old.running and not self._is_one_shot(service):
                self.say(f"{name}: starting it again")
                self.engine.start(old.id)
            else:
                self.say(f"{name}: unchanged")
            return
        self.say(f"{name}: {'replacing' if old else 'creating'} it")
        self._replace(service, index, name, old)

    def _is_current(self, service: ReleaseService, state: ContainerState) -> bool:
        same = (
            state.labels.get(COMPOSE + "config-hash") == service.config_hash and state.image == service.image
        )
        return same and (state.running or (state.exit_code == 0 and state.status == "exited"))

    def _is_one_shot(self, service: ReleaseService) -> bool:
        return service.spec.restart.name in ("no", "on-failure", "")

    def _replace(self, service: ReleaseService, index: int, name: str, old: ContainerState | None) -> None:
        if old is not None:
            self.engine.rename(old.id, f"{name}{_ASIDE}{os.urandom(2).hex()}")
            change = Change(service, name, "", old.id, old.running)
            self._changes.append(change)
            if old.running:
                # Its published ports, addresses and volumes are wanted by the new one.
                self.engine.stop(old.id, service.spec.stop_timeout)
        else:
            change = Change(service, name, "")
            self._changes.append(change)
        new = self._create(service, index, name)
        self._changes[-1] = replace(change, new=new)
        self.engine.start(new)

    def _create(self, service: ReleaseService, index: int, name: str) -> str:
        mounts, variables = self.secrets(service)
        labels = {
            **service.spec.labels,
            COMPOSE + "container-number": str(index),
            "pipe.deployment": str(self.number),
        }
        return self.engine.create(
            replace(
                service.spec,
                name=name,
                labels=labels,
                mounts=(*service.spec.mounts, *mounts),
                env=(*service.spec.env, *variables),
            )
        )

    def _stop_strangers(self, before: dict[str, ContainerState]) -> None:
        """Services, and replicas, that are no longer part of the release."""
        wanted = {
            self.container_name(s, index) for s in self.release.services for index in range(1, s.replicas + 1)
        }
        replaced = {change.old for change in self._changes}
        for name, state in before.items():
            if name not in wanted and state.id not in replaced:
                self._gone.append(state)
                if state.running:
                    self.say(f"{name}: not part of the release, stopping it")
                    self.engine.stop(state.id, 10.0)

    def _gate(self) -> Gate:
        shots = {service.name for service in self.release.services if self._is_one_shot(service)}
        return Gate(
            health=self.release.health,
            engine=self.engine,
            members=lambda: {
                service.name: self._of_service(service.name) for service in self.release.services
            },
            finished_is_fine=lambda service: service in shots,
        )

    def _attach_logs(self, error: PipeError) -> None:
        """The last lines of what is new: why it did not come up."""
        lines = []
        for change in self._changes:
            if change.new:
                text = self._logs(change.new)
                lines += [f"{change.service.name} | {line}" for line in text.splitlines()]
        if isinstance(error, StepFailed):
            error.output = "\n".join(filter(None, (error.output, *lines)))

    def _logs(self, container: str) -> str:
        try:
            return self.engine.logs(container, LOG_LINES).decode("utf-8", "replace")
        except NotFound:
            return ""

    def _undo(self) -> None:
        """Take the new containers away and bring the old ones back, last change first."""
        for change in reversed(self._changes):
            if change.new:
                self.engine.remove(change.new)
            else:
                self._remove_unfinished(change)
            if change.old:
                self.engine.rename(change.old, change.name)
        # In the order of their needs, as they were started.
        for change in self._changes:
            if change.old and change.was_running:
                self.say(f"{change.name}: bringing the old one back")
                self.engine.start(change.old)
        for state in self._gone:
            if state.running:
                self.engine.start(state.id)

    def _remove_unfinished(self, change: Change) -> None:
        state = self._present().get(change.name)
        if state is not None and state.id != change.old:
            self.engine.remove(state.id)

    def _clean_up(self) -> None:
        for change in self._changes:
            if change.old:
                self.engine.remove(change.old, volumes=False)
        for state in self._gone:
            self.engine.remove(state.id, volumes=False)


def take_down(release: Release, engine: Engine, *, volumes: bool = False) -> list[str]:
    """Remove an environment's containers and networks, with `volumes` its data too; the names removed."""
    labels = {COMPOSE + "project": release.project}
    removed = []
    states = {state.name: state for state in engine.containers(labels)}
    for name, state in reversed(states.items()):
        if state.running:
            engine.stop(state.id, 10.0)
        engine.remove(state.id, volumes=volumes)
        removed.append(name)
    for network, _ in list(engine.networks(labels)):
        engine.remove_network(network)
        removed.append(network)
    if volumes:
        for volume in release.volumes:
            if not volume.external:
                engine.remove_volume(volume.real_name or f"{release.project}_{volume.name}")
    return removed
