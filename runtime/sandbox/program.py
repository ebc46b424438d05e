"""From a prepared container to its program: who it is, where it stands, what it may, and exec.

Shared by a container's first process and by those that join it later. Messages for a missing or unusable program are
runc's, since people search for them: 127 is "not found", 126 "found, but cannot be executed".
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn

from runtime.linux import process as linux
from runtime.sandbox import credentials, helper, terminal, wire
from runtime.sandbox.errors import ExecFailed, SandboxError
from runtime.sandbox.paths import Root
from runtime.sandbox.plan import Json
from runtime.sandbox.user import Identity, resolve_user

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST, _LAST = 3, 0xFFFFFFFF
FAILED = 125


class Host:
    """What the spawner knows about this machine and hands to every child."""

    def __init__(
        self, hierarchies: list[tuple[str, str]], capabilities: int, last_capability: int, helper: int
    ) -> None:
        self.hierarchies = hierarchies
        self.helper = helper
        self.capabilities = capabilities
        self.last_capability = last_capability


class Newborn(ABC):
    """A fresh clone on its way to a program: what it knows, and how it tells the spawner what went wrong."""

    def __init__(
        self, host: Host, process: Json, channel: socket.socket, stdio: tuple[int, int, int], seccomp: bytes
    ) -> None:
        self.host, self.process, self.channel, self.stdio = host, process, channel, stdio
        self.seccomp = seccomp
        self.slave = -1  # its terminal
        self.init = False
        self.doing = "start"  # the step at hand, named before it is done

    @abstractmethod
    def run(self) -> None:
        """All steps; does not return."""

    def main(self) -> NoReturn:
        try:
            self.run()
        except SandboxError as error:
            self._fail(error.operation or self.doing, error.message, error.kind, error.hint)
        except ExecFailed as error:
            wire.send_packet(self.channel, {"event": "exec", "code": error.code, "error": error.message})
            os._exit(error.code)
        except OSError as error:
            path = f" {error.filename}" if error.filename else ""
            self._fail(self.doing, f"{error.strerror or error}{path}", "host", "")
        except BaseException as error:  # noqa: BLE001  (a bug must not run the spawner's loop a second time)
            self._fail(self.doing, f"{type(error).__name__}: {error}", "bug", "")
        finally:
            os._exit(FAILED)

    def _fail(self, operation: str, message: str, kind: str, hint: str) -> NoReturn:
        report = {"event": "failed", "operation": operation[:4000], "error": message[:4000]}
        wire.send_packet(self.channel, {**report, "kind": kind, "hint": hint})
        os._exit(FAILED)

    def begin(self) -> None:
        """What every one of them does first."""
        os.umask(0)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        # Until exec, nobody in the container may look at our memory, descriptors or executable (ptrace(2), dumpable).
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        os.setsid()

    def wait_for(self, event: str) -> Json:
        """The spawner's word to go on; when it is gone, so are we."""
        while True:
            packet = wire.receive_packet(self.channel)
            if packet is None:
                os._exit(FAILED)
            if packet[0]["event"] == event:
                return packet[0]

    def open_terminal(self, root: Root, *, console: bool) -> None:
        self.doing = "open a terminal"
        size = self.process.get("consoleSize") or {}
        master, self.slave = terminal.open_terminal(root, size.get("height", 0), size.get("width", 0))
        if console:
            terminal.bind_console(root, self.slave)
        wire.send_packet(self.channel, {"event": "terminal"}, [master])
        os.close(master)


def identify(user: Json, env: list[str], read: Callable[[str, int], bytes]) -> Identity:
    """`username` is resolved with the container's own files; numbers are taken as they are."""
    groups = user.get("additionalGids") or []
    if name := user.get("username"):
        return resolve_user(name, [str(group) for group in groups], read)
    identity = Identity(user.get("uid", 0), user.get("gid", 0), list(groups), "")
    if not any(word.startswith("HOME=") for word in env):
        identity.home = resolve_user(str(identity.uid), [], read).home
    return identity


def run_program(
    this: Newborn, identity: Identity, sets: credentials.Capabilities, umask: int | None
) -> NoReturn:
    """The order is the point; see `credentials`."""
    process = this.process
    this.doing = "connect standard input and output"
    _connect_stdio(this, identity.uid)
    this.doing = "join a session keyring"
    _own_keyring()
    no_new_privileges = bool(process.get("noNewPrivileges"))
    if no_new_privileges:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    elif this.seccomp:
        this.doing = "install the seccomp filter"
        linux.seccomp(this.seccomp)
    directory = process.get("cwd") or "/"
    this.doing = f"change to {directory}"
    early = _try_chdir(directory)
    this.doing = "change user and capabilities"
    credentials.become(identity, sets, this.host.last_capability)
    this.doing = f"change to {directory}"
    _arrive(directory, early)
    os.umask(0o022 if umask is None else umask)
    # Changing the user cleared it (prctl(2)); the spawner may have died in between.
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if no_new_privileges and this.seccomp:
        this.doing = "install the seccomp filter"
        linux.seccomp(this.seccomp)
    _execute(this, identity)


