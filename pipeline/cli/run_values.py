"""What the strings of container flags mean: sizes, times, ports, mounts, limits. Pure; a mistake names the flag and the value.

Relative paths are resolved against the directory handed in; files (`--env-file`) are read by the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from runtime.containers.spec import Mount, NetworkAttachment, PortBinding, RestartPolicy, Rlimit, Throttle
from runtime.errors import InvalidInput, did_you_mean

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def size(flag: str, text: str) -> int:
    """`64m` in bytes."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?([bkmgtp]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise InvalidInput(f"--{flag} {text!r} is not a size", hint="write a number with b, k, m or g")
    return int(float(match[1]) * _UNITS[match[2]])


def seconds(flag: str, text: str) -> float:
    """`1m30s` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if "".join(number + unit for number, unit in parts) != text or not text:
        if text == "0":
            return 0.0
        raise InvalidInput(f"--{flag} {text!r} is not a time", hint="write it like 1m30s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def integer(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(f"--{flag} {text!r} is not a whole number") from error


def number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(f"--{flag} {text!r} is not a number") from error


def pairs(flag: str, texts: Iterable[str], *, bare: bool = True) -> dict[str, str]:
    """`NAME=VALUE` entries; a bare NAME is empty where that is allowed."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not (equals or bare):
            raise InvalidInput(f"--{flag} {text!r} is not NAME=VALUE")
        values[name] = value
    return values


def environment(
    texts: Iterable[str], files: Iterable[tuple[str, str]], own: Mapping[str, str]
) -> tuple[str, ...]:
    """`-e` over `--env-file` contents ((name, text) each); a bare name takes our own value, or is left out."""
    entries = [(f"{name}:{number}", line) for name, text in files for number, line in _lines(text)]
    entries += [("--env", text) for text in texts]
    result = []
    for origin, entry in entries:
        name, equals, _ = entry.partition("=")
        if not name or name != name.strip() or (not equals and re.search(r"\s", name)):
            raise InvalidInput(f"{origin}: {entry!r} is not NAME=VALUE")
        if equals:
            result.append(entry)
        elif name in own:
            result.append(f"{name}={own[name]}")
        elif origin == "--env":
            result.append(name)  # removes the image's
    return tuple(result)


def _lines(text: str) -> Iterable[tuple[int, str]]:
    for index, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()
        if line and not line.startswith("#"):
            yield index, line


def label_lines(name: str, text: str) -> dict[str, str]:
    """The labels in a `--label-file`."""
    return pairs(f"label-file {name}", (line.strip() for _, line in _lines(text)))


# --- ports ------------------------------------------------------------------------------------------------------


def publish(text: str) -> tuple[PortBinding, ...]:
    """`[ip:][host]:container[/proto]`, with ranges."""
    body, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidInput(f"--publish {text!r}: unknown protocol {protocol!r}", hint="tcp, udp or sctp")
    head, _, container = body.rpartition(":")
    address, host = "", head
    if head.startswith("["):
        address, _, host = head[1:].partition("]")
        host = host.removeprefix(":")
    elif ":" in head:
        address, _, host = head.rpartition(":")
    elif "." in head:
        address, host = head, ""
    inside = port_range("publish", container)
    outside = port_range("publish", host) if host.strip("0") else None  # 0, like nothing, is any free one
    if outside and len(outside) != len(inside) and len(inside) != 1:
        raise InvalidInput(f"--publish {text!r}: the two ranges differ in length")
    if outside and len(outside) != len(inside):
        outside = range(outside[0], outside[0] + 1)
    return tuple(
        PortBinding(
            container_port=port,
            protocol=protocol,
            host_port=outside[index] if outside else 0,
            host_ip=address or "0.0.0.0",
        )
        for index, port in enumerate(inside)
    )


def port_range(flag: str, text: str) -> range:
    """`80` or `80-89`."""
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise InvalidInput(f"--{flag}: {text!r} is not a port")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= 65535:
        raise InvalidInput(f"--{flag}: {text!r} is not a port between 1 and 65535")
    return range(low, high + 1)


def exposed(texts: Iterable[str]) -> tuple[str, ...]:
    """`80`, `80-82/udp` as `80/tcp` entries."""
    ports = []
    for text in texts:
        body, _, protocol = text.partition("/")
        ports += [f"{port}/{protocol or 'tcp'}" for port in port_range("expose", body)]
    return tuple(ports)


# --- files ------------------------------------------------------------------------------------------------------


