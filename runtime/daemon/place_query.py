"""Mounts, networks and ports of a container to be, from Docker's JSON. Pure; errors and leniency as in `container_query`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runtime.containers.spec import Mount, NetworkAttachment, PortBinding
from runtime.errors import InvalidInput, Unsupported

Json = Mapping[str, Any]
_SPECIAL = ("none", "host")


def texts(record: Any) -> tuple[str, ...]:
    """A list of strings; null is none."""
    return tuple(str(each) for each in record or ())


def string_map(record: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in (record or {}).items()}


# --- networks and ports ---------------------------------------------------------------------------------------------


def networks(record: Json, host: Json) -> tuple[str, tuple[NetworkAttachment, ...]]:
    """(mode, attachments). The mode names the first network; `EndpointsConfig` has its details and the others."""
    mode = str(host.get("NetworkMode") or "default")
    given: Json = (record.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if bool(record.get("NetworkDisabled")):
        return "none", ()
    if mode in _SPECIAL or mode.startswith("container:"):
        return mode, ()
    first = "bridge" if mode in ("default", "bridge") else mode
    names = [first, *(name for name in given if name not in (first, mode))]
    found = tuple(
        attachment(name, given.get(name, given.get(mode) if name == first else None)) for name in names
    )
    if found == (NetworkAttachment(network="bridge"),):
        return "bridge", ()
    return "", found


def attachment(name: str, record: Json | None) -> NetworkAttachment:
    """EndpointSettings of one network."""
    record = record or {}
    addresses: Json = record.get("IPAMConfig") or {}
    return NetworkAttachment(
        network=name,
        aliases=texts(record.get("Aliases")),
        ipv4=str(addresses.get("IPv4Address") or ""),
        ipv6=str(addresses.get("IPv6Address") or ""),
        mac=str(record.get("MacAddress") or ""),
        options=string_map(record.get("DriverOpts")),
        priority=int(record.get("GwPriority") or 0),
    )


def ports(record: Json) -> Iterable[PortBinding]:
    for text, bindings in record.items():
        number, _, protocol = text.partition("/")
        if not number.isdigit():
            raise InvalidInput(f"invalid port {text!r}")
        for binding in bindings or [{}]:
            host_port = str(binding.get("HostPort") or "0")
            if not host_port.isdigit():
                raise Unsupported(f"host port {host_port!r}", hint="one port, or none for any free one")
            yield PortBinding(
                container_port=int(number),
                protocol=protocol or "tcp",
                host_port=int(host_port),
                host_ip=str(binding.get("HostIp") or "0.0.0.0"),
            )


# --- mounts ---------------------------------------------------------------------------------------------------------


def mounts(record: Json, host: Json) -> tuple[Mount, ...]:
    found = [_bind(text) for text in texts(host.get("Binds"))]
    found += [_mount(each) for each in host.get("Mounts") or ()]
    found += [_tmpfs(target, options) for target, options in (host.get("Tmpfs") or {}).items()]
    taken = {mount.target for mount in found}
    anonymous = [str(target) for target in record.get("Volumes") or () if target not in taken]
    found += [Mount(type="volume", target=target) for target in anonymous]
    targets = [mount.target for mount in found]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidInput(f"Duplicate mount point: {target}")
    return tuple(found)


def _bind(text: str) -> Mount:
    """`SOURCE:TARGET[:OPTIONS]`."""
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not target.startswith("/"):
        raise InvalidInput(f"invalid volume specification: '{text}'")
    words = [word for word in options.split(",") if word]
    return Mount(
        type="bind" if source.startswith("/") else "volume",
        source=source,
        target=target,
        readonly="ro" in words,
        copy_up="nocopy" not in words,
        propagation=next(
            (word for word in words if word.lstrip("r") in ("private", "shared", "slave")), "rprivate"
        ),
        create_source=True,
    )


def _mount(record: Json) -> Mount:
    kind, target = str(record.get("Type") or "volume"), str(record.get("Target") or "")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidInput(f"invalid mount config: mount type {kind!r} is unknown")
    if not target.startswith("/"):
        raise InvalidInput(
            f"invalid mount config for type {kind!r}: invalid mount path: {target!r} mount path must be absolute"
        )
    bind: Json = record.get("BindOptions") or {}
    volume: Json = record.get("VolumeOptions") or {}
    tmpfs: Json = record.get("TmpfsOptions") or {}
    return Mount(
        type=kind,
        target=target,
        source=str(record.get("Source") or ""),
        readonly=bool(record.get("ReadOnly")),
        propagation=str(bind.get("Propagation") or "rprivate"),
        create_source=bool(bind.get("CreateMountpoint")),
        copy_up=not volume.get("NoCopy"),
        subpath=str(volume.get("Subpath") or (record.get("ImageOptions") or {}).get("Subpath") or ""),
        size=int(tmpfs.get("SizeBytes") or 0),
        mode=int(tmpfs.get("Mode") or 0o1777),
    )


def _tmpfs(target: str, options: str) -> Mount:
    words = tuple(word for word in str(options or "").split(",") if word)
    return Mount(
        type="tmpfs",
        target=target,
        readonly="ro" in words,
        options=tuple(w for w in words if w not in ("ro", "rw")),
    )
