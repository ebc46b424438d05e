"""What this host's kernel says about its network: routes, uplinks, switches under /proc/sys; and one lock for all stores.

Facts and single switches only; who needs them and when is decided in `networks` and `firewall`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import Denied, HostFault
from runtime.linux.netlink import Netlink
from runtime.networks.addresses import Range, number
from runtime.store.owners import boot_id, own_token


def identity() -> str:
    """This boot and this network namespace: what our kernel state belongs to."""
    return f"{boot_id()}.{os.stat('/proc/thread-self/ns/net').st_ino}"


def token_of(pid: int) -> str:
    """The owner token (`runtime.store.owners`) of another process."""
    boot, namespace, _, _ = own_token().split(".")
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = file.read().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        started = "0"  # it is gone: the token of nobody
    return f"{boot}.{namespace}.{pid}.{started}"


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Say of what the kernel refuses within the block that `what` cannot be done."""
    try:
        yield
    except PermissionError as error:
        raise Denied(
            f"{what}: not permitted", hint="run as root; inside a container, one that is privileged"
        ) from error
    except OSError as error:
        raise HostFault(f"{what}: {error.strerror}") from error


_depth = threading.local()


@contextmanager
def lock() -> Iterator[None]:
    """One at a time on this host, whatever store they work on; may be nested, and comes before a transaction.

    What is locked is the network namespace itself (flock on its file), so nothing has to exist or be cleaned up.
    """
    if getattr(_depth, "held", False):
        yield
        return
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _depth.held = True
        yield
    finally:
        _depth.held = False
        os.close(descriptor)


def occupied(netlink: Netlink) -> list[Range]:
    """Ranges that lead somewhere already: routes and own addresses."""
    found = []
    for route in netlink.routes():
        host, _, length = route.destination.partition("/")
        if length and int(length) > 1:  # 0.0.0.0/1 and 128.0.0.0/1 are how VPNs write "default"
            found.append(_range(host, int(length)))
    for _, address in netlink.addresses():
        host, _, length = address.partition("/")
        found.append(_range(host, int(length)))
    return found


def _range(host: str, length: int) -> Range:
    return Range(number(host) & ~((1 << (32 - length)) - 1), length)


def uplinks(netlink: Netlink) -> tuple[int, ...]:
    """Indexes of the links default routes go over."""
    return tuple(
        dict.fromkeys(
            route.index for route in netlink.routes() if route.destination == "default" and route.index
        )
    )


def uplink_mtu(netlink: Netlink) -> int:
    """What fits through every uplink: a bridge that promises more makes connections hang behind a VPN."""
    indexes = uplinks(netlink)
    return min(
        [link.mtu for link in netlink.links() if link.index in indexes and link.mtu >= 576], default=1500
    )


def bridge_uplinks(netlink: Netlink) -> tuple[str, ...]:
    """Uplinks that are bridges themselves (a host's own br0): the only bridges our containers may reach."""
    indexes = uplinks(netlink)
    return tuple(link.name for link in netlink.links() if link.index in indexes and link.kind == "bridge")


def switch(name: str, value: str) -> bool:
    """Set /proc/sys/net/`name` unless it is so already; True when it was changed."""
    path = f"/proc/sys/net/{name}"
    try:
        with open(path, encoding="ascii") as file:
            if file.read().strip() == value:
                return False
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        return False  # a kernel without IPv6, for one
    except OSError as error:
        why = "read-only" if error.errno == errno.EROFS else error.strerror
        dotted = name.replace("/", ".")
        raise HostFault(
            f"cannot set net.{dotted} to {value}: {why}", hint=f"run as root `sysctl -w net.{dotted}={value}`"
        ) from error
    return True


def bridges_are_filtered() -> bool:
    """Whether the module br_netfilter is at work; other engines load it."""
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", encoding="ascii") as file:
            return file.read().strip() == "1"
    except FileNotFoundError:
        return False


def ephemeral_ports() -> tuple[int, int]:
    """The range the kernel, and we, take free ports from."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, last = file.read().split()
    return int(first), int(last)
