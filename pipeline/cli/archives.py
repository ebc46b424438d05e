"""`pipe save`, `load` and `import`: images from and to files."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@click.option(
    "--format", "form", type=click.Choice(["docker", "oci"]), default="docker", help="docker is both in one."
)
@click.pass_obj
def save(session: Session, names: tuple[str, ...], output: str | None, form: str) -> None:
    """Write images to a tar archive."""
    if output is None and sys.stdout.isatty():
        raise InvalidInput("refusing to write an archive to a terminal", hint="use -o FILE or redirect")
    with session.work(containers=False, progress="none") as services:
        if output is None:
            services.images.save(names, sys.stdout.buffer, docker=form == "docker", cancel=session.cancel)
        else:
            _save_file(services.images, names, output, form == "docker", session.cancel)


def _save_file(found: Any, names: tuple[str, ...], output: str, docker: bool, cancel: Any) -> None:
    """Write beside the file and rename: an archive that failed half-way must not look like one."""
    import os

    from runtime.store.durable import faults_of_the_host

    temporary = f"{output}.{os.getpid()}.part"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InvalidInput(f"cannot write {output}: {error.strerror}") from error
    try:
        with faults_of_the_host(f"cannot write {output}"):
            with open(descriptor, "wb") as file:
                found.save(names, file, docker=docker, cancel=cancel)
            os.replace(temporary, output)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


@click.command()
@click.option("-i", "--input", "source", metavar="FILE", help="Read that instead of stdin.")
@click.option("--platform", metavar="OS/ARCH", help="Which image of several.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what went wrong.")
@click.pass_obj
def load(session: Session, source: str | None, platform: str | None, quiet: bool) -> None:
    """Read images from a tar archive (docker save, OCI layout)."""
    with session.work(containers=False, progress="none") as services, _opened(source) as stream:
        loaded = services.images.load(stream, platform)
        for image in loaded:
            services.images.snapshot(image, session.cancel)
    for image in loaded if not quiet else ():
        for name in image.tags:
            click.echo(f"Loaded image: {_familiar(name)}")
        if not image.tags:
            click.echo(f"Loaded image ID: {image.id}")


def _familiar(tag: str) -> str:
    from registry_client.reference import parse_reference

    return parse_reference(tag).familiar


def _opened(path: str | None) -> Any:
    from contextlib import nullcontext

    if path is None or path == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        file: BinaryIO = open(path, "rb")  # noqa: SIM115  the caller's `with` closes it
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return file


@click.command("import")
@click.argument("source")
@click.argument("name", required=False)
@click.option("-m", "--message", default="", help="A comment for the history.")
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="A Dockerfile's CMD, ENV, USER …"
)
@click.pass_obj
def import_(session: Session, source: str, name: str | None, message: str, changes: tuple[str, ...]) -> None:
    """Make an image of a root file system's tar; `-` is stdin."""
    from datetime import UTC, datetime

    from builder.changes import changed_config

    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    with session.work(containers=False, progress="none") as services, _opened(source) as stream:
        config = changed_config(changes)
        image = services.images.import_root(stream, config=config, comment=message, created=created)
        if name:
            services.images.tag(image.id, name)
    click.echo(image.id)
