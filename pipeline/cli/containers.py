"""`pipe run`, `ps`, `exec` and the other commands of containers; the group `container` has them all once more.

Names, flags and exit codes are docker's. All work is in `runtime.containers`; here are arguments in and text out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from pipeline.cli import run_command
from pipeline.cli.session import Session
from runtime.errors import InvalidInput, NotFound, PipeError

if TYPE_CHECKING:
    from pipeline.cli.run_spec import RunRequest
    from pipeline.services import Services
    from runtime.containers.container import Container

_RAW = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


# --- run and create -------------------------------------------------------------------------------------------------


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


# --- one verb, many containers --------------------------------------------------------------------------------------


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


# --- being with one -------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.option("--no-stdin", is_flag=True, help="Without our input.")
@click.option("--detach-keys", default="", metavar="KEYS", help="The keys that detach.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand signals on to the process.")
@click.pass_obj
def attach(session: Session, name: str, no_stdin: bool, detach_keys: str, sig_proxy: bool) -> int:
    """Attach to a running container."""
    from pipeline.cli.foreground import Foreground

    with session.work(containers=False, progress="none") as services:
        containers = services.containers
        container = containers.get(name)
        stdin = container.spec.stdin and not no_stdin
        connection = containers.attach(
            container.id, ("stdin", "stdout", "stderr") if stdin else ("stdout", "stderr")
        )
        with connection:
            status = Foreground(
                connection,
                tty=container.spec.tty,
                stdin=stdin,
                detach_keys=detach_keys,
                kill=(lambda n: run_command.quietly(lambda: containers.kill(container.id, n)))
                if sig_proxy
                else None,
                resize=lambda rows, columns: connection.send(op="resize", rows=rows, columns=columns),
            ).run()
        return status.code if status else 0


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("name", metavar="CONTAINER")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Do not wait.")
@click.option("--detach-keys", default="", metavar="KEYS", help="The keys that detach.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="An environment variable.")
@click.option(
    "--env-file", "env_files", multiple=True, metavar="FILE", help="A file of environment variables."
)
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.option("-t", "--tty", is_flag=True, help="A terminal.")
@click.option("-u", "--user", help="Name or uid, with :group.")
@click.option("-w", "--workdir", help="The directory to start in.")
@click.pass_obj
def exec_(
    session: Session,
    name: str,
    command: tuple[str, ...],
    detach: bool,
    detach_keys: str,
    env: tuple[str, ...],
    env_files: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str | None,
    workdir: str | None,
) -> int:
    """Run a command in a running container."""
    from pipeline.cli.foreground import Foreground
    from pipeline.cli.run_spec import read_files
    from pipeline.cli.run_values import environment
    from pipeline.settings import environment as own
    from runtime.containers.spec import ExecSpec

    if tty and interactive and not detach and not os.isatty(0):
        raise InvalidInput("the input device is not a terminal", hint="leave -t out")
    spec = ExecSpec(
        argv=command,
        env=environment(env, read_files(list(env_files), os.getcwd()), own()),
        user=user,
        working_dir=workdir,
        tty=tty,
        stdin=interactive and not detach,
        privileged=privileged,
    )
    with session.work(containers=False, progress="none") as services:
        size = os.get_terminal_size(1) if tty and os.isatty(1) else None
        shape = (size.lines, size.columns) if size else (0, 0)
        with services.containers.exec(name, spec, detach=detach, size=shape) as connection:
            if detach:
                return 0
            status = Foreground(
                connection,
                tty=tty,
                stdin=spec.stdin,
                detach_keys=detach_keys,
                resize=lambda rows, columns: connection.send(op="resize", rows=rows, columns=columns),
            ).run()
        if status is not None and status.error:
            click.echo(f"pipe: {status.error}", err=True)
        return status.code if status else 137


# --- looking --------------------------------------------------------------------------------------------------------


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only some.")
@click.option(
    "--format", "form", default="table", metavar="FORMAT", help="table, json, or text with {{.Field}}."
)
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="The last N, in whatever state.")
@click.option("-l", "--latest", is_flag=True, help="The last one.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-s", "--size", is_flag=True, help="Show sizes.")
@click.pass_obj
def ps(
    session: Session,
    everything: bool,
    filters: tuple[str, ...],
    form: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers."""
    from pipeline.cli.container_text import show_table

    last = 1 if latest else last
    with session.work(containers=False, progress="none") as services:
        services.containers.sweep()
        wanted = [_filter(text) for text in filters]
        found = services.containers.list(everything=everything or last >= 0, filters=wanted)
        found = found if last < 0 else found[:last]
        if quiet:
            for container in found:
                click.echo(container.id if no_trunc else container.short_id)
        else:
            show_table(services, found, form, no_trunc=no_trunc, size=size)


