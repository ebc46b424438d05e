"""`POST /containers/create`: Docker's JSON of a container to be as a ContainerSpec (FEATURES E-2, E-R12). Pure.

What clients send is read leniently: unknown fields are passed over, null is "not said". What a field asks for and we
cannot do is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from registry_client.oci.config import Healthcheck
from runtime.containers.spec import (
    ContainerSpec,
    ExecSpec,
    Limits,
    RestartPolicy,
    Rlimit,
    Throttle,
)
from runtime.daemon.place_query import mounts, networks, ports, string_map, texts
from runtime.errors import InvalidInput, Unsupported

Json = Mapping[str, Any]
_LOG_DRIVERS = ("json-file", "local", "none")


def container_spec(record: Json, name: str, platform: str) -> ContainerSpec:
    """InvalidInput for what cannot be meant, Unsupported for what we cannot do."""
    host: Json = record.get("HostConfig") or {}
    _refuse(host)
    image = str(record.get("Image") or "")
    if not image:
        raise InvalidInput("no image was given")
    mode, attachments = networks(record, host)
    health = _healthcheck(record.get("Healthcheck"))
    return ContainerSpec(
        image=image,
        name=name.removeprefix("/"),
        command=_words(record.get("Cmd")),
        entrypoint=_entrypoint(record.get("Entrypoint")),
        env=_environment(record.get("Env")),
        user=record.get("User") or None,
        groups=texts(host.get("GroupAdd")),
        working_dir=record.get("WorkingDir") or None,
        hostname=str(record.get("Hostname") or ""),
        domainname=str(record.get("Domainname") or ""),
        tty=bool(record.get("Tty")),
        stdin=bool(record.get("OpenStdin")),
        init=bool(host.get("Init")),
        mounts=mounts(record, host),
        volumes_from=texts(host.get("VolumesFrom")),
        read_only=bool(host.get("ReadonlyRootfs")),
        network_mode=mode,
        networks=attachments,
        ports=tuple(ports(host.get("PortBindings") or {})),
        publish_all=bool(host.get("PublishAllPorts")),
        expose=tuple(record.get("ExposedPorts") or ()),
        links=tuple(_link(text) for text in texts(host.get("Links"))),
        dns=texts(host.get("Dns")),
        dns_search=texts(host.get("DnsSearch")),
        dns_options=texts(host.get("DnsOptions")),
        extra_hosts=tuple(_host(text) for text in texts(host.get("ExtraHosts"))),
        limits=_limits(host),
        rlimits=tuple(
            Rlimit(name=str(each["Name"]), soft=int(each["Soft"]), hard=int(each["Hard"]))
            for each in host.get("Ulimits") or ()
        ),
        sysctls=string_map(host.get("Sysctls")),
        cap_add=texts(host.get("CapAdd")),
        cap_drop=texts(host.get("CapDrop")),
        privileged=bool(host.get("Privileged")),
        **_security(texts(host.get("SecurityOpt")), host),
        devices=tuple(
            (
                str(each["PathOnHost"]),
                str(each.get("PathInContainer") or each["PathOnHost"]),
                str(each.get("CgroupPermissions") or "rwm"),
            )
            for each in host.get("Devices") or ()
        ),
        device_rules=texts(host.get("DeviceCgroupRules")),
        pid_mode=str(host.get("PidMode") or ""),
        ipc_mode=str(host.get("IpcMode") or ""),
        uts_mode=str(host.get("UTSMode") or ""),
        userns_mode=str(host.get("UsernsMode") or ""),
        cgroupns_mode=str(host.get("CgroupnsMode") or ""),
        cgroup_parent=str(host.get("CgroupParent") or ""),
        healthcheck=None if health == _NO_HEALTH else health,
        no_healthcheck=health == _NO_HEALTH,
        stop_signal=str(record.get("StopSignal") or ""),
        stop_timeout=float(10 if record.get("StopTimeout") is None else record["StopTimeout"]),
        restart=_restart(host.get("RestartPolicy") or {}),
        auto_remove=bool(host.get("AutoRemove")),
        labels=string_map(record.get("Labels")),
        annotations=string_map(host.get("Annotations")),
        platform=platform,
        **_log(host.get("LogConfig") or {}),
        runtime="" if host.get("Runtime") in (None, "", "pipe") else str(host["Runtime"]),
    )


def exec_spec(record: Json) -> ExecSpec:
    words = _words(record.get("Cmd"))
    if not words:
        raise InvalidInput("No exec command specified")
    return ExecSpec(
        argv=words,
        env=_environment(record.get("Env")),
        user=record.get("User") or None,
        working_dir=record.get("WorkingDir") or None,
        tty=bool(record.get("Tty")),
        stdin=bool(record.get("AttachStdin")),
        privileged=bool(record.get("Privileged")),
    )


def _refuse(host: Json) -> None:
    refusals = {
        "DeviceRequests": "graphics processors and other requested devices",
        "StorageOpt": "a limit for the size of a container's root",
    }
    for name, what in refusals.items():
        if host.get(name):
            raise Unsupported(f"HostConfig.{name}: {what} are not supported")
    if host.get("Isolation") not in (None, "", "default"):
        raise InvalidInput(f"invalid isolation {host['Isolation']!r}: it is for Windows")
    if host.get("VolumeDriver") not in (None, "", "local"):
        raise Unsupported(f"volume driver {host['VolumeDriver']!r}", hint="only `local`")


# --- words ----------------------------------------------------------------------------------------------------------


def _words(record: Any) -> tuple[str, ...] | None:
    """A list, or one word; null and nothing is the image's own."""
    if isinstance(record, str):
        return (record,)
    return texts(record) or None


