"""`pipe run` and `pipe create`. They read their flags themselves (`run_flags`) and do without click: a start is to be quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pipeline.cli.session import Session
from runtime.errors import Cancelled, Conflict, InvalidInput, PipeError, StepFailed, Unsupported
from runtime.events import ignore

if TYPE_CHECKING:
    from pipeline.cli.run_spec import RunRequest
    from pipeline.services import Services
    from runtime.containers.client import Connection
    from runtime.containers.container import Container
    from runtime.containers.containers import Containers

SHIM_MODULE = "runtime.containers.shim.main"  # known before `runtime.containers.starting` is imported


# What `docker run` says when no container came of it: 0 to 124 are the program's own (FEATURES D-23).
NOT_STARTED = 125


def run(session: Session, arguments: tuple[str, ...]) -> int:
    """Create and start a container; its exit code, or 125 when it could not start. A mistake in the flags stays a mistake (2)."""
    try:
        return _run(session, arguments)
    except (InvalidInput, Unsupported, Cancelled):
        raise
    except PipeError as error:
        from pipeline.ui.errors import show_error

        show_error(error)
        return NOT_STARTED


def _run(session: Session, arguments: tuple[str, ...]) -> int:
    # What is loaded from here to the container's start stays; looking through it for garbage takes a twentieth of the time.
    gc.disable()
    request = _request("run", "Create and start a container from an image.", arguments)
    if request is None:
        return 0
    with session.work(containers=True, progress="none") as services:
        services.spawner.warm(SHIM_MODULE)
        containers = services.containers
        containers.sweep()
        _fetch(session, services, request)
        container = _create(services, request, start_follows=True)
        if request.detach:
            containers.start(container.id)
            print(container.id)
            return 0
        streams = _streams(request)
        connection = containers.start(container.id, attach=streams)
        assert connection is not None
        return stay(containers, container, connection, request, stdin="stdin" in streams)


def _streams(request: RunRequest) -> tuple[str, ...]:
    if request.attach:
        return tuple(name for name in request.attach if name != "stdin" or request.spec.stdin)
    return ("stdin", "stdout", "stderr") if request.spec.stdin else ("stdout", "stderr")


def stay(
    containers: Containers, container: Container, connection: Connection, request: RunRequest, *, stdin: bool
) -> int:
    from pipeline.cli.foreground import Foreground

    foreground = Foreground(
        connection,
        tty=request.spec.tty,
        stdin=stdin,
        detach_keys=request.detach_keys,
        kill=(lambda number: quietly(lambda: containers.kill(container.id, number)))
        if request.sig_proxy
        else None,
        resize=lambda rows, columns: connection.send(op="resize", rows=rows, columns=columns),
    )
    gc.enable()
    try:
        status = foreground.run()
    except BrokenPipeError:
        # Whoever read our output has gone (`pipe run --rm … | head`): a process would get SIGPIPE and end.
        if request.spec.auto_remove:
            quietly(lambda: containers.kill(container.id))
        raise
    if status is None:
        return _left(containers, container, connection)
    containers.finish(container.id, connection)
    if status.error:
        print(f"pipe: {status.error}", file=sys.stderr)
    return status.code


def _left(containers: Containers, container: Container, connection: Connection) -> int:
    """The user detached, or the shim was killed under us."""
    gone = connection.closed
    connection.close()
    if not gone:
        return 0
    containers.wait(container.id, 10.0)
    containers.sweep()
    raise StepFailed(f"container {container.name} was killed together with its shim", exit_code=137)


def quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except PipeError:
        pass  # it ended while the signal was on its way


def create(session: Session, arguments: tuple[str, ...]) -> None:
    """Create a container."""
    request = _request("create", "Create a container from an image without starting it.", arguments)
    if request is not None:
        with session.work(containers=False, progress="none") as services:
            _fetch(session, services, request)
            print(_create(services, request).id)


def _fetch(session: Session, services: Services, request: RunRequest) -> None:
    """Pull the image if it has to be, and show that; a container's start itself shows nothing."""
    spec = request.spec
    if request.pull == "never" or (
        request.pull == "missing" and services.images.find(spec.image) is not None
    ):
        return
    from pipeline.ui.stream import open_stream

    with open_stream("quiet" if request.quiet else session.settings.progress) as emit:
        services.emit = emit
        platform = spec.platform or session.settings.platform or None
        pull: Literal["always", "missing"] = "always" if request.pull == "always" else "missing"
        services.images.resolve(spec.image, platform=platform, pull=pull, cancel=services.cancel)
    services.emit = ignore


def _request(command: str, summary: str, arguments: tuple[str, ...]) -> RunRequest | None:
    """None when help was asked for, which is then given."""
    from pipeline.cli.run_flags import help_text, parse_command_line
    from pipeline.cli.run_spec import run_request
    from pipeline.settings import environment

    line = parse_command_line(arguments)
    if line.flags.on("help"):
        print(help_text(command, summary))
        return None
    request = run_request(line, environment(), os.getcwd())
    if (
        command == "run"
        and request.spec.tty
        and request.spec.stdin
        and not request.detach
        and not os.isatty(0)
    ):
        raise InvalidInput("the input device is not a terminal", hint="leave -t out")
    if request.cidfile and os.path.exists(request.cidfile):
        raise Conflict(f"{request.cidfile} exists", hint="remove it, or name another --cidfile")
    return request


def _create(services: Services, request: RunRequest, *, start_follows: bool = False) -> Container:
    container = services.containers.create(
        request.spec, pull="never", cancel=services.cancel, start_follows=start_follows
    )
    if request.cidfile:
        with open(request.cidfile, "x", encoding="ascii") as file:
            file.write(container.id)
    return container
