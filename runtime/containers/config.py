"""Turn what was asked (a ContainerSpec or a build step) and what the image says into an OCI runtime config.

Pure: mounts, devices and namespaces of other containers come in as facts, nothing on the host is looked at. Docker's
defaults (capabilities, standard mounts, masked paths) live in `runtime.sandbox.defaults`; here is only what a
container's own wishes change about them. User names and HOME are the sandbox's business: it sees the root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry_client.oci.config import ContainerConfig, Healthcheck
from registry_client.values import field, frozen
from runtime.containers.resources import resources
from runtime.containers.spec import ContainerSpec, Limits, Rlimit
from runtime.errors import InvalidInput, did_you_mean
from runtime.sandbox import defaults

# BuildKit's; some builds look at it, and a host name that changes would spoil reproducibility.
BUILD_HOSTNAME = "buildkitsandbox"
_ALL_DEVICES = {"allow": True, "access": "rwm"}


@frozen
class MountPoint:
    """A mount as the kernel will see it; `type` "bind" takes `source` as an absolute path."""

    target: str
    type: str
    source: str
    options: tuple[str, ...] = ()

    def to_oci(self) -> dict[str, Any]:
        return {
            "destination": self.target,
            "type": self.type,
            "source": self.source,
            "options": list(self.options),
        }


@frozen(kw_only=True)
class Surroundings:
    """What the host decided for a container. A namespace path of "" is a new namespace, "host" the host's own."""

    id: str
    cgroup: str
    mounts: tuple[MountPoint, ...] = ()
    devices: tuple[dict[str, Any], ...] = ()
    network: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroupns: str = ""
    rlimits: Mapping[str, int] = field(default_factory=dict)


def argv_of(spec: ContainerSpec, image: ContainerConfig) -> tuple[str, ...]:
    """ENTRYPOINT and CMD with what was given on the command line; a given entrypoint drops the image's command."""
    if spec.entrypoint is not None:
        entrypoint, command = spec.entrypoint, spec.command or ()
    else:
        entrypoint, command = image.entrypoint or (), spec.command or image.cmd or ()
    argv = (*entrypoint, *command)
    if not argv:
        raise InvalidInput(
            f"no command to run in image {spec.image}", hint="give one, or set CMD or ENTRYPOINT in the image"
        )
    return argv


