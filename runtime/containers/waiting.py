"""Wait for a container to end, to start, to become healthy; without asking again and again.

A running one is waited for on its shim's socket. One that was not started yet has no shim: its directory is watched
(inotify(7)) until it has, or until the directory is gone.
"""

from __future__ import annotations

import json
import os
import select
import time

from runtime.cancel import Cancel
from runtime.containers.client import Connection, ShimGone
from runtime.containers.container import Container
from runtime.containers.frames import MESSAGE
from runtime.containers.spec import ExitStatus
from runtime.containers.state import CREATED, await_shim_end, read_state
from runtime.errors import StepFailed, TimedOut

_PATIENCE = 10.0


def wait(
    container: Container, timeout: float | None = None, cancel: Cancel | None = None
) -> ExitStatus | None:
    """How the container ends; its removal counts as an end."""
    cancel = cancel or Cancel()
    deadline = None if timeout is None else time.monotonic() + timeout
    state = container.state
    while state.status == CREATED and not state.finished:
        if not os.path.isdir(container.directory):
            return ExitStatus(code=0)
        if not _watch(container.directory, deadline, cancel):
            return None
        state = read_state(container.directory)
    if state.alive:
        connection = Connection.open(container.directory)
        if connection is not None:
            with connection, cancel.on_cancel(connection.interrupt):
                try:
                    connection.ask("wait")
                    return connection.wait_end(_left(deadline))
                except ShimGone:
                    cancel.check()
        await_shim_end(state, _PATIENCE)
        state = read_state(container.directory)
    return ExitStatus(code=state.code, oom_killed=state.oom_killed, error=state.error)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def wait_started(container: Container, cancel: Cancel) -> None:
    """Until it is started once more than it was, or gone."""
    from runtime.linux import inotify

    descriptor = inotify.inotify_init()
    try:
        inotify.inotify_add_watch(
            descriptor, container.directory, inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF
        )
        while os.path.isdir(container.directory):
            if read_state(container.directory).started > container.state.started:
                return
            _readable(descriptor, None, cancel)
            os.read(descriptor, 65536)
    except FileNotFoundError:
        pass
    finally:
        os.close(descriptor)


def wait_removed(container: Container, cancel: Cancel) -> None:
    """Until its directory is gone."""
    from runtime.linux import inotify

    descriptor = inotify.inotify_init()
    try:
        inotify.inotify_add_watch(descriptor, container.directory, inotify.IN_DELETE_SELF)
        while os.path.isdir(container.directory):
            _readable(descriptor, None, cancel)
            os.read(descriptor, 65536)
    except FileNotFoundError:
        pass
    finally:
        os.close(descriptor)


def _readable(descriptor: int, deadline: float | None, cancel: Cancel) -> bool:
    """Until there is something to read; False at the deadline."""
    woken, wake = os.pipe2(os.O_CLOEXEC)
    try:
        with cancel.on_cancel(lambda: _wake(wake)):
            ready = select.select([descriptor, woken], [], [], _left(deadline))[0]
            cancel.check()
            return descriptor in ready
    finally:
        os.close(woken)
        os.close(wake)


def _wake(descriptor: int) -> None:
    os.write(descriptor, b"x")


def _watch(directory: str, deadline: float | None, cancel: Cancel) -> bool:
    """Until something in the directory changes; False at the deadline."""
    from runtime.linux import inotify

    descriptor = inotify.inotify_init()
    try:
        try:
            inotify.inotify_add_watch(descriptor, directory, inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF)
        except FileNotFoundError:
            return True
        if os.path.exists(os.path.join(directory, "state.json")):
            return True  # it came between the look and the watch
        return _readable(descriptor, deadline, cancel)
    finally:
        os.close(descriptor)


def wait_healthy(container: Container, timeout: float | None = None) -> str:
    """Until it says healthy; at once where there is no health check."""
    deadline = None if timeout is None else time.monotonic() + timeout
    connection = Connection.open(container.directory)
    if connection is None:
        raise _ended(container)
    with connection:
        try:
            connection.ask("wait")
            health = connection.ask("status")["state"]["health"]
            if health is None or health["status"] == "healthy":
                return "healthy" if health else ""
            while True:
                if (
                    not connection.has_frames()
                    and not select.select([connection], [], [], _left(deadline))[0]
                ):
                    raise TimedOut(f"container {container.name} is not healthy after {timeout:g} seconds")
                if _says_healthy(container, *connection.next()):
                    return "healthy"
        except ShimGone:
            raise _ended(container) from None


def _says_healthy(container: Container, kind: int, body: bytes) -> bool:
    record = json.loads(body) if kind == MESSAGE else {}
    if record.get("event") == "exited":
        raise StepFailed(
            f"container {container.name} ended with exit code {record['code']}", exit_code=record["code"]
        )
    if record.get("event") == "health" and record["status"] == "unhealthy":
        raise StepFailed(f"container {container.name} is unhealthy")
    return bool(record.get("event") == "health" and record["status"] == "healthy")


def _ended(container: Container) -> StepFailed:
    await_shim_end(container.state, _PATIENCE)
    code = read_state(container.directory).code
    return StepFailed(f"container {container.name} is not running, exit code {code}", exit_code=code)
