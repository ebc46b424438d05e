"""A container's log: `pipe container logs`, and `pipe logs` where its name is no run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pipeline.services import Services


@click.command("logs")
@click.argument("name", metavar="CONTAINER")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines.")
@click.option("--since", default="", metavar="TIME", help="A time, seconds since 1970, or 10m.")
@click.option("--until", default="", metavar="TIME", help="Likewise.")
@click.option("-t", "--timestamps", is_flag=True, help="Show times.")
@click.option("--details", is_flag=True, help="Accepted for docker's sake.")
@click.pass_obj
def container_logs(
    session: Session,
    name: str,
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    details: bool,
) -> None:
    """Show the log of a container."""
    with session.work(containers=False, progress="none") as services:
        show_logs(services, name, follow=follow, tail=tail, since=since, until=until, timestamps=timestamps)


def show_logs(
    services: Services,
    name: str,
    *,
    follow: bool = False,
    tail: str = "all",
    since: str = "",
    until: str = "",
    timestamps: bool = False,
) -> None:
    """Write a container's log to our stdout and stderr (also for `pipe logs`, which first looks for a run)."""
    from pipeline.cli.container_text import parse_moment

    if tail != "all" and not tail.lstrip("-").isdigit():
        raise InvalidInput(f"--tail {tail!r} is not a number")
    lines = services.containers.logs(
        name,
        follow=follow,
        tail=None if tail == "all" or int(tail) < 0 else int(tail),
        since=parse_moment(since) if since else None,
        until=parse_moment(until) if until else None,
    )
    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    with services.cancel.on_cancel(lambda: os._exit(130)):
        for line in lines:
            prefix = f"{line.time} ".encode() if timestamps else b""
            outputs[line.stream].write(prefix + line.data)
            if follow:
                outputs[line.stream].flush()
