"""`pipe start`, `stop`, `rm` and their like: one verb, done to each of the containers named, then said of each that it worked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from pipeline.cli import run_command
from pipeline.cli.session import Session
from runtime.errors import InvalidInput, NotFound, PipeError

if TYPE_CHECKING:
    from pipeline.cli.run_spec import RunRequest
    from runtime.containers.container import Container


def _each(names: Iterable[str], action: Callable[[str], object]) -> int:
    """Do it to all of them; print each name that worked, and go on past those that did not."""
    from pipeline.ui.errors import show_error

    failed = 0
    for name in names:
        try:
            action(name)
        except PipeError as error:
            show_error(error)
            failed = 1
        else:
            click.echo(name)
    return failed


_names = click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
_time = click.option(
    "-t", "--time", "--timeout", "timeout", type=float, help="Seconds until it is killed; -1: never."
)


@click.command()
@_names
@click.option("-a", "--attach", "attached", is_flag=True, help="Attach to its output and wait.")
@click.option("-i", "--interactive", is_flag=True, help="Attach to its input too.")
@click.option("--detach-keys", default="", metavar="KEYS", help="The keys that detach.")
@click.pass_obj
def start(
    session: Session, names: tuple[str, ...], attached: bool, interactive: bool, detach_keys: str
) -> int:
    """Start containers."""
    if not (attached or interactive):
        with session.work(progress="none") as services:
            services.containers.sweep()
            return _each(names, services.containers.start)
    if len(names) != 1:
        raise InvalidInput("only one container can be attached to", hint="start the others without -a")
    with session.work(progress="none") as services:
        container = services.containers.get(names[0])
        streams = (
            ("stdin", "stdout", "stderr") if interactive and container.spec.stdin else ("stdout", "stderr")
        )
        connection = services.containers.start(container.id, attach=streams)
        assert connection is not None
        request = _as_request(container, detach_keys)
        return run_command.stay(services.containers, container, connection, request, stdin="stdin" in streams)


def _as_request(container: Container, detach_keys: str = "", sig_proxy: bool = True) -> RunRequest:
    from pipeline.cli.run_spec import RunRequest

    return RunRequest(spec=container.spec, detach_keys=detach_keys, sig_proxy=sig_proxy)


@click.command()
@_names
@_time
@click.option("-s", "--signal", "signal_name", default="", help="Instead of its stop signal.")
@click.pass_obj
def stop(session: Session, names: tuple[str, ...], timeout: float | None, signal_name: str) -> int:
    """Stop containers."""
    with session.work(containers=False, progress="none") as services:
        return _each(names, lambda name: services.containers.stop(name, timeout, signal_name=signal_name))


@click.command()
@_names
@_time
@click.pass_obj
def restart(session: Session, names: tuple[str, ...], timeout: float | None) -> int:
    """Restart containers."""
    with session.work(progress="none") as services:
        return _each(names, lambda name: services.containers.restart(name, timeout))


@click.command()
@_names
@click.option("-s", "--signal", "signal_name", default="KILL", help="The signal (KILL).")
@click.pass_obj
def kill(session: Session, names: tuple[str, ...], signal_name: str) -> int:
    """Send a signal to containers."""
    from runtime.containers.signals import parse_signal

    number = parse_signal(signal_name)
    with session.work(containers=False, progress="none") as services:
        return _each(names, lambda name: services.containers.kill(name, number))


@click.command()
@_names
@click.option("-f", "--force", is_flag=True, help="Also running ones; a missing one is no error.")
@click.option("-v", "--volumes", is_flag=True, help="Their anonymous volumes too.")
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove containers."""
    with session.work(containers=False, progress="none") as services:
        containers = services.containers

        def remove(name: str) -> None:
            try:
                containers.remove(name, force=force, volumes=volumes)
            except NotFound:
                if not force:
                    raise

        containers.sweep()
        return _each(names, remove)


@click.command()
@_names
@click.pass_obj
def pause(session: Session, names: tuple[str, ...]) -> int:
    """Freeze containers."""
    with session.work(containers=False, progress="none") as services:
        return _each(names, services.containers.pause)


@click.command()
@_names
@click.pass_obj
def unpause(session: Session, names: tuple[str, ...]) -> int:
    """Let frozen containers go on."""
    with session.work(containers=False, progress="none") as services:
        return _each(names, services.containers.unpause)


@click.command()
@_names
@click.pass_obj
def wait(session: Session, names: tuple[str, ...]) -> None:
    """Wait for containers to stop and print their exit codes."""
    with session.work(containers=False, progress="none") as services:
        for name in names:
            status = services.containers.wait(name)
            click.echo(status.code if status else 0)


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.argument("new", metavar="NAME")
@click.pass_obj
def rename(session: Session, name: str, new: str) -> None:
    """Rename a container."""
    with session.work(containers=False, progress="none") as services:
        services.containers.rename(name, new)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Accepted for docker's sake: nothing is asked.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=NAME=VALUE."
)
@click.pass_obj
def prune(session: Session, force: bool, filters: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    from pipeline.cli.container_text import parse_filter, parse_moment, size_text

    until, labels = None, []
    for text in filters:
        name, value = parse_filter(text)
        if name == "until":
            until = parse_moment(value)
        elif name == "label":
            labels.append((value.partition("=")[0], value.partition("=")[2]))
        else:
            raise InvalidInput(f"unknown filter {name!r}", hint="until or label")
    with session.work(containers=False, progress="none") as services:
        removed, freed = services.containers.prune(until=until, labels=labels)
    for identifier in removed:
        click.echo(identifier)
    click.echo(f"Total reclaimed space: {size_text(freed)}")
