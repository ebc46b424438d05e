"""The process that serves the registry: one per store, in the foreground or detached.

`registry/lock` below the store is locked for as long as one serves, so a kill leaves nothing to clean up;
`registry/state.json` says where. A detached one is a new process of our own (`python -m runtime.registry`), which
tells through a pipe that it listens. The port it got is asked for again the next time.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict

from registry_client.values import frozen
from runtime.errors import Conflict, HostFault, PipeError, TimedOut
from runtime.images.images import Images
from runtime.registry.service import EmbeddedRegistry, ServiceOptions, parse_address
from runtime.store import Store
from runtime.store.durable import replace_file
from runtime.store.owners import is_alive, own_token

_START_LIMIT = 60.0
_STOP_LIMIT = 30.0


@frozen
class ServiceState:
    """A registry that is serving, or was."""

    owner: str  # a token of runtime.store.owners
    pid: int
    address: str
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"


def serve(
    store: Store, images: Images, options: ServiceOptions, announce: Callable[[ServiceState], None]
) -> None:
    """Serve until SIGTERM or SIGINT. `announce` is called with the state once connections are accepted."""
    ended = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_only_one(store.root))
        registry = stack.enter_context(EmbeddedRegistry(store, images, options, _port_before(store.root)))
        state = ServiceState(own_token(), os.getpid(), registry.address, bool(options.certificate))
        _write_state(store.root, state)
        stack.enter_context(_signals(ended))
        announce(state)
        ended.wait()


def start_detached(root: str, options: ServiceOptions) -> ServiceState:
    """Start a process of its own that serves; returns once it accepts connections."""
    import subprocess

    if (running := status(root)) is not None:
        raise _already(running)
    directory = _directory(root)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with ExitStack() as stack:
        stack.callback(os.close, reader)
        with ExitStack() as child:
            child.callback(os.close, writer)
            log = child.enter_context(open(os.path.join(directory, "log"), "ab"))
            command = [
                sys.executable,
                "-m",
                "runtime.registry",
                root,
                json.dumps(asdict(options)),
                str(writer),
            ]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=(writer,),
            )
        # Somebody has to wait for it while we live, or it stays a zombie when it ends.
        threading.Thread(target=process.wait, name="registry-wait", daemon=True).start()
        answer = _read_answer(reader)
    if answer.startswith("error: "):
        raise HostFault(f"the registry did not start: {answer.removeprefix('error: ')}")
    state = status(root)
    if state is None:
        raise HostFault("the registry did not start", hint=f"see {os.path.join(directory, 'log')}")
    return state


def run_process(root: str, options: ServiceOptions, answer: int) -> int:
    """The detached process: serves, and reports through the descriptor `answer` whether it could begin."""
    import logging

    _log_to(log_path(root))
    _raise_file_limit()
    open_answer = [answer]

    def tell(text: str) -> None:
        if open_answer:
            descriptor = open_answer.pop()
            os.write(descriptor, text.encode())
            os.close(descriptor)

    try:
        with Store.open(root) as store:
            serve(store, Images(store), options, lambda state: tell(f"{state.address}\n"))
    except PipeError as error:
        tell(f"error: {error.message}")
        logging.error("%s", error.message)
        return 1
    return 0


def _log_to(path: str) -> None:
    """One line per request, in two files of at most 8 MiB."""
    import logging
    from logging.handlers import RotatingFileHandler

    handler = RotatingFileHandler(path, maxBytes=8 << 20, backupCount=1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[handler])


def _raise_file_limit() -> None:
    # A connection may hold a socket, a blob and a database connection; the usual soft limit is for select(2)'s sake.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def status(root: str) -> ServiceState | None:
    """The registry that serves this store, if one does."""
    state = _read_state(root)
    return state if state is not None and is_alive(state.owner) else None


def stop(root: str) -> ServiceState | None:
    """End the serving process and wait for it; None when there is none."""
    state = status(root)
    if state is None:
        return None
    if state.owner.split(".")[:2] != own_token().split(".")[:2]:
        raise Conflict(
            f"the registry at {state.address} runs in another pid namespace",
            hint="stop it in the container that started it",
        )
    try:
        process = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return state
    try:
        # Between reading the state and now the pid may have gone to somebody else; behind the pidfd it cannot.
        if is_alive(state.owner):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], _STOP_LIMIT)[0]:
                raise TimedOut(f"the registry (pid {state.pid}) did not end within {_STOP_LIMIT:.0f} s")
    finally:
        os.close(process)
    return state


def log_path(root: str) -> str:
    return os.path.join(root, "registry", "log")


def _port_before(root: str) -> int:
    """The port of the last time; 0 when there was none."""
    before = _read_state(root)
    return parse_address(before.address)[1] if before is not None else 0


def _directory(root: str) -> str:
    directory = os.path.join(root, "registry")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return directory


@contextmanager
def _only_one(root: str) -> Iterator[None]:
    path = os.path.join(_directory(root), "lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _already(status(root)) from None
    try:
        yield
    finally:
        os.close(descriptor)


def _already(state: ServiceState | None) -> Conflict:
    where = f" at {state.address} (pid {state.pid})" if state else ""
    return Conflict(f"a registry already serves this store{where}", hint="`pipe registry stop` ends it")


@contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the service; only the main thread can ask for signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: ended.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def _write_state(root: str, state: ServiceState) -> None:
    replace_file(os.path.join(_directory(root), "state.json"), json.dumps(asdict(state)).encode(), 0o600)


def _read_state(root: str) -> ServiceState | None:
    try:
        with open(os.path.join(root, "registry", "state.json"), encoding="utf-8") as file:
            record = json.load(file)
        return ServiceState(record["owner"], record["pid"], record["address"], record["tls"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _read_answer(reader: int) -> str:
    """What the new process says before it closes its end: nothing when all is well."""
    parts: list[bytes] = []
    while True:
        if not select.select([reader], [], [], _START_LIMIT)[0]:
            raise TimedOut(f"the registry did not start within {_START_LIMIT:.0f} s")
        data = os.read(reader, 4096)
        if not data:
            return b"".join(parts).decode(errors="replace").strip()
        parts.append(data)