def _connect_stdio(this: Newborn, uid: int) -> None:
    """Onto 0, 1, 2; everything else closes at exec. Pipes and terminals must be openable again through /dev/stdout."""
    if this.slave >= 0:
        terminal.take_terminal(this.slave)
        this.stdio = (this.slave, this.slave, this.slave)
    for number, descriptor in enumerate(this.stdio):
        if descriptor >= 0:
            os.dup2(descriptor, number)
        elif number > 0 or this.slave < 0:
            _null(number)
        if uid and _is_pipe_or_terminal(number):
            os.fchown(number, uid, -1)
    linux.close_range(_FIRST, _LAST, linux.CLOSE_RANGE_CLOEXEC)


def _null(number: int) -> None:
    """/dev/null of the container, or of the host where the container has none."""
    try:
        descriptor = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    os.dup2(descriptor, number)


def _is_pipe_or_terminal(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(descriptor))


def _own_keyring() -> None:
    """Keys of the host's session must not be readable inside; kernels without keyrings have nothing to hide."""
    try:
        linux.join_session_keyring("pipe")
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise


def _try_chdir(directory: str) -> bool:
    """As root first: a directory may be closed to the user, and another only open to him (network file systems)."""
    try:
        os.chdir(directory)
    except PermissionError:
        return False
    return True


def _arrive(directory: str, already: bool) -> None:
    if not already:
        os.chdir(directory)
    # CVE-2024-21626: a working directory outside the root would be a way out.
    where = os.getcwd()
    if not where.startswith("/"):
        raise SandboxError(f"the working directory {directory} is outside the container", kind="input")


def _reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ and the spawner SIGINT; a program starts with defaults (exec keeps "ignored")."""
    for number in (
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _owner_is_there(channel: socket.socket) -> bool:
    try:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _execute(this: Newborn, identity: Identity) -> NoReturn:
    argv = [os.fsencode(word) for word in this.process["args"]]
    env = _environment(this.process.get("env") or [], identity)
    this.doing = f"execute {this.process['args'][0]}"
    path = find_program(this.process["args"][0], env)
    _reset_signals()
    if not _owner_is_there(this.channel):
        os._exit(FAILED)
    if this.host.helper >= 0:
        _through_helper(this, path, argv, env)
    if this.init:
        raise SandboxError("there is no --init for this kind of processor", kind="unsupported")
    try:
        os.execve(path, argv, env)
    except OSError as error:
        raise exec_failed(this.process["args"][0], error.errno or 0) from error


def _through_helper(this: Newborn, path: str, argv: list[bytes], env: dict[str, str]) -> None:
    """Execute our helper, which executes the program; see `helper` for why. Its line to the spawner is descriptor 3."""
    os.dup2(this.channel.fileno(), helper.LINE, inheritable=True)
    words = [b"pipe-init" if this.init else b"pipe-exec", os.fsencode(path), *argv]
    linux.execveat(this.host.helper, words, [os.fsencode(f"{name}={value}") for name, value in env.items()])


def _environment(words: list[str], identity: Identity) -> dict[str, str]:
    """The last of a name wins. HOME comes from the user's entry when the plan sets none, as runc does it."""
    env: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name and equals:
            env[name] = value
    if not env.get("HOME"):
        env["HOME"] = identity.home or "/"
    return env


def find_program(name: str, env: dict[str, str]) -> str:
    """Look a command up in the PATH of its own environment, inside the container."""
    if "/" in name:
        return name
    denied = False
    for directory in env.get("PATH", DEFAULT_PATH).split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            mode = os.stat(candidate).st_mode
        except PermissionError:
            denied = True
            continue
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        denied = denied or stat.S_ISREG(mode)
    if denied:
        raise ExecFailed(126, f'exec: "{name}": permission denied')
    raise ExecFailed(127, f'exec: "{name}": executable file not found in $PATH')


def exec_failed(name: str, number: int) -> ExecFailed:
    """Why a program was not executed, in runc's words."""
    match number:
        case errno.ENOENT:
            return ExecFailed(127, f'exec: "{name}": stat {name}: no such file or directory')
        case errno.ENOTDIR:
            return ExecFailed(127, f'exec: "{name}": not a directory')
        case errno.ENOEXEC:
            return ExecFailed(126, f'exec: "{name}": exec format error')
    return ExecFailed(126, f'exec: "{name}": {os.strerror(number).lower()}')
