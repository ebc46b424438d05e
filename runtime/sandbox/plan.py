"""What to run: an OCI runtime configuration plus the little that OCI has no word for.

Plans are plain values that cross a socket as JSON. Nothing here touches the host; `check_plan` is pure.
"""

from __future__ import annotations

from typing import Any

from runtime.sandbox.errors import SandboxError

Json = dict[str, Any]

NAMESPACES = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time")
_UNSUPPORTED_PROCESS = ("scheduler", "ioPriority", "execCPUAffinity")
_UNSUPPORTED_LINUX = ("intelRdt", "memoryPolicy", "netDevices", "mountLabel")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class RootFs:
    """An overlay: `lowers` topmost first. `upper` "" is a read-only root; no lowers at all make `upper` itself the root.

    `volatile` drops every fsync inside: right for a build step, whose upper is thrown away unless the step succeeds.
    """

    def __init__(self, lowers: list[str], upper: str = "", work: str = "", volatile: bool = False) -> None:
        self.lowers = lowers
        self.upper = upper
        self.work = work
        self.volatile = volatile

    def to_json(self) -> Json:
        return {"lowers": self.lowers, "upper": self.upper, "work": self.work, "volatile": self.volatile}


class Plan:
    """`config` is an OCI config.json; without `rootfs`, config.root.path is used as is.

    `interfaces` are configured inside the network namespace after release:
    {"name": "eth0", "address": "172.30.0.2/16", "gateway": "172.30.0.1", "mac": "", "mtu": 1500, "link": "veth1a2b"}
    (`link`: the name it has now, if it must be renamed).
    `files` are bound after root set-up: {"path": "/etc/hosts", "source": "/abs/file", "readonly": False}.
    `seccomp` is the path of a compiled program (`runtime.sandbox.seccomp`); "" takes config.linux.seccomp, if any.
    `init` puts a small reaper in front of the program as pid 1.
    """

    def __init__(
        self,
        config: Json,
        rootfs: RootFs | None = None,
        interfaces: list[Json] | None = None,
        files: list[Json] | None = None,
        *,
        seccomp: str = "",
        init: bool = False,
    ) -> None:
        self.config = config
        self.rootfs = rootfs
        self.interfaces = interfaces or []
        self.files = files or []
        self.seccomp = seccomp
        self.init = init

    def to_json(self) -> Json:
        return {
            "config": self.config,
            "rootfs": self.rootfs.to_json() if self.rootfs else None,
            "interfaces": self.interfaces,
            "files": self.files,
            "seccomp": self.seccomp,
            "init": self.init,
        }

    @classmethod
    def from_json(cls, record: Json) -> Plan:
        rootfs = record.get("rootfs")
        return cls(
            record["config"],
            RootFs(**rootfs) if rootfs else None,
            record.get("interfaces"),
            record.get("files"),
            seccomp=record.get("seccomp", ""),
            init=bool(record.get("init")),
        )


class ExitInfo:
    """How it ended. `code` is what a shell says: the status, or 128 + n for signal n; 126 and 127 with an `error`."""

    __slots__ = ("code", "error", "oom_killed")

    def __init__(self, code: int, oom_killed: bool = False, error: str = "") -> None:
        self.code = code
        self.oom_killed = oom_killed
        self.error = error

    def __repr__(self) -> str:
        return f"ExitInfo(code={self.code}, oom_killed={self.oom_killed}, error={self.error!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExitInfo):
            return NotImplemented
        return (self.code, self.oom_killed, self.error) == (other.code, other.oom_killed, other.error)

    __hash__ = None  # type: ignore[assignment]


def _wrong(message: str, *, hint: str = "") -> SandboxError:
    return SandboxError(message, kind="input", hint=hint)


def check_plan(plan: Plan, *, native: bool = True) -> None:
    """Refuse what cannot be run before anything is created; another runtime than ours may do more."""
    config = plan.config
    if not isinstance(config, dict):
        raise _wrong("the configuration is not an object")
    process = config.get("process")
    if not isinstance(process, dict) or not process.get("args"):
        raise _wrong("process.args is empty", hint="give a command to run")
    if not all(isinstance(word, str) and "\0" not in word for word in process["args"]):
        raise _wrong("process.args holds something that is not a string, or a string with a NUL byte")
    if not str(process.get("cwd", "/")).startswith("/"):
        raise _wrong(f"process.cwd {process.get('cwd')!r} is not an absolute path")
    if plan.rootfs is None and not (config.get("root") or {}).get("path"):
        raise _wrong("root.path is missing")
    if native:
        _check_unsupported(config)
    _check_namespaces(config)
    for mount in config.get("mounts") or ():
        if not str(mount.get("destination", "")).startswith("/"):
            raise _wrong(f"mount destination {mount.get('destination')!r} is not an absolute path")


def _check_unsupported(config: Json) -> None:
    """Silence would be a promise: what we do not do is refused."""
    linux, process = config.get("linux") or {}, config["process"]
    asked = [f"hooks.{name}" for name in HOOKS if (config.get("hooks") or {}).get(name)]
    asked += [f"process.{name}" for name in _UNSUPPORTED_PROCESS if process.get(name)]
    asked += [f"linux.{name}" for name in _UNSUPPORTED_LINUX if linux.get(name)]
    asked += ["linux.resources.rdma"] if (linux.get("resources") or {}).get("rdma") else []
    if any(space.get("type") == "user" for space in linux.get("namespaces") or ()):
        asked.append("user namespaces")
    if asked:
        message = f"not done by the native sandbox: {', '.join(asked)}"
        raise SandboxError(message, kind="unsupported", hint="use an OCI runtime: --runtime crun")


def _check_namespaces(config: Json) -> None:
    kinds = [space.get("type") for space in (config.get("linux") or {}).get("namespaces") or ()]
    for kind in kinds:
        if kind not in NAMESPACES:
            raise _wrong(f"unknown namespace {kind!r}", hint=f"known: {', '.join(NAMESPACES)}")
        if kinds.count(kind) > 1:
            raise _wrong(f"namespace {kind!r} is listed twice")
    if "mount" not in kinds:
        raise _wrong("a container without a mount namespace would mount over the host")
    if (config.get("hostname") or config.get("domainname")) and "uts" not in kinds:
        raise _wrong("hostname is set, but the UTS namespace is the host's")
