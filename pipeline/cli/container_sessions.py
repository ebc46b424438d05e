"""`pipe attach` and `pipe exec`: being with a container that runs."""

from __future__ import annotations

import os

import click

from pipeline.cli import run_command
from pipeline.cli.session import Session
from runtime.errors import InvalidInput


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
