"""Published ports: choose them, make sure nobody else has them, and hold them.

A port is held by a listening socket nobody reads from: the packet filter takes the packets before they get there, and
another program that wants the port is told that it is taken. `hold` works in any process; whoever keeps the
container (its shim) keeps the sockets.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

from registry_client.values import replace
from runtime.containers.spec import PortBinding
from runtime.errors import Conflict, Denied, HostFault, InvalidInput, Unsupported
from runtime.networks import host
from runtime.networks.addresses import number
from runtime.networks.rules import ANYWHERE

_TRIES = 64


def check(binding: PortBinding) -> PortBinding:
    """A binding that means something to us; the error says what does not."""
    if binding.protocol == "sctp":
        raise Unsupported("publishing sctp ports is not supported", hint="publish tcp or udp ports")
    if binding.protocol not in ("tcp", "udp"):
        raise InvalidInput(
            f"unknown protocol {binding.protocol!r} of port {binding.container_port}", hint="use tcp or udp"
        )
    for port, least in ((binding.container_port, 1), (binding.host_port, 0)):
        if not least <= port <= 65535:
            raise InvalidInput(f"port {port} is not between {least} and 65535")
    number(binding.host_ip or ANYWHERE)
    return replace(binding, host_ip=binding.host_ip or ANYWHERE)


def describe(binding: PortBinding) -> str:
    return f"{binding.host_ip}:{binding.host_port}/{binding.protocol}"


def hold(bindings: Iterable[PortBinding]) -> list[socket.socket]:
    """Occupy ports of the host, all or none; `Conflict` names the one that is taken."""
    held: list[socket.socket] = []
    try:
        for binding in bindings:
            held.append(_occupy(binding))
    except BaseException:
        release(held)
        raise
    return held


def release(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _occupy(binding: PortBinding) -> socket.socket:
    kind = socket.SOCK_STREAM if binding.protocol == "tcp" else socket.SOCK_DGRAM
    held = socket.socket(socket.AF_INET, kind)
    try:
        if binding.protocol == "tcp":
            # Connections of an earlier program in TIME_WAIT do not count, a listener does.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((binding.host_ip, binding.host_port))
        if binding.protocol == "tcp":
            held.listen(1)
    except OSError as error:
        held.close()
        raise _refused(binding, error) from error
    return held


def _refused(binding: PortBinding, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {describe(binding)} is already in use",
            hint="choose another host port, or 0 for any free one",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(f"{binding.host_ip} is not an address of this host")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Denied(f"not allowed to use port {describe(binding)}", hint="ports below 1024 need root")
    return HostFault(f"cannot use port {describe(binding)}: {error.strerror}")


def choose(binding: PortBinding, taken: Sequence[PortBinding]) -> tuple[PortBinding, socket.socket]:
    """A binding with its port decided, and that port held. `taken` are those of the store's other containers."""
    if binding.host_port:
        clash = next((other for other in taken if overlaps(binding, other)), None)
        if clash:
            raise Conflict(
                f"port {describe(binding)} is already published by another container",
                hint="stop that container, or choose another host port",
            )
        return binding, _occupy(binding)
    import random  # a millisecond that containers with fixed ports do not pay

    first, last = host.ephemeral_ports()
    for _ in range(_TRIES):
        wanted = replace(binding, host_port=random.randint(first, last))
        if any(overlaps(wanted, other) for other in taken):
            continue
        try:
            return wanted, _occupy(wanted)
        except Conflict:
            continue
    raise Conflict(f"no free port found between {first} and {last}", hint="name a host port")


def overlaps(one: PortBinding, other: PortBinding) -> bool:
    same = one.protocol == other.protocol and one.host_port == other.host_port
    return same and (one.host_ip == other.host_ip or ANYWHERE in (one.host_ip, other.host_ip))
