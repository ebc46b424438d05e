"""`pipe rollback`."""

from __future__ import annotations

import click

from pipeline.cli.session import Session


@click.command()
@click.argument("environment")
@click.option(
    "--to",
    "number",
    type=click.IntRange(1),
    default=None,
    help="The deploy to go back to (`pipe env ENVIRONMENT` lists them).",
)
@click.option("-f", "--file", default="", help="The pipeline file (default: pipe.yaml here or above).")
@click.option("--progress", default=None, help="auto, tty, plain, jsonl, quiet or none.")
@click.pass_obj
def rollback(session: Session, environment: str, number: int | None, file: str, progress: str | None) -> int:
    """Bring an environment's earlier release back: its recorded images and configuration, nothing is built."""
    from pipeline.commands import rollback as go_back
    from pipeline.deploy.deploy import describe

    back_to, release = go_back(session, environment, number=number or 0, file=file, progress=progress)
    click.echo(f"{environment} is back at deploy #{back_to}: {describe(release)}")
    return 0