def _entrypoint(record: Any) -> tuple[str, ...] | None:
    """`[""]` switches the image's off."""
    words = _words(record)
    return () if words == ("",) else words


def _environment(record: Any) -> tuple[str, ...]:
    """A name alone takes the variable out of the image's; we only add."""
    return tuple(each for each in texts(record) if "=" in each)


def _healthcheck(record: Any) -> Healthcheck | None:
    if not record:
        return None
    return Healthcheck(
        test=texts(record.get("Test")),
        interval=int(record.get("Interval") or 0),
        timeout=int(record.get("Timeout") or 0),
        start_period=int(record.get("StartPeriod") or 0),
        start_interval=int(record.get("StartInterval") or 0),
        retries=int(record.get("Retries") or 0),
    )


_NO_HEALTH = Healthcheck(test=("NONE",))


def _restart(record: Json) -> RestartPolicy:
    return RestartPolicy(
        name=str(record.get("Name") or "no"), maximum=int(record.get("MaximumRetryCount") or 0)
    )


def _log(record: Json) -> dict[str, Any]:
    driver = str(record.get("Type") or "json-file")
    if driver not in _LOG_DRIVERS:
        raise InvalidInput(f"log driver {driver!r} is not supported", hint=", ".join(_LOG_DRIVERS))
    return {"log_driver": driver, "log_options": string_map(record.get("Config"))}


def _security(options: Iterable[str], host: Json) -> dict[str, Any]:
    """`SecurityOpt`; a profile comes as its text, which is for a later day."""
    found: dict[str, Any] = {}
    labels = []
    for option in options:
        name, _, value = option.partition("=" if "=" in option else ":")
        if name == "no-new-privileges":
            found["no_new_privileges"] = value != "false"
        elif name == "seccomp" and value in ("unconfined", "default", "builtin", ""):
            found["seccomp"] = "unconfined" if value == "unconfined" else "default"
        elif name == "apparmor":
            found["apparmor"] = value
        elif name == "label":
            labels.append(value)
        elif name == "systempaths" and value == "unconfined":
            found["unmask_paths"] = True
        else:
            raise Unsupported(f"security option {name!r} with {value[:40]!r} is not supported")
    if labels:
        found["selinux"] = tuple(labels)
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == []:
        found["unmask_paths"] = True
    return found


def _link(text: str) -> tuple[str, str]:
    name, _, alias = text.partition(":")
    return name.removeprefix("/"), alias.rpartition("/")[2] or name.removeprefix("/")


def _host(text: str) -> tuple[str, str]:
    name, colon, address = text.partition("=" if "=" in text else ":")
    if not name or not colon or not address:
        raise InvalidInput(f'bad format for add-host: "{text}"')
    return name, address.strip("[]")


# --- limits ---------------------------------------------------------------------------------------------------------


def _limits(host: Json) -> Limits:
    def number(name: str, default: int = 0) -> int:
        return default if host.get(name) is None else int(host[name])

    throttles = {
        "BlkioDeviceReadBps": "read-bps",
        "BlkioDeviceWriteBps": "write-bps",
        "BlkioDeviceReadIOps": "read-iops",
        "BlkioDeviceWriteIOps": "write-iops",
    }
    return Limits(
        memory=number("Memory"),
        memory_swap=number("MemorySwap"),
        memory_reservation=number("MemoryReservation"),
        swappiness=number("MemorySwappiness", -1),
        cpus=number("NanoCpus") / 1e9,
        cpu_shares=number("CpuShares"),
        cpu_quota=number("CpuQuota"),
        cpu_period=number("CpuPeriod"),
        cpu_rt_period=number("CpuRealtimePeriod"),
        cpu_rt_runtime=number("CpuRealtimeRuntime"),
        cpuset_cpus=str(host.get("CpusetCpus") or ""),
        cpuset_mems=str(host.get("CpusetMems") or ""),
        pids=max(0, number("PidsLimit")),
        shm_size=number("ShmSize") or 64 << 20,
        oom_score_adj=number("OomScoreAdj"),
        oom_kill_disable=bool(host.get("OomKillDisable")),
        blkio_weight=number("BlkioWeight"),
        blkio_device_weights=tuple(
            (str(each["Path"]), int(each["Weight"])) for each in host.get("BlkioWeightDevice") or ()
        ),
        throttles=tuple(
            Throttle(kind, str(each["Path"]), int(each["Rate"]))
            for name, kind in throttles.items()
            for each in host.get(name) or ()
        ),
    )