def environment_of(spec: ContainerSpec, image: ContainerConfig, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME and TERM, overridden by the image, overridden by the spec; a bare NAME removes it."""
    base = [defaults.PATH, f"HOSTNAME={hostname}", *(("TERM=xterm",) if spec.tty else ())]
    values: dict[str, str] = {}
    for entry in (*base, *image.env, *spec.env):
        name, separator, value = entry.partition("=")
        if separator:
            values[name] = value
        else:
            values.pop(name, None)
    return tuple(f"{name}={value}" for name, value in values.items())


def healthcheck_of(spec: ContainerSpec, image: ContainerConfig) -> Healthcheck | None:
    """The check to run: the spec's fields over the image's; None when there is none or it was switched off."""
    if spec.no_healthcheck:
        return None
    own, base = spec.healthcheck, image.healthcheck
    check = own or base
    if own is not None and base is not None:
        names = ("test", "interval", "timeout", "start_period", "start_interval", "retries")
        check = Healthcheck(**{name: getattr(own, name) or getattr(base, name) for name in names})
    return None if check is None or not check.test or check.test[0] == "NONE" else check


def hostname_of(spec: ContainerSpec, identifier: str) -> str:
    """The short id unless the spec names one."""
    return spec.hostname or identifier[:12]


def oci_config(spec: ContainerSpec, image: ContainerConfig, around: Surroundings) -> dict[str, Any]:
    """The OCI runtime config of a container."""
    hostname = hostname_of(spec, around.id)
    user = spec.user if spec.user is not None else image.user
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": _process(
            argv=argv_of(spec, image),
            env=environment_of(spec, image, hostname),
            cwd=spec.working_dir or image.working_dir or "/",
            user=user,
            groups=spec.groups,
            capabilities=capabilities(spec.cap_add, spec.cap_drop, spec.privileged),
            rlimits=_rlimits(spec.rlimits, around.rlimits),
            no_new_privileges=spec.no_new_privileges,
        ),
        "root": {"path": "rootfs", "readonly": spec.read_only},
        "mounts": [
            *_standard_mounts(spec.limits.shm_size, spec.privileged, around, spec.ipc_mode),
            *(mount.to_oci() for mount in sorted(around.mounts, key=lambda mount: mount.target.count("/"))),
        ],
        "linux": _linux(spec, around),
        "annotations": dict(spec.annotations),
    }
    if around.uts != "host":
        config["hostname"] = hostname
        if spec.domainname:
            config["domainname"] = spec.domainname
    process = config["process"]
    process["terminal"] = spec.tty
    if spec.limits.oom_score_adj:
        process["oomScoreAdj"] = spec.limits.oom_score_adj
    if spec.apparmor:
        process["apparmorProfile"] = spec.apparmor
    return config


def build_step_config(
    *,
    argv: Sequence[str],
    env: Sequence[str],
    cwd: str = "/",
    user: str = "",
    cgroup: str,
    mounts: Sequence[MountPoint] = (),
    network: str = "",
    hostname: str = BUILD_HOSTNAME,
    privileged: bool = False,
    rlimits: Sequence[Rlimit] = (),
    limits: Limits | None = None,
) -> dict[str, Any]:
    """The OCI runtime config of a RUN. `env` is complete (the builder adds PATH); `network`: "", "host", or a namespace's path."""
    spec = ContainerSpec(image="", limits=limits or Limits(), privileged=privileged)
    around = Surroundings(id=hostname, cgroup=cgroup, mounts=tuple(mounts), network=network)
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": _process(
            argv=tuple(argv),
            env=tuple(env),
            cwd=cwd,
            user=user,
            groups=(),
            capabilities=capabilities((), (), privileged),
            rlimits=_rlimits(tuple(rlimits), {}),
            no_new_privileges=False,
        ),
        "root": {"path": "rootfs", "readonly": False},
        "hostname": hostname,
        "mounts": [
            *_standard_mounts(spec.limits.shm_size, privileged, around, ""),
            *(mount.to_oci() for mount in mounts),
        ],
        "linux": _linux(spec, around),
    }
    return config


def capabilities(add: Sequence[str], drop: Sequence[str], privileged: bool = False) -> list[str]:
    """Docker's set with `--cap-add` and `--cap-drop` applied; "ALL" on either side works as in Docker."""
    known = defaults.ALL_CAPABILITIES
    if privileged:
        return list(known)
    added, dropped = _names(add, known), _names(drop, known)
    if "ALL" in added:
        return [name for name in known if name not in dropped]
    start: Sequence[str] = () if "ALL" in dropped else defaults.CAPABILITIES
    kept = [name for name in start if name not in dropped]
    return kept + [name for name in known if name in added and name not in kept]


def _names(given: Sequence[str], known: Sequence[str]) -> set[str]:
    names = set()
    for text in given:
        name = text.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name != "ALL" and name not in known:
            raise InvalidInput(f"unknown capability {text!r}", hint=did_you_mean(name, known))
        names.add(name)
    return names


def _process(
    *,
    argv: tuple[str, ...],
    env: tuple[str, ...],
    cwd: str,
    user: str,
    groups: tuple[str, ...],
    capabilities: list[str],
    rlimits: list[dict[str, Any]],
    no_new_privileges: bool,
) -> dict[str, Any]:
    return {
        "terminal": False,
        "args": list(argv),
        "env": list(env),
        "cwd": cwd,
        # "name", "uid", "user:group": resolved in the container's own /etc/passwd by the sandbox.
        "user": {"username": user or "0", "additionalGids": list(groups)},
        "capabilities": defaults.capability_sets(capabilities),
        "rlimits": rlimits,
        "noNewPrivileges": no_new_privileges,
    }


