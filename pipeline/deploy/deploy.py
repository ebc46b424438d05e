"""Run one deploy node: approval, lock, release, rollout, record. Also the way back: `run_rollback` applies an earlier release.

One deploy per environment at a time: a lock file of the store, held by the process, so a kill frees it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.deploy.records import DONE, FAILED, UNCHANGED, Deployments
from pipeline.deploy.release import Release, ReleaseService, plan_release
from pipeline.engines import Engine
from pipeline.image import short_id
from pipeline.plan import Node, image_node
from pipeline.results import NodeResult
from pipeline.secrets import SecretStore
from pipeline.spec import EnvironmentSpec, PipelineSpec
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.containers.spec import Mount
from runtime.errors import Cancelled, Conflict, PipeError
from runtime.events import Emit, Outcome, Output

WAITING = "waits for approval"
# Asks a person whether to go on; None when nobody can be asked here.
Approve = Callable[[str, str], bool | None]


@frozen(kw_only=True)
class DeployContext:
    """What all deploys of a run share."""

    spec: PipelineSpec
    engine: Engine
    deployments: Deployments
    secrets: SecretStore
    emit: Emit
    outside: Mapping[str, str]
    store: str
    run: str
    who: str
    revision: str = ""
    approve: Approve = lambda environment, summary: None


def run_deploy(
    context: DeployContext,
    node: Node,
    results: Mapping[str, NodeResult],
    lookup: Callable[[str], str | None],
    cancel: Cancel,
) -> NodeResult:
    """Deploy the environment with the images of this run."""
    environment = node.subject
    assert isinstance(environment, EnvironmentSpec)
    started = time.time()
    images = _images(context, environment, results, cancel)
    release = plan_release(context.spec, environment, images=images, lookup=lookup, outside=context.outside)
    if environment.approve:
        answer = context.approve(environment.name, describe(release))
        if answer is None:
            return NodeResult(
                node=node.name,
                kind=node.kind,
                outcome=Outcome.SKIPPED,
                error=f"`{environment.name}` {WAITING}: run again with --approve",
                detail=WAITING,
                started=started,
                finished=time.time(),
            )
        if not answer:
            raise Cancelled(f"the deploy to `{environment.name}` was not approved")
    changed = apply_release(context, release, node.name, cancel)
    where = release.url or ", ".join(published(release))
    detail = f"{describe(release)}{'' if changed else ', unchanged'}{f' at {where}' if where else ''}"
    return NodeResult(
        node=node.name,
        kind=node.kind,
        outcome=Outcome.DONE if changed else Outcome.CACHED,
        detail=detail,
        started=started,
        finished=time.time(),
    )


def _images(
    context: DeployContext, environment: EnvironmentSpec, results: Mapping[str, NodeResult], cancel: Cancel
) -> dict[str, str]:
    """Image ids by the names the services use: ours as built in this run, others from here or their registry."""
    found: dict[str, str] = {}
    for service in environment.services:
        name, policy = service.container.image, service.container.pull_policy
        built = results.get(image_node(name))
        if built is not None:
            found[name] = built.image
        elif name not in found:
            pull = policy if policy in ("always", "never") else "missing"
            found[name] = context.engine.image(name, pull, cancel, service.container.platform).id
    return found


def describe(release: Release) -> str:
    """`web 3f2a…, db 99ab…`."""
    return ", ".join(f"{service.name} {short_id(service.image)}" for service in release.services)


def published(release: Release) -> list[str]:
    """Where people reach it."""
    ports = [
        port
        for service in release.services
        for port in service.spec.ports
        if port.protocol == "tcp" and port.host_port
    ]
    hosts = [("127.0.0.1" if port.host_ip == "0.0.0.0" else port.host_ip, port.host_port) for port in ports]
    return [f"http://{host}:{port}" for host, port in hosts]


def apply_release(
    context: DeployContext, release: Release, node: str, cancel: Cancel, reason: str = ""
) -> bool:
    """Roll the release out under the environment's lock and record it; False when nothing had to change."""
    from pipeline.deploy.rollout import (
        Rollout,  # builds and tests come here with a context, and deploy nothing
    )

    def say(text: str) -> None:
        context.emit(Output(node=node, stream="stdout", data=f"{text}\n".encode()))

    with _lock(context.store, release.project):
        number = context.deployments.begin(
            release, run=context.run, revision=context.revision, who=context.who, reason=reason
        )
        _keep_images(context.engine, release)
        rollout = Rollout(
            release=release,
            engine=context.engine,
            say=say,
            secrets=lambda service: _secrets(context, release, service),
            number=number,
        )
        try:
            changed = rollout.run(cancel)
        except PipeError as error:
            context.deployments.end(release.environment, number, FAILED, error.message)
            raise
        context.deployments.end(release.environment, number, DONE if changed or number == 1 else UNCHANGED)
        return changed


def run_rollback(
    context: DeployContext, environment: str, number: int, cancel: Cancel
) -> tuple[int, Release]:
    """Bring an earlier release back; its number and what it was."""
    target = context.deployments.earlier(environment, number)
    apply_release(
        context, target.release, f"deploy/{environment}", cancel, reason=f"rollback to {target.number}"
    )
    return target.number, target.release


@contextmanager
def _lock(store: str, project: str) -> Iterator[None]:
    path = os.path.join(store, "locks", f"deploy-{project}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another deploy of `{project}` is running", hint="try again when it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _keep_images(engine: Engine, release: Release) -> None:
    for service in release.services:
        engine.tag(service.image, service.spec.image)


def _secrets(
    context: DeployContext, release: Release, service: ReleaseService
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """Files below /run (memory, gone with a reboot) and variables. They must outlive this process, as the containers do."""
    from pipeline.secrets import DIRECTORY

    mounts, variables = [], []
    base = "/run" if os.access("/run", os.W_OK) else os.path.join(context.store, "runs")
    for use in service.secrets:
        value = context.secrets.value(use)
        if use.env:
            variables.append(f"{use.env}={value.decode('utf-8', 'surrogateescape')}")
            continue
        os.makedirs(os.path.join(base, "pipe-secrets"), mode=0o700, exist_ok=True)
        directory = os.path.join(base, "pipe-secrets", release.project, service.name)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, use.name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
        os.chmod(path, use.mode)
        mounts.append(
            Mount(
                type="bind",
                source=path,
                target=os.path.join(DIRECTORY, use.target or use.name),
                readonly=True,
            )
        )
    return tuple(mounts), tuple(variables)
