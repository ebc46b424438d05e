"""The services of one stage: on a network of their own, started in the order of their needs, ready before the stage begins.

Ready means healthy where there is a health check, finished with 0 where somebody waits for its completion, else started.
A service that ends otherwise fails the stage with its last lines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from pipeline.config.container import ServiceSpec
from pipeline.containers import Place, container_spec, merge_variables, read_env_files
from pipeline.engines import ContainerState, Engine
from pipeline.plan import service_order
from pipeline.secrets import SecretStore
from pipeline.spec import StageSpec
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, NetworkAttachment
from runtime.errors import StepFailed, TimedOut

_LOG_LINES = 50
_POLL = 0.05


class StageServices:
    """A context manager: leaving it removes the containers, the network, and their volumes."""

    def __init__(
        self,
        engine: Engine,
        stage: StageSpec,
        slug: str,
        images: Mapping[str, str],
        place: Place,
        labels: Mapping[str, str],
        secrets: SecretStore,
        show_log: Callable[[str, bytes], None],
    ) -> None:
        self._engine, self._stage, self._slug, self._images = engine, stage, slug, images
        self._place, self._labels, self._secrets, self._show_log = place, labels, secrets, show_log
        self._network = ""
        self._started: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> StageServices:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, cancel: Cancel) -> None:
        """Start all and wait until all are ready."""
        self._make_volumes()
        if not self._stage.services:
            return
        self._network = f"pipe-{self._slug}-{os.urandom(2).hex()}"
        self._engine.network(self._network, labels=self._labels)
        self._stack.callback(self._engine.remove_network, self._network)
        waited_for = {
            need.service: need.condition for service in self._stage.services for need in service.depends_on
        }
        ordered = service_order(self._stage.services)
        for service in ordered:
            for need in service.depends_on:
                if need.service in self._started:
                    self._gate(self._by_name(need.service), need.condition, cancel)
            cancel.check()
            self._start(service)
        for service in ordered:
            self._gate(
                service, "completed" if waited_for.get(service.name) == "completed" else "ready", cancel
            )

    def _by_name(self, name: str) -> ServiceSpec:
        return next(service for service in self._stage.services if service.name == name)

    def _start(self, service: ServiceSpec) -> None:
        mounts, variables = self._stack.enter_context(self._secrets.handed_out(service.secrets))
        env = merge_variables(
            self._place.outside,
            read_env_files(service.container.env_file, self._place.root),
            service.container.env,
            dict(variables),
        )
        spec = self._spec(service, env)
        container = self._engine.create(replace(spec, mounts=(*spec.mounts, *mounts)))
        self._stack.callback(self._engine.remove, container)
        self._started[service.name] = container
        self._engine.start(container)

    def _spec(self, service: ServiceSpec, env: Mapping[str, str]) -> ContainerSpec:
        return container_spec(
            service.container,
            self._place,
            image=self._images[service.container.image],
            env=env,
            deploy=service.deploy,
            name=f"{self._network}-{service.name}",
            ports=service.ports,
            healthcheck=service.healthcheck,
            no_healthcheck=service.no_healthcheck,
            labels={**dict(service.container.labels), **self._labels, "pipe.service": service.name},
            owner_bound=True,
            **self.network_of(service),
        )

    def network_of(self, service: ServiceSpec | None) -> dict[str, Any]:
        """How a container of this stage reaches the others: `None` is the stage's own."""
        keys = service.container if service else self._stage.container
        if keys.network_mode or not self._network:
            return {}
        aliases = (
            (service.name, *(a for use in service.networks for a in use.aliases))
            if service
            else (self._stage.name,)
        )
        attachment = NetworkAttachment(network=self._network, aliases=tuple(dict.fromkeys(aliases)))
        return {"network_mode": "", "networks": (attachment,)}

    def _gate(self, service: ServiceSpec, condition: str, cancel: Cancel) -> None:
        container = self._started[service.name]
        deadline = time.monotonic() + service.wait
        while True:
            cancel.check()
            state = self._engine.state(container)
            if state is None:
                raise StepFailed(f"service `{service.name}` disappeared", service.span)
            if self._is_ready(service, state, condition):
                return
            if time.monotonic() > deadline:
                self._show(service.name)
                raise TimedOut(
                    f"service `{service.name}` is not {'done' if condition == 'completed' else 'healthy'} after {service.wait:g} s",
                    service.span,
                    hint="`wait:` gives it more time",
                )
            cancel.wait(_POLL)

    def _is_ready(self, service: ServiceSpec, state: ContainerState, condition: str) -> bool:
        if state.status == "exited":
            if state.exit_code == 0 and (condition == "completed" or not service.restart):
                return True  # a one-shot that did its work
            self._fail(service, f"exited with {state.exit_code}")
        if condition == "completed":
            return False
        if state.health == "unhealthy":
            self._fail(service, "is unhealthy")
        if condition == "started":
            return state.running
        return state.running and state.health in ("", "healthy")

    def _fail(self, service: ServiceSpec, what: str) -> None:
        tail = self._show(service.name)
        raise StepFailed(f"service `{service.name}` {what}", service.span, output=tail)

    def after(self, *, green: bool, warn: Callable[[str], None]) -> None:
        """When the stage has ended: services that died meanwhile are told, and on failure everybody's last lines shown."""
        for name, container in self._started.items():
            state = self._engine.state(container)
            died = state is not None and state.status == "exited" and state.exit_code != 0
            if died and state is not None:
                warn(f"service `{name}` exited with {state.exit_code}")
            if died or not green:
                self._show(name)

    def _show(self, name: str) -> str:
        data = self._engine.logs(self._started[name], _LOG_LINES)
        if data:
            self._show_log(name, data)
        return data.decode("utf-8", "replace")

    def _make_volumes(self) -> None:
        """Volumes of a stage are its own, and go with it."""
        containers = (self._stage.container, *(service.container for service in self._stage.services))
        mounts = [
            mount for keys in containers for mount in keys.volumes if mount.type == "volume" and mount.source
        ]
        for name in sorted({self._place.volume(mount.source) for mount in mounts}):
            self._engine.volume(name, labels=self._labels, options={})
            self._stack.callback(self._engine.remove_volume, name)