def _rlimits(own: tuple[Rlimit, ...], default: Mapping[str, int]) -> list[dict[str, Any]]:
    limits = {name: Rlimit(name=name, soft=value, hard=value) for name, value in default.items()}
    limits.update({limit.name: limit for limit in own})
    return [
        {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard}
        for limit in limits.values()
    ]


def _standard_mounts(
    shm_size: int, privileged: bool, around: Surroundings, ipc_mode: str
) -> list[dict[str, Any]]:
    """Docker's mounts without those that the container mounts itself."""
    own = {mount.target.rstrip("/") or "/" for mount in around.mounts}
    mounts = []
    for mount in defaults.mounts(shm_size):
        target = mount["destination"]
        if target in own or (target == "/dev/shm" and ipc_mode == "none"):
            continue
        options = [option for option in mount["options"] if not (privileged and option == "ro")]
        mounts.append({**mount, "options": options})
    return mounts


def _linux(spec: ContainerSpec, around: Surroundings) -> dict[str, Any]:
    open_paths = spec.privileged or spec.unmask_paths
    linux: dict[str, Any] = {
        "namespaces": list(_namespaces(spec, around)),
        "cgroupsPath": around.cgroup,
        "resources": resources(spec.limits) | {"devices": _device_rules(spec, around)},
        "devices": [device for device in around.devices if "path" in device],
        "maskedPaths": [] if open_paths else defaults.masked_paths(),
        "readonlyPaths": [] if open_paths else list(defaults.READONLY_PATHS),
    }
    sysctls = dict(_default_sysctls(around)) | dict(spec.sysctls)
    if sysctls:
        linux["sysctl"] = sysctls
    return linux


def _default_sysctls(around: Surroundings) -> Mapping[str, str]:
    """As Docker since 20.10: low ports and ping need no capability in a network namespace of one's own."""
    if around.network:
        return {}
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def _namespaces(spec: ContainerSpec, around: Surroundings) -> Sequence[dict[str, str]]:
    wanted = (
        ("mount", ""),
        ("network", around.network),
        ("uts", around.uts),
        ("pid", around.pid),
        ("ipc", around.ipc),
        ("cgroup", around.cgroupns or spec.cgroupns_mode.replace("private", "")),
        ("time", "host" if spec.runtime else ""),  # Debian's crun and runc know none
    )
    return [{"type": kind, **({"path": path} if path else {})} for kind, path in wanted if path != "host"]


def _device_rules(spec: ContainerSpec, around: Surroundings) -> list[dict[str, Any]]:
    if spec.privileged:
        return [_ALL_DEVICES]
    rules = defaults.device_rules()
    rules += [
        {
            "allow": True,
            "type": device["type"],
            "major": device["major"],
            "minor": device["minor"],
            "access": device.get("access", "rwm"),
        }
        for device in around.devices
    ]
    return rules + [device_rule(text) for text in spec.device_rules]


def device_rule(text: str) -> dict[str, Any]:
    """`c 42:* rmw` as an OCI device rule."""
    words = text.split()
    major, _, minor = words[1].partition(":") if len(words) == 3 else ("", "", "")
    numbers = all(number == "*" or number.isdigit() for number in (major, minor))
    if len(words) != 3 or words[0] not in "abc" or not numbers or not set(words[2]) <= set("rwm"):
        raise InvalidInput(f"invalid device rule {text!r}", hint="write it like `c 42:* rmw`")
    return {
        "allow": True,
        "type": words[0],
        "access": words[2],
        **{name: int(value) for name, value in (("major", major), ("minor", minor)) if value != "*"},
    }
