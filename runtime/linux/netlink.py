"""rtnetlink(7): links, addresses and routes of the current network namespace, over one socket.

Only messages live here, no policy. A `Netlink` sends a batch of requests in one system call and raises the first
error the kernel answered, as OSError that names the request. The module is loaded by every container's child, so it
imports nothing but C modules.
"""

from __future__ import annotations

import errno
import os
from _socket import (  # socket.py costs 5 ms of imports that a container's child has no use for
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNSPEC,
    SO_RCVBUF,
    SOCK_CLOEXEC,
    SOCK_RAW,
    SOL_SOCKET,
    if_nametoindex,
    inet_aton,
    inet_ntoa,
    socket,
)
from struct import Struct, pack, unpack_from

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_REPLACE = 0x200, 0x400, 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3
NETLINK_ROUTE = 0
NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, SOL_NETLINK = 11, 12, 270
NLM_F_ACK_TLVS, NLM_F_CAPPED = 0x200, 0x100

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253

# linux/if_link.h, linux/if_addr.h, linux/veth.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_PROTINFO, IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_IFALIAS, IFLA_NET_NS_FD = 12, 18, 19, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE = 26, 8
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFF_UP = 0x1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
AF_BRIDGE = 7

_HEADER = Struct("=IHHII")  # nlmsghdr
_LINK = Struct("=BxHiII")  # ifinfomsg
_ADDRESS = Struct("=BBBBI")  # ifaddrmsg
_ROUTE = Struct("=BBBBBBBBI")  # rtmsg
_ATTRIBUTE = Struct("=HH")  # nlattr


class Link:
    """What the kernel tells about one link."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "up")

    def __init__(
        self, index: int, name: str, kind: str, up: bool, mtu: int, mac: str, master: int, alias: str
    ) -> None:
        self.index, self.name, self.kind, self.up = index, name, kind, up
        self.mtu, self.mac, self.master, self.alias = mtu, mac, master, alias


class Route:
    """One IPv4 route: `destination` is "10.0.0.0/8" or "default"; "" stands for no gateway."""

    __slots__ = ("destination", "gateway", "index", "table")

    def __init__(self, destination: str, gateway: str, index: int, table: int) -> None:
        self.destination, self.gateway, self.index, self.table = destination, gateway, index, table


def attribute(kind: int, value: bytes) -> bytes:
    """One nlattr with its padding."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The nlattrs from `start` on; of two equal ones the last."""
    found = {}
    while start + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def _name(name: str) -> bytes:
    raw = name.encode()
    if not 0 < len(raw) < 16 or b"/" in raw:
        raise OSError(errno.EINVAL, "not an interface name", name)
    return raw + b"\0"


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _prefix(address: str) -> tuple[bytes, int]:
    host, _, length = address.partition("/")
    return inet_aton(host), int(length or 32)


