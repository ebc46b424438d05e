"""`pipe shell`: a throwaway container in the state after any build step, or in that of the step that failed last.

The state becomes an image without a name, with the environment, user and directory of the step; the container and the image
go when it ends. `--` and a command run that instead of a shell. What the step that failed had mounted is there too, secrets
and agents when they are given again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from pipeline.cli.shell_mounts import Surroundings, surroundings_of
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from builder.failed import Situation
    from builder.ssh import AgentWanted
    from pipeline.services import Services
    from registry_client.oci.digest import Digest
    from runtime.containers.spec import ContainerSpec

_LABEL = "pipe.shell"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", required=False, metavar="[IMAGE[@STEP]]")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--last-failed", is_flag=True, help="Enter the step that failed last.")
@click.option("--network", help="Network of the container, as with `pipe run`; that of the step without.")
@click.option(
    "--secret",
    "secrets_given",
    multiple=True,
    help="A secret the step had: id=NAME[,src=FILE|,env=VARIABLE].",
)
@click.option(
    "--ssh",
    "agents_given",
    multiple=True,
    help="An ssh agent the step had: default or NAME[=SOCKET|KEY[,KEY]].",
)
@click.pass_obj
def shell(
    session: Session,
    target: str | None,
    command: tuple[str, ...],
    last_failed: bool,
    network: str | None,
    secrets_given: tuple[str, ...],
    agents_given: tuple[str, ...],
) -> int:
    """Look around after a build step: its number, a part of its text, or STAGE/NUMBER (IMAGE@build/3)."""
    if last_failed and target is not None:
        command, target = (target, *command), None
    if target is None and not last_failed:
        raise InvalidInput("name an image", hint="IMAGE, IMAGE@STEP or --last-failed")
    given, agents = _given(secrets_given, agents_given)
    with session.work(containers=True, progress="none") as services:
        situation = _situation(services, target)
        with (
            _temporary_image(services, situation) as image_id,
            surroundings_of(services.store, situation, given, agents) as around,
        ):
            for what in around.missing:
                click.echo(f"pipe: not there: {what}", err=True)
            return _run(services, _spec(situation, image_id, around, command, network))


def _given(
    secrets_given: tuple[str, ...], agents_given: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[str, AgentWanted]]:
    from builder.ssh import parse_ssh
    from pipeline.cli.build_flags import secret_given
    from pipeline.settings import environment

    env = environment()
    return dict(secret_given(text, env) for text in secrets_given), dict(
        parse_ssh(text, env) for text in agents_given
    )


def _situation(services: Services, target: str | None) -> Situation:
    if target is None:
        from builder.failed import last_failed

        return last_failed(services.store)
    from builder.steps import find_step

    name, at, step = target.rpartition("@")
    if not at or step.startswith("sha256:"):
        name, step = target, ""
    image = services.images.get(name)
    services.images.snapshot(image)
    return find_step(services.store, image, step or str(len(image.diff_ids)))


@contextmanager
def _temporary_image(services: Services, situation: Situation) -> Iterator[Digest]:
    """An image of the state, gone with the block (or, after a kill, with the next prune)."""
    from builder.failed import layers_of
    from registry_client.oci.config import ContainerConfig, ImageConfig, dump_config
    from registry_client.oci.platform import host_platform

    labels = {_LABEL: secrets.token_hex(8)}  # no other image has this id
    config = ContainerConfig(
        env=situation.env,
        working_dir=situation.cwd,
        user=situation.user,
        cmd=(situation.shell,),
        labels=labels,
    )
    described = ImageConfig(platform=host_platform(), config=config, diff_ids=situation.diff_ids)
    image = services.images.add_built(dump_config(described), layers_of(services.store, situation.diff_ids))
    try:
        yield image.id
    finally:
        services.images.remove(image.id, force=True)


def _spec(
    situation: Situation, image_id: str, around: Surroundings, command: tuple[str, ...], network: str | None
) -> ContainerSpec:
    from runtime.containers.spec import ContainerSpec

    has_terminal = not command and os.isatty(0) and os.isatty(1)
    own = "bridge" if situation.network in ("", "default") else situation.network
    return ContainerSpec(
        image=image_id,
        command=around.command(command or (situation.shell,)),
        env=around.env,
        tty=has_terminal,
        stdin=True,
        mounts=around.mounts,
        network_mode=network or own,
        auto_remove=True,
        owner_bound=True,
    )


def _run(services: Services, spec: ContainerSpec) -> int:
    from pipeline.cli.run_command import stay
    from pipeline.cli.run_spec import RunRequest

    containers = services.containers
    container = containers.create(spec, pull="never", cancel=services.cancel, start_follows=True)
    connection = containers.start(container.id, attach=("stdin", "stdout", "stderr"))
    assert connection is not None
    return stay(containers, container, connection, RunRequest(spec=spec), stdin=True)
