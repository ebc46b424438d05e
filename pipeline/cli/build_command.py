"""The click command `pipe build`, made of the table of its flags: `--help`, completion, and what is said of mistakes."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import build as building
from pipeline.cli.build_table import IGNORED, TABLE, parameter
from pipeline.cli.flags import Flag
from pipeline.cli.session import Session


def _option(flag: Flag, hidden: bool = False) -> click.Option:
    names = [parameter(flag), *([f"-{flag.short}"] if flag.short else []), f"--{flag.name}"]
    kind: Any = int if flag.kind == "number" else click.Choice(flag.choices) if flag.choices else None
    if flag.kind == "switch":
        return click.Option(names, is_flag=True, help=flag.help, hidden=hidden)
    return click.Option(names, type=kind, multiple=flag.kind == "many", help=flag.help, hidden=hidden)


@click.pass_obj
def _build(session: Session, /, names: tuple[str, ...], **flags: Any) -> int:
    return building.build(session, names, flags)


build = click.Command(
    "build",
    callback=_build,
    params=[
        click.Argument(["names"], nargs=-1, metavar="[PATH | URL | - | IMAGE...]"),
        *(_option(flag) for flag in TABLE),
        *(_option(flag, hidden=True) for flag in IGNORED),
    ],
    help="Build the images of pipe.yaml, or an image from a Dockerfile.",
)