def volume(text: str, directory: str) -> Mount:
    """`-v [source:]target[:options]`."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidInput(f"--volume {text!r} is not [SOURCE:]TARGET[:OPTIONS]")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    flags = parts[2].split(",") if len(parts) == 3 else []
    target = _target("volume", text, target)
    if source.startswith((".", "~")) and not _VOLUME_NAME.fullmatch(source):
        source = os.path.normpath(os.path.join(directory, os.path.expanduser(source)))
    if source.startswith("/"):
        return _with_flags(
            Mount(type="bind", source=source, target=target, propagation="rprivate", create_source=True),
            flags,
            text,
        )
    if source and not _VOLUME_NAME.fullmatch(source):
        raise InvalidInput(
            f"--volume {text!r}: {source!r} is not a volume name", hint="a directory begins with / or ./"
        )
    return _with_flags(Mount(type="volume", source=source, target=target), flags, text)


def _with_flags(mount: Mount, flags: Sequence[str], text: str) -> Mount:
    from registry_client.values import replace

    for flag in flags:
        if flag in ("ro", "rw"):
            mount = replace(mount, readonly=flag == "ro")
        elif flag in _PROPAGATION and mount.type == "bind":
            mount = replace(mount, propagation=flag)
        elif flag == "nocopy" and mount.type == "volume":
            mount = replace(mount, copy_up=False)
        elif flag not in ("z", "Z", "cached", "delegated", "consistent"):  # SELinux labels, macOS hints
            known = ("ro", "rw", "nocopy", "z", "Z", *_PROPAGATION)
            raise InvalidInput(f"--volume {text!r}: unknown option {flag!r}", hint=did_you_mean(flag, known))
    return mount


_MOUNT_KEYS = {
    "type": "type", "source": "source", "src": "source", "target": "target", "destination": "target",
    "dst": "target", "readonly": "readonly", "ro": "readonly", "bind-propagation": "propagation",
    "bind-create-src": "create", "bind-recursive": "recursive", "bind-nonrecursive": "nonrecursive",
    "consistency": "consistency", "volume-nocopy": "nocopy", "volume-driver": "driver", "volume-opt": "driver-option",
    "volume-label": "label", "volume-subpath": "subpath", "image-subpath": "subpath", "tmpfs-size": "size",
    "tmpfs-mode": "mode", "tmpfs-options": "options",
}  # fmt: skip


def mount(text: str, directory: str) -> Mount:
    """`--mount type=…,source=…,target=…`."""
    values = _mount_fields(text)
    kind = values.get("type", "volume")
    if kind in ("npipe", "cluster"):
        raise InvalidInput(
            f"--mount {text!r}: type {kind} is not for this host", hint="bind, volume, tmpfs or image"
        )
    if kind not in ("bind", "volume", "tmpfs", "image"):
        hint = did_you_mean(kind, ("bind", "volume", "tmpfs", "image"))
        raise InvalidInput(f"--mount {text!r}: unknown type {kind!r}", hint=hint)
    source = values.get("source", "")
    if kind == "bind":
        if not source:
            raise InvalidInput(f"--mount {text!r}: a bind needs a source")
        source = os.path.normpath(os.path.join(directory, source))
    if kind == "tmpfs" and source:
        raise InvalidInput(f"--mount {text!r}: a tmpfs has no source")
    if values.get("driver", "local") != "local":
        raise InvalidInput(f"--mount {text!r}: unknown volume driver {values['driver']!r}", hint="local")
    propagation = values.get("propagation", "rprivate")
    if propagation not in _PROPAGATION:
        raise InvalidInput(f"--mount {text!r}: unknown propagation {propagation!r}")
    return Mount(
        type=kind,
        source=source,
        target=_target("mount", text, values.get("target", "")),
        readonly=_true(values.get("readonly", "false")) or kind == "image",
        propagation=propagation,
        copy_up=not _true(values.get("nocopy", "false")),
        subpath=values.get("subpath", ""),
        size=size("mount tmpfs-size", values["size"]) if "size" in values else 0,
        mode=int(values.get("mode", "1777"), 8),
        options=tuple(option for option in values.get("options", "").split(",") if option),
        create_source=_true(values.get("create", "false")),
    )


def _mount_fields(text: str) -> dict[str, str]:
    from runtime.fields import comma_fields

    values: dict[str, str] = {}
    for field in comma_fields(text, "--mount"):
        key, equals, value = field.partition("=")
        name = _MOUNT_KEYS.get(key.lower())
        if name is None:
            raise InvalidInput(f"--mount {text!r}: unknown key {key!r}", hint=did_you_mean(key, _MOUNT_KEYS))
        values[name] = value if equals else "true"
    return values


def tmpfs(text: str) -> Mount:
    """`--tmpfs /path[:options]`; Docker's defaults are noexec, nosuid, nodev."""
    target, _, options = text.partition(":")
    values: dict[str, str] = {}
    rest = []
    for option in options.split(",") if options else []:
        key, _, value = option.partition("=")
        if key in ("size", "mode"):
            values[key] = value
        else:
            rest.append(option)
    flags = [flag for flag in ("noexec", "nosuid", "nodev") if flag[2:] not in rest and flag not in rest]
    return Mount(
        type="tmpfs",
        target=_target("tmpfs", text, target),
        size=size("tmpfs size", values["size"]) if "size" in values else 0,
        mode=int(values.get("mode", "1777"), 8),
        options=(*flags, *(option for option in rest if option not in ("ro", "rw"))),
        readonly="ro" in rest,
    )


