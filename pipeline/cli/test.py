"""`pipe test` and `pipe resume`."""

from __future__ import annotations

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput


def parse_env(pairs: tuple[str, ...]) -> dict[str, str]:
    """`-e NAME=VALUE`, or `-e NAME` for the process's own value."""
    from pipeline.settings import environment

    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name:
            raise InvalidInput(f"invalid variable {pair!r}", hint="write `-e NAME=VALUE`")
        if equals:
            found[name] = value
        elif name in environment():
            found[name] = environment()[name]
    return found


@click.command()
@click.argument("stages", nargs=-1, metavar="[STAGE[@VALUE]...]")
@click.option("-f", "--file", default="", help="The pipeline file (default: pipe.yaml here or above).")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable for all stages.")
@click.option("--no-cache", is_flag=True, help="Run stages again though nothing changed.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=None, help="How many nodes at once.")
@click.option("--from", "start", default="", metavar="STAGE", help="This stage and those that come after it.")
@click.option("--until", default="", metavar="STAGE", help="No further than this stage.")
@click.option("--only-failed", is_flag=True, help="Those that were not green in the last run.")
@click.option("--artifacts", default="", metavar="DIR", help="Put the stages' artifacts there.")
@click.option("--progress", default=None, help="auto, tty, plain, jsonl, quiet or none.")
@click.pass_obj
def test(
    session: Session,
    stages: tuple[str, ...],
    file: str,
    env: tuple[str, ...],
    no_cache: bool,
    jobs: int | None,
    start: str,
    until: str,
    only_failed: bool,
    artifacts: str,
    progress: str | None,
) -> int:
    """Build what is needed and run the stages of pipe.yaml."""
    from pipeline.commands import run_pipeline

    if only_failed:
        stages = (*stages, *_failed_stages(session, file))
        if not stages:
            click.echo("every stage of the last run was green")
            return 0
    return run_pipeline(
        session,
        kind="test",
        names=stages,
        file=file,
        env=parse_env(env),
        no_cache=no_cache,
        jobs=jobs or 0,
        start=start,
        until=until,
        artifacts=artifacts,
        progress=progress,
    )


def _failed_stages(session: Session, file: str) -> tuple[str, ...]:
    from pipeline.journal import Journal
    from pipeline.loaded import load
    from pipeline.settings import environment

    project = load(environment(), file=file).spec.name
    with session.work(containers=False, progress="none") as services:
        journal = Journal(services.store)
        results = journal.results(journal.find(project=project).id)
    return tuple(name.partition("/")[2] for name, r in results.items() if r.kind == "stage" and not r.green)


@click.command()
@click.argument("run", required=False, default="")
@click.option("--approve", is_flag=True, help="Yes to what waits for approval.")
@click.option("--progress", default=None, help="auto, tty, plain, jsonl, quiet or none.")
@click.pass_obj
def resume(session: Session, run: str, approve: bool, progress: str | None) -> int:
    """Go on with a run that was stopped, or failed: what was green is not repeated."""
    from pipeline.commands import resume_pipeline

    answer = (lambda environment, summary: True) if approve else None
    return resume_pipeline(session, run, progress=progress, approve=answer)
