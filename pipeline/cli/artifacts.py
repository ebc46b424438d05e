"""`pipe artifacts`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import NotFound

if TYPE_CHECKING:
    from pipeline.results import NodeResult


@click.group()
def artifacts() -> None:
    """List and fetch what stages left."""


def _results(session: Session, run: str) -> tuple[str, dict[str, NodeResult], str]:
    from pipeline.journal import Journal

    with session.work(containers=False, progress="none") as services:
        journal = Journal(services.store)
        record = journal.find(run)
        return record.id, journal.results(record.id), services.store.root


@artifacts.command("ls")
@click.argument("run", required=False, default="")
@click.pass_obj
def list_(session: Session, run: str) -> int:
    """The files of a run (the last one without RUN)."""
    _, results, _ = _results(session, run)
    for name, result in results.items():
        for artifact in result.artifacts:
            if not artifact.is_directory:
                click.echo(f"{name.partition('/')[2]:20} {artifact.size:>10}  {artifact.path}")
    return 0


@artifacts.command()
@click.argument("stage")
@click.argument("paths", nargs=-1)
@click.option("--run", default="", help="The run; the last one without.")
@click.option("-o", "--output", default=".", metavar="DIR", help="Where to put them.")
@click.pass_obj
def get(session: Session, stage: str, paths: tuple[str, ...], run: str, output: str) -> int:
    """Write a stage's files below a directory; PATHS are globs of their paths in the container."""
    from pipeline.artifacts import ArtifactStore, write_out
    from pipeline.conditions import path_matches

    run_id, results, root = _results(session, run)
    found = [
        r
        for name, r in results.items()
        if name in (f"stage/{stage}", stage) or name.startswith(f"stage/{stage} (")
    ]
    if not found:
        raise NotFound(f"run {run_id} has no stage `{stage}`", hint="`pipe artifacts ls` lists what there is")
    for result in found:
        wanted = tuple(
            a
            for a in result.artifacts
            if not paths or any(path_matches(a.path, pattern) for pattern in paths)
        )
        if paths and not wanted:
            raise NotFound(
                f"`{stage}` left nothing that matches {' '.join(paths)}",
                hint="`pipe artifacts ls` lists what there is",
            )
        target = output if len(found) == 1 else os.path.join(output, result.node.partition("/")[2])
        for place in write_out(ArtifactStore(root), wanted, target):
            click.echo(place)
    return 0
