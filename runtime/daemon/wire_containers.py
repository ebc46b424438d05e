"""Docker's JSON spelling of containers (Engine API 1.51), as `wire` is for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.containers.container import Container
from runtime.containers.spec import ExitStatus
from runtime.containers.status_text import status_text

Json = dict[str, Any]


def container_summary(container: Container, inspected: Json) -> Json:
    """ContainerSummary of what `container_record` tells."""
    record = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image_name,
        "ImageID": container.image,
        "Command": " ".join([inspected["Path"], *inspected["Args"]]),
        "Created": int(container.created),
        "Ports": _ports(inspected["NetworkSettings"]["Ports"]),
        "Labels": inspected["Config"]["Labels"],
        "State": container.state.status,
        "Status": status_text(container),
        "HostConfig": {"NetworkMode": inspected["HostConfig"]["NetworkMode"]},
        "NetworkSettings": {"Networks": inspected["NetworkSettings"]["Networks"]},
        "Mounts": inspected["Mounts"],
    }
    return record | ({"SizeRw": inspected["SizeRw"]} if "SizeRw" in inspected else {})


def container_inspected(container: Container, inspected: Json) -> Json:
    """ContainerInspectResponse: with the fields clients read though we have nothing to say."""
    more = {"ExecIDs": None, "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": container.spec.apparmor}
    graph = {"GraphDriver": {"Name": "overlay", "Data": None}}
    config: Json = {
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StdinOnce": container.spec.stdin,
    }
    config |= {"Entrypoint": None, "OnBuild": None, "Volumes": None}
    return {**more, **graph, **inspected, "Config": {**config, **inspected["Config"]}}


def waited(ended: ExitStatus | None) -> Json:
    """ContainerWaitResponse. A program that could not be started is an end like any other (126, 127): no `Error`."""
    return {"StatusCode": ended.code if ended else 0}


def _ports(bindings: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Json]:
    """Port, one for each binding."""
    found: list[Json] = []
    for text, places in bindings.items():
        number, _, protocol = text.partition("/")
        for place in places:
            found.append(
                {
                    "IP": place["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(place["HostPort"]),
                    "Type": protocol,
                }
            )
    return found