def _filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"filter {text!r} is not NAME=VALUE")
    return name, value


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "form", default="", metavar="FORMAT", help="json, or text with {{.Field}}.")
@click.option("-s", "--size", is_flag=True, help="Count sizes.")
@click.option("--type", "kind", default="", metavar="TYPE", help="container, image, volume or network.")
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], form: str, size: bool, kind: str) -> int:
    """Show everything about a container or image."""
    from pipeline.cli.container_text import show_inspected

    with session.work(containers=False, progress="none") as services:
        services.containers.sweep()
        return show_inspected(services, names, form, size=size, kind=kind)


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.argument("options", nargs=-1, metavar="[ps OPTIONS]")
@click.pass_obj
def top(session: Session, name: str, options: tuple[str, ...]) -> None:
    """Show the processes of a container."""
    from pipeline.cli.container_text import table

    with session.work(containers=False, progress="none") as services:
        rows = services.containers.top(name)
    if rows:
        click.echo(table([list(rows[0]), *(list(row.values()) for row in rows)]))


@click.command()
@click.argument("names", nargs=-1, metavar="[CONTAINER...]")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("--no-stream", is_flag=True, help="Once, and not again every second.")
@click.option("--format", "form", default="table", metavar="FORMAT", help="table or json.")
@click.pass_obj
def stats(session: Session, names: tuple[str, ...], everything: bool, no_stream: bool, form: str) -> None:
    """Show what containers use."""
    from pipeline.cli.container_text import show_stats

    with session.work(containers=False, progress="none") as services:
        while True:
            show_stats(services, names, form)
            if no_stream or session.cancel.wait(1.0):
                return


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.argument("private", required=False, metavar="[PORT[/PROTO]]")
@click.pass_obj
def port(session: Session, name: str, private: str | None) -> None:
    """Show the published ports of a container."""
    with session.work(containers=False, progress="none") as services:
        container = services.containers.get(name)
        bindings = services.networks.published(container.id)
    number, _, protocol = (private or "").partition("/")
    found = [
        binding
        for binding in bindings
        if not private or (str(binding.container_port) == number and binding.protocol == (protocol or "tcp"))
    ]
    if private and not found:
        raise NotFound(f"port {private} of container {container.name} is not published")
    for binding in found:
        left = "" if private else f"{binding.container_port}/{binding.protocol} -> "
        click.echo(f"{left}{binding.host_ip}:{binding.host_port}")


@click.command()
@click.argument("name", metavar="CONTAINER")
@click.pass_obj
def diff(session: Session, name: str) -> None:
    """Show what differs from the image."""
    with session.work(containers=False, progress="none") as services:
        for kind, path in services.containers.changes(name):
            click.echo(f"{kind} {path}")


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


@click.command()
@click.argument("source", metavar="CONTAINER:PATH|PATH|-")
@click.argument("target", metavar="CONTAINER:PATH|PATH|-")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-L", "--follow-link", is_flag=True, help="Follow a link in the source.")
@click.option("-q", "--quiet", is_flag=True, help="Accepted for docker's sake.")
@click.pass_obj
def cp(session: Session, source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and the host."""
    from pipeline.cli.copy_files import copy

    with session.work(containers=False, progress="none") as services:
        copy(services.containers, source, target, archive=archive, follow_link=follow_link)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Accepted for docker's sake: nothing is asked.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="until=TIME, label=NAME=VALUE."
)
@click.pass_obj
def prune(session: Session, force: bool, filters: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    from pipeline.cli.container_text import parse_moment, size_text

    until, labels = None, []
    for text in filters:
        name, value = _filter(text)
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