class Netlink:
    """A socket to the kernel's routing tables; it stays in the namespace it was made in."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20)
        self._sequence = 0
        self._batch: list[tuple[str, int, int, bytes]] = []

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    # requests: they are queued, and `commit` sends them together

    def ask(self, what: str, kind: int, flags: int, body: bytes) -> Netlink:
        """Queue any request; `what` names it in the error."""
        self._batch.append((what, kind, flags | NLM_F_REQUEST | NLM_F_ACK, body))
        return self

    def add_bridge(
        self, name: str, *, mac: str = "", mtu: int = 0, alias: str = "", up: bool = True
    ) -> Netlink:
        body = _link(0, up) + attribute(IFLA_IFNAME, _name(name)) + _settings(mac, mtu, "")
        body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge"))
        self.ask(f"add bridge {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
        return self._set_alias(name, alias)

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        pid: int = 0,
        namespace: int = -1,
        mac: str = "",
        mtu: int = 0,
        master: int = 0,
        alias: str = "",
        up: bool = True,
    ) -> Netlink:
        """A pair: `name` here (as port of bridge `master`), `peer` with `mac` in the namespace of `pid` or of a file descriptor."""
        # The peer is born in its namespace under its final name, but down: veth_open() refuses while it has no
        # partner (ENOTCONN), and the partner is made after it.
        other = _link(0, None) + attribute(IFLA_IFNAME, _name(peer)) + _settings(mac, mtu, "")
        if pid:
            other += attribute(IFLA_NET_NS_PID, pack("=I", pid))
        if namespace >= 0:
            other += attribute(IFLA_NET_NS_FD, pack("=I", namespace))
        data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
        body = _link(0, up) + attribute(IFLA_IFNAME, _name(name)) + _settings("", mtu, "")
        body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth") + data)
        if master:
            body += attribute(IFLA_MASTER, pack("=I", master))
        self.ask(f"add veth {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
        return self._set_alias(name, alias)

    def _set_alias(self, name: str, alias: str) -> Netlink:
        """An alias given at birth is ignored (rtnl_create_link), so it comes in a second message."""
        if not alias:
            return self
        body = _link(0, None) + attribute(IFLA_IFNAME, _name(name)) + attribute(IFLA_IFALIAS, alias.encode())
        return self.ask(f"set alias of {name}", RTM_NEWLINK, 0, body)

    def set_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        name: str = "",
        mac: str = "",
        mtu: int = 0,
        alias: str = "",
        master: int = -1,
        pid: int = 0,
        namespace: int = -1,
    ) -> Netlink:
        """Change what is given and nothing else; `master` 0 takes the link out of its bridge."""
        body = _link(index, up) + _settings(mac, mtu, alias)
        if name:
            body += attribute(IFLA_IFNAME, _name(name))
        if master >= 0:
            body += attribute(IFLA_MASTER, pack("=I", master))
        if pid:
            body += attribute(IFLA_NET_NS_PID, pack("=I", pid))
        if namespace >= 0:
            body += attribute(IFLA_NET_NS_FD, pack("=I", namespace))
        return self.ask(f"set link {index}", RTM_NEWLINK, 0, body)

    def no_link_local(self, index: int) -> Netlink:
        """Give the link no IPv6 address by itself (addrgenmode none, ip-link(8)); before it comes up."""
        mode = attribute(AF_INET6 | NLA_F_NESTED, attribute(IFLA_INET6_ADDR_GEN_MODE, b"\1"))
        body = _link(index, None) + attribute(IFLA_AF_SPEC | NLA_F_NESTED, mode)
        return self.ask(f"set address mode of link {index}", RTM_NEWLINK, 0, body)

    def set_port(self, index: int, *, isolated: bool = False, hairpin: bool = False) -> Netlink:
        """Settings of a bridge port (bridge(8)): no traffic with other isolated ports; frames may go back where they came from."""
        body = _LINK.pack(AF_BRIDGE, 0, index, 0, 0)
        settings = attribute(IFLA_BRPORT_ISOLATED, bytes([isolated]))
        settings += attribute(IFLA_BRPORT_MODE, bytes([hairpin]))
        body += attribute(IFLA_PROTINFO | NLA_F_NESTED, settings)
        return self.ask(f"set port {index}", RTM_SETLINK, 0, body)

    def delete_link(self, name: str) -> Netlink:
        return self.ask(
            f"delete link {name}", RTM_DELLINK, 0, _link(0, None) + attribute(IFLA_IFNAME, _name(name))
        )

    def add_address(self, index: int, address: str) -> Netlink:
        """`address` with its prefix length, "172.30.0.2/16"."""
        raw, length = _prefix(address)
        mask = (1 << (32 - length)) - 1
        broadcast = (int.from_bytes(raw, "big") | mask).to_bytes(4, "big")
        body = _ADDRESS.pack(AF_INET, length, 0, RT_SCOPE_UNIVERSE, index)
        body += attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
        if length < 31:
            body += attribute(IFA_BROADCAST, broadcast)
        return self.ask(f"add address {address}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)

    def add_route(self, index: int, gateway: str = "", destination: str = "0.0.0.0/0") -> Netlink:
        """A route over a link, through `gateway` when there is one."""
        raw, length = _prefix(destination)
        scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
        body = _ROUTE.pack(AF_INET, length, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
        if length:
            body += attribute(RTA_DST, raw)
        if gateway:
            body += attribute(RTA_GATEWAY, inet_aton(gateway))
        body += attribute(RTA_OIF, pack("=I", index))
        return self.ask(f"add route {destination}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)

    def delete_route(self, destination: str = "0.0.0.0/0") -> Netlink:
        raw, length = _prefix(destination)
        body = _ROUTE.pack(AF_INET, length, 0, 0, RT_TABLE_MAIN, 0, 255, 0, 0)  # scope 255: whichever
        if length:
            body += attribute(RTA_DST, raw)
        return self.ask(f"delete route {destination}", RTM_DELROUTE, 0, body)

    def commit(self) -> None:
        """Send what was queued, in order; the kernel stops for none, and the first refusal is raised."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        packet, names = b"", {}
        for what, kind, flags, body in batch:
            self._sequence += 1
            names[self._sequence] = what
            packet += _HEADER.pack(16 + len(body), kind, flags, self._sequence, 0) + body
        self._socket.sendto(packet, (0, 0))
        first: OSError | None = None
        while names:
            for kind, flags, sequence, body in self._receive():
                if kind == NLMSG_ERROR and sequence in names:
                    error = _failure(names.pop(sequence), flags, body)
                    first = first or error
        if first is not None:
            raise first

    # questions

    def links(self) -> list[Link]:
        """All links of the namespace."""
        return [_parse_link(body) for body in self.dump(RTM_GETLINK, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0))]

    def link(self, name: str) -> Link | None:
        """The link of that name."""
        body = _link(0, None) + attribute(IFLA_IFNAME, _name(name))
        try:
            answers = self.query(f"get link {name}", RTM_GETLINK, body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return _parse_link(answers[0])

    def addresses(self) -> list[tuple[int, str]]:
        """(link index, "172.30.0.2/16") of every IPv4 address."""
        found = []
        for body in self.dump(RTM_GETADDR, _ADDRESS.pack(AF_INET, 0, 0, 0, 0)):
            _, length, _, _, index = _ADDRESS.unpack_from(body)
            values = attributes(body, _ADDRESS.size)
            raw = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
            if raw:
                found.append((index, f"{inet_ntoa(raw)}/{length}"))
        return found

    def routes(self) -> list[Route]:
        """All IPv4 unicast routes, of every table."""
        found = []
        for body in self.dump(RTM_GETROUTE, _ROUTE.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            if kind != RTN_UNICAST:
                continue
            values = attributes(body, _ROUTE.size)
            destination = f"{inet_ntoa(values[RTA_DST])}/{length}" if RTA_DST in values else "default"
            gateway = inet_ntoa(values[RTA_GATEWAY]) if RTA_GATEWAY in values else ""
            index = unpack_from("=I", values[RTA_OIF])[0] if RTA_OIF in values else 0
            table = unpack_from("=I", values[RTA_TABLE])[0] if RTA_TABLE in values else table
            found.append(Route(destination, gateway, index, table))
        return found

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of a multi-part answer."""
        self._sequence += 1
        header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        found: list[bytes] = []
        while True:
            for answer, flags, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    raise _failure(f"dump {kind}", flags, data) or OSError(errno.EPROTO, "netlink")
                found.append(data)

    def query(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """The answer to a question about one thing."""
        self._sequence += 1
        header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        found: list[bytes] = []
        while True:
            for answer, flags, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_ERROR:
                    error = _failure(what, flags, data)
                    if error is not None:
                        raise error
                    return found
                found.append(data)

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        data, position, messages = self._socket.recv(1 << 18), 0, []
        while position + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
            if length < 16:
                break
            messages.append((kind, flags, sequence, data[position + 16 : position + length]))
            position += (length + 3) & ~3
        return messages


def _link(index: int, up: bool | None) -> bytes:
    """ifinfomsg; None leaves the link's flags alone."""
    return _LINK.pack(AF_UNSPEC, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)


def _settings(mac: str, mtu: int, alias: str) -> bytes:
    body = attribute(IFLA_ADDRESS, _mac(mac)) if mac else b""
    body += attribute(IFLA_MTU, pack("=I", mtu)) if mtu else b""
    return body + (attribute(IFLA_IFALIAS, alias.encode()) if alias else b"")


def _failure(what: str, flags: int, body: bytes) -> OSError | None:
    """The error in an NLMSG_ERROR, None when it is an acknowledgement; with the kernel's own words where it has some."""
    (code,) = unpack_from("=i", body)
    if code == 0:
        return None
    reason = os.strerror(-code)
    if flags & NLM_F_ACK_TLVS:
        # The request comes back between the code and the attributes, only its header when capped.
        (length,) = unpack_from("=I", body, 4)
        words = attributes(body, 4 + (16 if flags & NLM_F_CAPPED else (length + 3) & ~3)).get(1)
        if words:
            reason += f" ({words.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(-code, f"netlink: {what}: {reason}")


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = attributes(body, _LINK.size)
    info = attributes(values.get(IFLA_LINKINFO, b""))
    return Link(
        index,
        _text(values.get(IFLA_IFNAME)),
        _text(info.get(IFLA_INFO_KIND)),
        bool(flags & IFF_UP),
        _number(values.get(IFLA_MTU)),
        (values.get(IFLA_ADDRESS) or b"").hex(":"),
        _number(values.get(IFLA_MASTER)),
        _text(values.get(IFLA_IFALIAS)),
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes | None) -> int:
    return unpack_from("=I", raw)[0] if raw else 0


def loopback_up() -> None:
    """`lo` of the current namespace (always index 1) up; 127.0.0.1 and ::1 come with it."""
    with Netlink() as netlink:
        netlink.set_link(1, up=True).commit()


def configure_interface(name: str, address: str, gateway: str = "", mac: str = "", mtu: int = 0) -> None:
    """Give an interface of the current namespace its addresses and default route, and bring it up."""
    index = if_nametoindex(name)
    with Netlink() as netlink:
        _without_ipv6(netlink, index)
        # A running link takes no new hardware address from most drivers; veth does, and it is up already.
        netlink.set_link(index, mac=mac, mtu=mtu, up=True)
        netlink.add_address(index, address)
        if gateway:
            netlink.add_route(index, gateway)
        netlink.commit()


def _without_ipv6(netlink: Netlink, index: int) -> None:
    """The networks are IPv4 only, and a link-local address is a way to neighbours that nobody asked for."""
    try:
        netlink.no_link_local(index).commit()
    except OSError as error:
        if error.errno not in (
            errno.EAFNOSUPPORT,
            errno.EOPNOTSUPP,
        ):  # no IPv6 in this kernel, or switched off
            raise
