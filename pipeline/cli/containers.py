"""`pipe run`, `pipe create`, and the group `container`, which has every command of containers once more.

Names, flags and exit codes are docker's. All work is in `runtime.containers`; these modules are arguments in and text out.
"""

from __future__ import annotations

import click

from pipeline.cli import run_command
from pipeline.cli.container_logs import container_logs
from pipeline.cli.container_sessions import attach, exec_
from pipeline.cli.container_verbs import kill, pause, prune, rename, restart, rm, start, stop, unpause, wait
from pipeline.cli.container_views import diff, inspect, port, ps, stats, top
from pipeline.cli.copy_files import cp
from pipeline.cli.session import Session

_RAW = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@click.command(context_settings=_RAW)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(session: Session, arguments: tuple[str, ...]) -> int:
    """Create and start a container."""
    return run_command.run(session, arguments)


@click.command(context_settings=_RAW)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(session: Session, arguments: tuple[str, ...]) -> None:
    """Create a container."""
    run_command.create(session, arguments)


@click.group()
def container() -> None:
    """Manage containers."""


for _command in (
    run, create, start, stop, restart, kill, rm, pause, unpause, wait, rename, attach, exec_, inspect, top, stats, port,
    diff, container_logs, cp, prune,
):  # fmt: skip
    container.add_command(_command)
container.add_command(ps, "ls")
container.add_command(ps, "list")
container.add_command(ps, "ps")
