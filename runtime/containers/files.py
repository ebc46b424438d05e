"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: written into its directory and bound over the image's.

What they say comes from `runtime.networks.names`. A container in another's network shares that one's files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from runtime.containers.config import hostname_of
from runtime.containers.container import Container
from runtime.networks import names
from runtime.networks.values import Endpoint

NAMES = ("hosts", "hostname", "resolv.conf")


def write_files(
    container: Container, endpoints: Sequence[Endpoint], other: Callable[[str], Container]
) -> list[dict[str, Any]]:
    """Write them and say where they go; a path that the container mounts itself is left alone."""
    mode = container.spec.network_mode
    directory = container.directory
    if mode.startswith("container:"):
        directory = other(mode.removeprefix("container:")).directory
    else:
        _write(container, endpoints, other)
    own = {mount.target for mount in container.mounts}
    return [
        {
            "path": f"/etc/{name}",
            "source": os.path.join(directory, name),
            "readonly": container.spec.read_only,
        }
        for name in NAMES
        if f"/etc/{name}" not in own
    ]


def _write(container: Container, endpoints: Sequence[Endpoint], other: Callable[[str], Container]) -> None:
    spec = container.spec
    hostname = os.uname().nodename if spec.uts_mode == "host" else hostname_of(spec, container.id)
    host_text = names.read_host_resolv_conf()
    gateway = next(
        (e.network.gateway_address for e in endpoints), "127.0.0.1" if spec.network_mode == "host" else ""
    )
    extra = [*spec.extra_hosts, *_links(container, other)]
    resolv = names.resolv_conf(
        host_text,
        embedded=needs_resolver(container, endpoints),
        servers=spec.dns,
        search=spec.dns_search or None,
        options=spec.dns_options,
    )
    if spec.network_mode == "host" and not (spec.dns or spec.dns_search or spec.dns_options):
        resolv = host_text
    texts = {
        "hosts": names.hosts(hostname, spec.domainname, [e.address for e in endpoints], extra, gateway),
        "hostname": names.hostname_file(hostname),
        "resolv.conf": resolv,
    }
    for name, text in texts.items():
        with open(os.path.join(container.directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def needs_resolver(container: Container, endpoints: Sequence[Endpoint]) -> bool:
    """Whether names are answered by us: on named networks, or where the host's servers cannot be reached from inside."""
    if not endpoints:
        return False
    named = any(endpoint.network.named for endpoint in endpoints)
    return names.needs_resolver(named, names.read_host_resolv_conf(), container.spec.dns)


def _links(container: Container, other: Callable[[str], Container]) -> list[tuple[str, str]]:
    """`--link`: a neighbour's address under its alias, its name and its host name."""
    lines = []
    for name, alias in container.spec.links:
        neighbour = other(name)
        with open(os.path.join(neighbour.directory, "hosts"), encoding="utf-8") as file:
            address = file.read().splitlines()[-1].split()[0]
        lines += [
            (word, address)
            for word in dict.fromkeys((alias, neighbour.name, hostname_of(neighbour.spec, neighbour.id)))
        ]
    return lines
