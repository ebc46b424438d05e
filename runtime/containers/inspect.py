"""Containers, images and volumes as `inspect` shows them: Docker's spelling of what scripts most often ask for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from registry_client.oci.config import container_config_to_json

if TYPE_CHECKING:
    from runtime.containers.container import Container, PlacedMount
    from runtime.networks.networks import Networks
    from runtime.volumes import Volume


def moment(seconds: float) -> str:
    """RFC 3339; the year 1 for "never", as Docker says it."""
    if not seconds:
        return "0001-01-01T00:00:00Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09}Z"


def container_record(networks: Networks, container: Container, size: bool) -> dict[str, Any]:
    from runtime.containers.config import argv_of, environment_of, hostname_of

    spec, image = container.spec, container.image_config
    argv = argv_of(spec, image)
    hostname = hostname_of(spec, container.id)
    record = {
        "Id": container.id,
        "Created": moment(container.created),
        "Path": argv[0],
        "Args": list(argv[1:]),
        "State": _state(container),
        "Image": container.image,
        "ResolvConfPath": os.path.join(container.directory, "resolv.conf"),
        "HostnamePath": os.path.join(container.directory, "hostname"),
        "HostsPath": os.path.join(container.directory, "hosts"),
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": _host_config(container),
        "Mounts": [mount_record(mount) for mount in container.mounts],
        "Config": container_config_to_json(image)
        | {
            "Hostname": hostname,
            "Domainname": spec.domainname,
            "User": spec.user if spec.user is not None else image.user,
            "Tty": spec.tty,
            "OpenStdin": spec.stdin,
            "Env": list(environment_of(spec, image, hostname)),
            "Cmd": list(spec.command if spec.command is not None else image.cmd or ()),
            "Image": container.image_name,
            "WorkingDir": spec.working_dir or image.working_dir,
            "Labels": {**image.labels, **spec.labels},
        },
        "NetworkSettings": network_settings(networks, container),
    }
    if size:
        from runtime.containers.listing import disk_use

        record["SizeRw"] = disk_use(container)
    return record


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    record: dict[str, Any] = {
        "Status": state.status,
        "Running": state.alive,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.code,
        "Error": state.error,
        "StartedAt": moment(state.started),
        "FinishedAt": moment(state.finished),
    }
    if state.health is not None:
        record["Health"] = {
            "Status": state.health["status"],
            "FailingStreak": state.health["streak"],
            "Log": [
                {
                    "Start": moment(result["start"]),
                    "End": moment(result["end"]),
                    "ExitCode": result["code"],
                    "Output": result["output"],
                }
                for result in state.health["results"]
            ],
        }
    return record


def _host_config(container: Container) -> dict[str, Any]:
    spec = container.spec
    networks = spec.networks[0].network if spec.networks else spec.network_mode
    return {
        "NetworkMode": networks,
        "RestartPolicy": {"Name": spec.restart.name, "MaximumRetryCount": spec.restart.maximum},
        "AutoRemove": spec.auto_remove,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "Memory": spec.limits.memory,
        "NanoCpus": round(spec.limits.cpus * 1e9),
        "PidsLimit": spec.limits.pids or None,
        "ShmSize": spec.limits.shm_size,
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "LogConfig": {"Type": spec.log_driver, "Config": dict(spec.log_options)},
        "PortBindings": {
            f"{port.container_port}/{port.protocol}": [
                {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
            ]
            for port in spec.ports
        },
        "Init": spec.init,
    }


def mount_record(mount: PlacedMount) -> dict[str, Any]:
    record = {
        "Type": mount.kind,
        "Source": mount.source if mount.type == "bind" else "",
        "Destination": mount.target,
        "Mode": "",
        "RW": not mount.readonly,
    }
    return record | ({"Name": mount.volume, "Driver": "local"} if mount.volume else {})


def network_settings(networks: Networks, container: Container) -> dict[str, Any]:
    endpoints = networks.endpoints(container=container.id)
    ports: dict[str, list[dict[str, str]]] = {}
    for port in networks.published(container.id):
        binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    attached = {
        endpoint.network.name: {
            "NetworkID": endpoint.network.id,
            "EndpointID": endpoint.id,
            "Gateway": endpoint.network.gateway_address,
            "IPAddress": endpoint.address,
            "IPPrefixLen": endpoint.network.subnet.prefix,
            "MacAddress": endpoint.mac,
            "DNSNames": list(endpoint.names),
        }
        for endpoint in endpoints
    }
    first = next(iter(attached.values()), {"IPAddress": "", "Gateway": "", "MacAddress": ""})
    shown = {name: first[name] for name in ("IPAddress", "Gateway", "MacAddress")}
    return {**shown, "Ports": ports, "Networks": attached}


def volume_record(volume: Volume) -> dict[str, Any]:
    return {
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.path,
        "CreatedAt": moment(volume.created),
        "Labels": dict(volume.labels),
        "Options": dict(volume.options),
        "Scope": "local",
    }
