"""A network namespace from inside: `lo` up, and the interfaces the plan names given their address, route and name.

The classic ioctls of netdevice(7) do all of it in microseconds and need no library; links between namespaces are made
by `runtime.networks`, from outside.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Any

_SIOCADDRT, _SIOCSIFFLAGS, _SIOCGIFFLAGS, _SIOCSIFADDR = 0x890B, 0x8914, 0x8913, 0x8916
_SIOCSIFNETMASK, _SIOCSIFMTU, _SIOCSIFNAME, _SIOCSIFHWADDR = 0x891C, 0x8922, 0x8923, 0x8924
_SIOCSIFBRDADDR, _SIOCGIFINDEX = 0x891A, 0x8933
_IFF_UP, _RTF_UP, _RTF_GATEWAY, _ARPHRD_ETHER = 1, 1, 2, 1


def _name(interface: str) -> bytes:
    return struct.pack("16s", interface.encode())


def _address(text: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))


def _netmask(bits: int) -> str:
    return socket.inet_ntoa(struct.pack("!I", (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF))


def _broadcast(address: str, bits: int) -> str:
    (number,) = struct.unpack("!I", socket.inet_aton(address))
    return socket.inet_ntoa(struct.pack("!I", number | (0xFFFFFFFF >> bits)))


def _up(control: socket.socket, interface: str) -> None:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh22x", interface.encode(), 0))
    (flags,) = struct.unpack_from("h", answer, 16)
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", interface.encode(), flags | _IFF_UP))


def _configure_v4(control: socket.socket, name: str, cidr: str) -> None:
    address, _, bits = cidr.partition("/")
    width = int(bits or 32)
    fcntl.ioctl(control, _SIOCSIFADDR, _name(name) + _address(address))
    fcntl.ioctl(control, _SIOCSIFNETMASK, _name(name) + _address(_netmask(width)))
    if width < 31:
        fcntl.ioctl(control, _SIOCSIFBRDADDR, _name(name) + _address(_broadcast(address, width)))


def _configure_v6(control: socket.socket, name: str, cidr: str) -> None:
    address, _, bits = cidr.partition("/")
    (index,) = struct.unpack_from(
        "i", fcntl.ioctl(control, _SIOCGIFINDEX, struct.pack("16sI20x", name.encode(), 0)), 16
    )
    request = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, address), int(bits or 128), index)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control6:
        fcntl.ioctl(control6, _SIOCSIFADDR, request)


def _default_route(control: socket.socket, gateway: str) -> None:
    anywhere = _address("0.0.0.0")
    # struct rtentry: padding, destination, gateway, mask, flags, and what is left at zero.
    route = struct.pack("8x16s16s16sH62x", anywhere, _address(gateway), anywhere, _RTF_UP | _RTF_GATEWAY)
    fcntl.ioctl(control, _SIOCADDRT, route)


def _configure(control: socket.socket, interface: dict[str, Any]) -> None:
    name, link = interface["name"], interface.get("link") or interface["name"]
    if link != name:
        fcntl.ioctl(control, _SIOCSIFNAME, _name(link) + struct.pack("16s8x", name.encode()))
    if mac := interface.get("mac"):
        hardware = bytes.fromhex(mac.replace(":", ""))
        fcntl.ioctl(control, _SIOCSIFHWADDR, _name(name) + struct.pack("H14s8x", _ARPHRD_ETHER, hardware))
    if mtu := interface.get("mtu"):
        fcntl.ioctl(control, _SIOCSIFMTU, _name(name) + struct.pack("i20x", int(mtu)))
    if cidr := interface.get("address"):
        _configure_v4(control, name, cidr)
    _up(control, name)
    if cidr := interface.get("address6"):
        _configure_v6(control, name, cidr)
    if gateway := interface.get("gateway"):
        _default_route(control, gateway)


def configure_interfaces(interfaces: list[dict[str, Any]]) -> None:
    """Bring up `lo` and what the plan names, in the calling process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        _up(control, "lo")
        for interface in interfaces:
            _configure(control, interface)