def _target(flag: str, text: str, target: str) -> str:
    if not target.startswith("/") or os.path.normpath(target) == "/":
        raise InvalidInput(
            f"--{flag} {text!r}: target {target!r} must be an absolute path below /",
            hint="name a directory in the container",
        )
    return os.path.normpath(target)


def _true(text: str) -> bool:
    return text.lower() in ("1", "true")


def device(text: str) -> tuple[str, str, str]:
    """`/dev/a[:/dev/b[:rwm]]`."""
    parts = text.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts = [parts[0], parts[0], parts[1]]
    source = parts[0]
    target = parts[1] if len(parts) > 1 else source
    access = parts[2] if len(parts) > 2 else "rwm"
    if len(parts) > 3 or not source.startswith("/") or not access or not set(access) <= set("rwm"):
        raise InvalidInput(f"--device {text!r} is not PATH[:PATH[:rwm]]")
    return source, target, access


# --- limits, networks, the rest -----------------------------------------------------------------------------------


_ULIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()  # noqa: SIM905
)


def ulimit(text: str) -> Rlimit:
    """`nofile=1024[:2048]`; -1 is unlimited."""
    name, equals, values = text.partition("=")
    soft, _, hard = values.partition(":")
    if name not in _ULIMITS:
        raise InvalidInput(f"--ulimit {text!r}: unknown limit {name!r}", hint=did_you_mean(name, _ULIMITS))
    if not equals:
        raise InvalidInput(f"--ulimit {text!r} is not NAME=SOFT[:HARD]")
    low, high = (_unlimited(integer("ulimit", value)) for value in (soft, hard or soft))
    if low > high:
        raise InvalidInput(f"--ulimit {text!r}: the soft limit is above the hard one")
    return Rlimit(name=name, soft=low, hard=high)


def _unlimited(value: int) -> int:
    return (1 << 64) - 1 if value == -1 else value


def throttle(flag: str, text: str) -> Throttle:
    """The value of --device-read-bps and its like."""
    path, _, rate = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidInput(f"--{flag} {text!r} is not PATH:RATE")
    kind = flag.removeprefix("device-")
    return Throttle(kind, path, size(flag, rate) if kind.endswith("bps") else integer(flag, rate))


def restart(text: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:N]`, `on-unhealthy[:N]`."""
    name, colon, maximum = text.partition(":")
    known = ("no", "always", "unless-stopped", "on-failure", "on-unhealthy")
    if name not in known:
        raise InvalidInput(f"--restart {text!r}: unknown policy", hint=did_you_mean(name, known))
    if colon and not name.startswith("on-"):
        raise InvalidInput(f"--restart {text!r}: {name} takes no count")
    return RestartPolicy(name=name, maximum=integer("restart", maximum) if colon else 0)


def network(text: str) -> NetworkAttachment:
    """A name, or `name=…,alias=…,ip=…`."""
    if "=" not in text:
        return NetworkAttachment(network=text)
    values: dict[str, list[str]] = {}
    known = ("name", "alias", "ip", "ip6", "mac-address", "driver-opt", "gw-priority", "link-local-ip")
    for field in text.split(","):
        key, _, value = field.partition("=")
        if key not in known:
            raise InvalidInput(f"--network {text!r}: unknown key {key!r}", hint=did_you_mean(key, known))
        values.setdefault(key, []).append(value)
    if "name" not in values:
        raise InvalidInput(f"--network {text!r} has no name=")
    return NetworkAttachment(
        network=values["name"][-1],
        aliases=tuple(values.get("alias", ())),
        ipv4=values.get("ip", [""])[-1],
        ipv6=values.get("ip6", [""])[-1],
        mac=values.get("mac-address", [""])[-1],
        options=pairs("network driver-opt", values.get("driver-opt", ())),
        priority=integer("network gw-priority", values.get("gw-priority", ["0"])[-1]),
    )


def extra_host(text: str) -> tuple[str, str]:
    """`name:address` or `name=address`."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    if not name or not address:
        raise InvalidInput(f"--add-host {text!r} is not NAME:ADDRESS")
    return name, address.removeprefix("[").removesuffix("]")
