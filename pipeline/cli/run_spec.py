"""From the flags of `run` and `create` to a ContainerSpec.

Pure but for the files that flags name (`--env-file`, `--label-file`, a seccomp profile), which are read here so that
everything below works with values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pipeline.cli import run_values as values
from pipeline.cli.run_flags import CommandLine, Given
from registry_client.oci.config import Healthcheck
from registry_client.values import frozen
from runtime.containers.spec import ContainerSpec, Limits, Mount, NetworkAttachment, RestartPolicy
from runtime.errors import InvalidInput, Unsupported, did_you_mean

STREAMS = ("stdin", "stdout", "stderr")
_PULL = ("always", "missing", "never")


@frozen(kw_only=True)
class RunRequest:
    """A container to make, and how the command line wants to be with it."""

    spec: ContainerSpec
    pull: str = "missing"
    quiet: bool = False
    detach: bool = False
    attach: tuple[str, ...] = ()  # () is "the usual"
    detach_keys: str = ""
    sig_proxy: bool = True
    cidfile: str = ""


def run_request(line: CommandLine, own_env: Mapping[str, str], directory: str) -> RunRequest:
    """The request of a parsed command line; relative paths count from `directory`."""
    flags = line.flags
    _refuse(flags)
    pull = flags.one("pull", "missing")
    if pull not in _PULL:
        raise InvalidInput(f"--pull {pull!r} is unknown", hint="always, missing or never")
    attach = tuple(stream.lower() for stream in flags.many("attach"))
    for stream in attach:
        if stream not in STREAMS:
            raise InvalidInput(f"--attach {stream!r} is not a stream", hint="stdin, stdout or stderr")
    if attach and flags.on("detach"):
        raise InvalidInput("--attach and --detach exclude each other")
    return RunRequest(
        spec=container_spec(line, own_env, directory),
        pull=pull,
        quiet=flags.on("quiet"),
        detach=flags.on("detach"),
        attach=attach,
        detach_keys=flags.one("detach-keys"),
        sig_proxy=flags.on("sig-proxy", default=True),
        cidfile=flags.one("cidfile"),
    )


def _refuse(flags: Given) -> None:
    refusals = {
        "gpus": "graphics processors are not supported",
        "storage-opt": "the size of a container's root cannot be limited",
        "use-api-socket": "there is no daemon whose socket could be passed",
        "link-local-ip": "link-local addresses are not supported",
    }
    for name, reason in refusals.items():
        if flags.has(name) and flags.one(name) != "false":
            raise Unsupported(f"--{name}: {reason}")
    if flags.one("isolation", "default") not in ("", "default"):
        raise Unsupported(f"--isolation {flags.one('isolation')}: only `default` on Linux")
    if flags.one("volume-driver", "local") != "local":
        raise Unsupported(f"--volume-driver {flags.one('volume-driver')}: only `local`")
    if flags.one("userns") not in ("", "host"):
        raise InvalidInput(f"--userns {flags.one('userns')!r} is unknown", hint="host")


def container_spec(line: CommandLine, own_env: Mapping[str, str], directory: str) -> ContainerSpec:
    """The spec alone."""
    flags = line.flags
    restart = values.restart(flags.one("restart", "no"))
    if flags.on("rm") and restart.name != "no":
        raise InvalidInput("--rm and --restart exclude each other")
    if restart.name == "no" and values.pairs("label", flags.many("label")).get("autoheal") == "true":
        restart = RestartPolicy(name="on-unhealthy")
    mode, networks = _networks(flags)
    return ContainerSpec(
        image=line.image,
        name=flags.one("name"),
        command=line.command or None,
        entrypoint=_entrypoint(flags),
        env=values.environment(flags.many("env"), read_files(flags.many("env-file"), directory), own_env),
        user=flags.one("user") or None,
        groups=tuple(flags.many("group-add")),
        working_dir=_working_dir(flags),
        hostname=flags.one("hostname"),
        domainname=flags.one("domainname"),
        tty=flags.on("tty"),
        stdin=flags.on("interactive"),
        init=flags.on("init"),
        mounts=_mounts(flags, directory),
        volumes_from=tuple(flags.many("volumes-from")),
        read_only=flags.on("read-only"),
        network_mode=mode,
        networks=networks,
        ports=tuple(port for text in flags.many("publish") for port in values.publish(text)),
        publish_all=flags.on("publish-all"),
        expose=values.exposed(flags.many("expose")),
        links=tuple(_link(text) for text in flags.many("link")),
        dns=tuple(flags.many("dns")),
        dns_search=tuple(flags.many("dns-search")),
        dns_options=tuple(flags.many("dns-option")),
        extra_hosts=tuple(values.extra_host(text) for text in flags.many("add-host")),
        limits=_limits(flags),
        rlimits=tuple(values.ulimit(text) for text in flags.many("ulimit")),
        sysctls=values.pairs("sysctl", flags.many("sysctl"), bare=False),
        cap_add=tuple(flags.many("cap-add")),
        cap_drop=tuple(flags.many("cap-drop")),
        privileged=flags.on("privileged"),
        **_security(flags.many("security-opt"), directory),
        devices=tuple(values.device(text) for text in flags.many("device")),
        device_rules=tuple(flags.many("device-cgroup-rule")),
        pid_mode=_mode(flags, "pid", ("host", "container:")),
        ipc_mode=_mode(flags, "ipc", ("host", "private", "shareable", "none", "container:")),
        uts_mode=_mode(flags, "uts", ("host",)),
        userns_mode=flags.one("userns"),
        cgroupns_mode=_mode(flags, "cgroupns", ("host", "private")),
        cgroup_parent=flags.one("cgroup-parent"),
        healthcheck=_healthcheck(flags),
        no_healthcheck=flags.on("no-healthcheck"),
        stop_signal=flags.one("stop-signal"),
        stop_timeout=values.number("stop-timeout", flags.one("stop-timeout", "10")),
        restart=restart,
        auto_remove=flags.on("rm"),
        labels=_labels(flags, directory),
        annotations=values.pairs("annotation", flags.many("annotation")),
        platform=flags.one("platform"),
        log_driver=_log_driver(flags),
        log_options=values.pairs("log-opt", flags.many("log-opt"), bare=False),
        runtime=flags.one("runtime"),
    )


def _entrypoint(flags: Given) -> tuple[str, ...] | None:
    """`--entrypoint ""` switches the image's off."""
    if not flags.has("entrypoint"):
        return None
    return (flags.one("entrypoint"),) if flags.one("entrypoint") else ()


