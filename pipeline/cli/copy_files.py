"""`pipe cp`: which side is the container, and what a target means; docker's rules, which are those of cp(1).

The container's side is confined by `runtime.containers.copying`; on our side a tar is made or taken apart with the
rights of whoever called us.
"""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING, BinaryIO, cast

import click

from pipeline.cli.session import Session
from runtime.containers.untar import extract
from runtime.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from runtime.containers.containers import Containers


@click.command()
@click.argument("source", metavar="CONTAINER:PATH|PATH|-")
@click.argument("target", metavar="CONTAINER:PATH|PATH|-")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-L", "--follow-link", is_flag=True, help="Follow a link in the source.")
@click.option("-q", "--quiet", is_flag=True, help="Accepted for docker's sake.")
@click.pass_obj
def cp(session: Session, source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and the host."""
    with session.work(containers=False, progress="none") as services:
        copy(services.containers, source, target, archive=archive, follow_link=follow_link)


def copy(containers: Containers, source: str, target: str, *, archive: bool, follow_link: bool) -> None:
    from_name, from_path = _split(source)
    to_name, to_path = _split(target)
    if bool(from_name) == bool(to_name):
        raise InvalidInput("one side must be a container, the other not", hint="pipe cp CONTAINER:PATH PATH")
    if from_name:
        _fetch(containers, from_name, from_path, to_path, archive=archive, follow_link=follow_link)
    else:
        _bring(containers, from_path, to_name, to_path, archive=archive, follow_link=follow_link)


def _split(text: str) -> tuple[str, str]:
    """("", path) or (container, path); what begins like a path is one."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith((".", "/")) or "/" in name:
        return "", text
    return name, path or "/"


def _fetch(
    containers: Containers, name: str, path: str, target: str, *, archive: bool, follow_link: bool
) -> None:
    if target == "-":
        containers.copy_out(name, path, sys.stdout.buffer, follow=follow_link)
        sys.stdout.buffer.flush()
        return
    with tempfile.TemporaryFile() as file:
        containers.copy_out(name, path, cast(BinaryIO, file), follow=follow_link)
        file.seek(0)
        _unpack(file, target, archive)


def _unpack(file: IO[bytes], target: str, archive: bool) -> None:
    """Into a directory that is there under its own name, else as the target."""
    into = os.path.isdir(target)
    parent = target if into else os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise NotFound(f"no directory {parent}")
    own = os.path.basename(target.rstrip("/"))
    top = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The names come from a container: they stay below the target whatever they are.
        extract(
            cast(BinaryIO, file),
            top,
            owner=None if archive else (os.geteuid(), os.getegid()),
            rename=(lambda name: name) if into else (lambda name: _renamed(name, own)),
        )
    finally:
        os.close(top)


def _renamed(name: str, first: str) -> str:
    head, slash, rest = name.partition("/")
    return first if head == "." and not slash else f"{first}{slash}{rest}"


def _bring(
    containers: Containers, path: str, name: str, target: str, *, archive: bool, follow_link: bool
) -> None:
    from runtime.containers.copying import is_directory

    container = containers.get(name)
    if path == "-":
        containers.copy_in(container.id, target, sys.stdin.buffer, keep_owners=archive)
        return
    if not os.path.lexists(path):
        raise NotFound(f"no such file: {path}")
    contents = path.endswith("/.") or path in (".", "..")
    if is_directory(containers, container, target):
        directory, inner = target, "." if contents else os.path.basename(os.path.abspath(path))
    else:
        directory, inner = (
            posixpath.dirname(target.rstrip("/")) or "/",
            posixpath.basename(target.rstrip("/")),
        )
        if target.endswith("/") and not os.path.isdir(path):
            raise NotFound(f"no directory {target} in container {container.name}")
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=False) as stream:
            real = os.path.realpath(path) if follow_link else path
            stream.add(real, inner)
        file.seek(0)
        containers.copy_in(container.id, directory, cast(BinaryIO, file), keep_owners=archive)
