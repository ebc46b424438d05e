"""`pipe doctor`: show what `pipeline.doctor` finds. Exit 0: all of pipe works here, 1: a part does not, 3: no container runs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session

if TYPE_CHECKING:
    from pipeline.doctor import Finding


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="text or json.")
@click.pass_obj
def doctor(session: Session, form: str) -> int:
    """Say what this host offers and lacks."""
    from pipeline.doctor import Host, examine, exit_code

    settings = session.settings
    host = Host(
        store=settings.root,
        docker_config=settings.docker_config,
        ca_bundle=settings.ca_bundle,
        user=os.geteuid(),
    )
    findings = examine(host)
    click.echo(
        json.dumps([asdict(each) for each in findings], indent=2) if form == "json" else _text(findings)
    )
    return exit_code(findings)


def _text(findings: list[Finding]) -> str:
    width = max(len(each.check) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{each.level:<8} {each.check:<{width}}  {each.detail}")
        if each.hint:
            lines.append(f"{'':<{9 + width}}  hint: {each.hint}")
    return "\n".join(lines)