def _working_dir(flags: Given) -> str | None:
    directory = flags.one("workdir")
    if directory and not directory.startswith("/"):
        raise InvalidInput(f"--workdir {directory!r} is not an absolute path")
    return directory or None


def read_files(names: list[str], directory: str) -> list[tuple[str, str]]:
    files = []
    for name in names:
        try:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                files.append((name, file.read()))
        except OSError as error:
            raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{name} is not UTF-8 text") from error
    return files


def _labels(flags: Given, directory: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name, text in read_files(flags.many("label-file"), directory):
        labels |= values.label_lines(name, text)
    return labels | values.pairs("label", flags.many("label"))


def _mounts(flags: Given, directory: str) -> tuple[Mount, ...]:
    mounts = [values.volume(text, directory) for text in flags.many("volume")]
    mounts += [values.mount(text, directory) for text in flags.many("mount")]
    mounts += [values.tmpfs(text) for text in flags.many("tmpfs")]
    targets = [mount.target for mount in mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidInput(f"{target} is mounted twice", hint="give each target once")
    return tuple(mounts)


def _link(text: str) -> tuple[str, str]:
    name, _, alias = text.partition(":")
    return name, alias or name


def _networks(flags: Given) -> tuple[str, tuple[NetworkAttachment, ...]]:
    """(mode, attachments): a mode alone needs no attachment, addresses and aliases belong to the first network."""
    from registry_client.values import replace

    given = [values.network(text) for text in flags.many("network")]
    aliases = tuple(flags.many("network-alias"))
    address: dict[str, Any] = {
        name: flags.one(flag) for name, flag in (("ipv4", "ip"), ("ipv6", "ip6"), ("mac", "mac-address"))
    }
    if not given:
        given = [NetworkAttachment(network="bridge")]
    names = [attachment.network for attachment in given]
    special = [name for name in names if name in ("none", "host") or name.startswith("container:")]
    if special:
        if len(names) > 1:
            raise InvalidInput(f"--network {special[0]} excludes other networks")
        if special[0].startswith("container:") and (flags.has("publish") or flags.has("publish-all")):
            raise InvalidInput("ports cannot be published in another container's network")
        return special[0], ()
    first = replace(
        given[0],
        aliases=(*given[0].aliases, *aliases),
        **{name: value for name, value in address.items() if value},
    )
    if names == ["bridge"] and not any((aliases, *address.values(), first.options)):
        return "bridge", ()
    return "", (first, *given[1:])


def _limits(flags: Given) -> Limits:
    def size(name: str) -> int:
        return values.size(name, flags.one(name)) if flags.has(name) else 0

    def count(name: str, default: int = 0) -> int:
        return values.integer(name, flags.one(name)) if flags.has(name) else default

    return Limits(
        memory=size("memory"),
        memory_swap=size("memory-swap"),
        memory_reservation=size("memory-reservation"),
        swappiness=count("memory-swappiness", -1),
        cpus=values.number("cpus", flags.one("cpus", "0")),
        cpu_shares=count("cpu-shares"),
        cpu_quota=count("cpu-quota"),
        cpu_period=count("cpu-period"),
        cpu_rt_period=count("cpu-rt-period"),
        cpu_rt_runtime=count("cpu-rt-runtime"),
        cpuset_cpus=flags.one("cpuset-cpus"),
        cpuset_mems=flags.one("cpuset-mems"),
        pids=max(0, count("pids-limit")),
        shm_size=size("shm-size") or 64 << 20,
        oom_score_adj=count("oom-score-adj"),
        oom_kill_disable=flags.on("oom-kill-disable"),
        blkio_weight=count("blkio-weight"),
        blkio_device_weights=tuple(_device_weight(text) for text in flags.many("blkio-weight-device")),
        throttles=tuple(
            values.throttle(name, text)
            for name in ("device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops")
            for text in flags.many(name)
        ),
    )


def _device_weight(text: str) -> tuple[str, int]:
    path, _, weight = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidInput(f"--blkio-weight-device {text!r} is not PATH:WEIGHT")
    return path, values.integer("blkio-weight-device", weight)


def _security(options: list[str], directory: str) -> dict[str, Any]:
    """--security-opt in the words of ContainerSpec; `=` and the older `:` both separate."""
    result: dict[str, Any] = {}
    labels: list[str] = []
    for option in options:
        separator = "=" if "=" in option else ":"
        name, _, value = option.partition(separator)
        if name == "no-new-privileges":
            result["no_new_privileges"] = value != "false"
        elif name == "seccomp":
            plain = value in ("unconfined", "default", "builtin", "")
            result["seccomp"] = (
                (value or "default").replace("builtin", "default")
                if plain
                else os.path.join(directory, value)
            )
        elif name == "apparmor":
            result["apparmor"] = value
        elif name == "label":
            labels.append(value)
        elif name == "systempaths" and value == "unconfined":
            result["unmask_paths"] = True
        else:
            known = ("seccomp", "apparmor", "label", "no-new-privileges", "systempaths")
            raise InvalidInput(f"--security-opt {option!r} is unknown", hint=did_you_mean(name, known))
    return result | ({"selinux": tuple(labels)} if labels else {})


def _mode(flags: Given, name: str, known: tuple[str, ...]) -> str:
    mode = flags.one(name)
    if not mode or any(mode == word or (word.endswith(":") and mode.startswith(word)) for word in known):
        return mode
    raise InvalidInput(f"--{name} {mode!r} is unknown", hint=" or ".join(known).replace(":", ":NAME"))


def _healthcheck(flags: Given) -> Healthcheck | None:
    names = ("interval", "timeout", "start-period", "start-interval")
    times = {name: values.seconds(f"health-{name}", flags.one(f"health-{name}", "0")) for name in names}
    retries = values.integer("health-retries", flags.one("health-retries", "0"))
    command = flags.one("health-cmd")
    if not command and not retries and not any(times.values()):
        return None
    if flags.on("no-healthcheck"):
        raise InvalidInput("--no-healthcheck and --health-… exclude each other")
    nanoseconds = {name.replace("-", "_"): round(value * 1e9) for name, value in times.items()}
    return Healthcheck(test=("CMD-SHELL", command) if command else (), retries=retries, **nanoseconds)


def _log_driver(flags: Given) -> str:
    driver = flags.one("log-driver", "json-file")
    known = ("json-file", "local", "none")
    if driver not in known:
        raise InvalidInput(
            f"--log-driver {driver!r} is not supported", hint=did_you_mean(driver, known) or ", ".join(known)
        )
    return driver
