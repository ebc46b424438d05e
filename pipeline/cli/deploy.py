"""`pipe deploy` and `pipe env`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pipeline.deploy.records import Deployment
    from pipeline.loaded import Loaded
    from pipeline.services import Services


def _no_answer(environment: str, summary: str) -> bool | None:
    return None


def _yes(environment: str, summary: str) -> bool | None:
    return True


@click.command()
@click.argument("environments", nargs=-1, metavar="[ENVIRONMENT...]")
@click.option("-f", "--file", default="", help="The pipeline file (default: pipe.yaml here or above).")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--approve", is_flag=True, help="Yes to what waits for approval.")
@click.option("--no-test", is_flag=True, help="Do not run the stages; the images must have had a green run.")
@click.option("--no-cache", is_flag=True, help="Run stages again though nothing changed.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=None, help="How many nodes at once.")
@click.option("--progress", default=None, help="auto, tty, plain, jsonl, quiet or none.")
@click.pass_obj
def deploy(
    session: Session,
    environments: tuple[str, ...],
    file: str,
    env: tuple[str, ...],
    approve: bool,
    no_test: bool,
    no_cache: bool,
    jobs: int | None,
    progress: str | None,
) -> int:
    """Deploy to an environment what was built and tested: build, test, push, then the services."""
    from pipeline.cli.test import parse_env
    from pipeline.commands import run_pipeline
    from pipeline.loaded import load
    from pipeline.settings import environment

    loaded = load(environment(), file=file, given=parse_env(env))
    names = environments or _only_environment(loaded)
    answer = _yes if approve or _ask(loaded, names) else _no_answer
    return run_pipeline(
        session,
        kind="deploy",
        names=names,
        file=file,
        env=parse_env(env),
        tests=not no_test,
        no_cache=no_cache,
        jobs=jobs or 0,
        approve=answer,
        progress=progress,
    )


def _only_environment(loaded: Loaded) -> tuple[str, ...]:
    known = [environment.name for environment in loaded.spec.environments]
    if len(known) == 1:
        return (known[0],)
    if not known:
        raise InvalidInput(
            "pipe.yaml has no `deploy:`", loaded.spec.span, hint="`docs/deploy.md` shows how to write one"
        )
    raise InvalidInput("which environment?", hint=f"there is {', '.join(f'`{name}`' for name in known)}")


def _ask(loaded: Loaded, names: tuple[str, ...]) -> bool:
    """Asked before the run rather than in the middle of it: the screen belongs to the progress then."""
    gated = [name for name in names if (spec := loaded.spec.environment(name)) and spec.approve]
    if not gated or not sys.stdin.isatty():
        return False
    return click.confirm(f"deploy to {' and '.join(gated)} when everything is green?", err=True)


@click.command()
@click.argument("environment", required=False, default="")
@click.option("-f", "--file", default="", help="The pipeline file (default: pipe.yaml here or above).")
@click.option("--down", is_flag=True, help="Stop and remove what runs in it.")
@click.option("-v", "--volumes", is_flag=True, help="With --down: remove its data too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def env(session: Session, environment: str, file: str, down: bool, volumes: bool, as_json: bool) -> int:
    """Show the environments and what runs in them; with a name, its history."""
    from pipeline.loaded import load
    from pipeline.settings import environment as process_environment

    loaded = load(process_environment(), file=file)
    names = [spec.name for spec in loaded.spec.environments]
    if environment and environment not in names:
        from runtime.errors import NotFound, did_you_mean

        raise NotFound(f"no environment `{environment}` in pipe.yaml", hint=did_you_mean(environment, names))
    with session.work(containers=False, progress="none") as services:
        if down:
            return _down(services, loaded, environment, volumes)
        shown = [environment] if environment else names
        rows = [_status(services, loaded, name) for name in shown]
        history = _history(services, loaded, environment) if environment else []
    if as_json:
        import json

        click.echo(json.dumps({"environments": rows, "history": history}, indent=2))
        return 0
    for row in rows:
        click.echo(_describe(row))
    for item in history:
        click.echo(
            f"  #{item['number']}  {item['when']}  {item['outcome']:10} {item['who']:10} {item['services']}  {item['reason']}".rstrip()
        )
    return 0


def _status(services: Services, loaded: Loaded, name: str) -> dict[str, object]:
    from pipeline.deploy.records import Deployments
    from pipeline.deploy.status import status_of

    deployments = Deployments(services.store.db, loaded.spec.name)
    return status_of(services.containers, deployments.current(name), name)


def _describe(row: dict[str, object]) -> str:
    head = f"{row['environment']}: {row['state']}"
    lines = [f"{head} (deploy #{row['number']})" if row["number"] else head]
    services = row["services"]
    assert isinstance(services, list)
    lines += [f"  {s['container']:30} {s['image']}  {s['state']}" for s in services]
    return "\n".join(lines)


def _history(services: Services, loaded: Loaded, name: str) -> list[dict[str, object]]:
    from pipeline.deploy.deploy import describe
    from pipeline.deploy.records import Deployments

    def row(deployment: Deployment) -> dict[str, object]:
        return {
            "number": deployment.number,
            "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(deployment.started)),
            "outcome": deployment.outcome or "unfinished",
            "who": deployment.who,
            "reason": deployment.reason,
            "run": deployment.run,
            "revision": deployment.revision,
            "services": describe(deployment.release),
        }

    return [row(deployment) for deployment in Deployments(services.store.db, loaded.spec.name).history(name)]


def _down(services: Services, loaded: Loaded, name: str, volumes: bool) -> int:
    from pipeline.deploy.records import Deployments
    from pipeline.deploy.rollout import take_down
    from pipeline.engines.local import LocalEngine

    if not name:
        raise InvalidInput("--down needs the environment's name")
    current = Deployments(services.store.db, loaded.spec.name).current(name)
    if current is None:
        click.echo(f"nothing is deployed to {name}")
        return 0
    for removed in take_down(current.release, LocalEngine(services), volumes=volumes):
        click.echo(removed)
    return 0
