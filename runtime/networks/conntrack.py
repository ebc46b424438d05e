"""Forget connections the kernel tracks, by ctnetlink.

A translation is decided with a flow's first packet and kept while the flow goes on. UDP flows of clients that never pause
(statsd, syslog) would go to a published port's former container for ever.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator

from runtime.containers.spec import PortBinding
from runtime.linux.netlink import NLA_F_NESTED, Netlink, attribute, attributes

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_IPV4 = bytes([2, 0, 0, 0])  # nfgenmsg
_TUPLE_ORIG, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_UDP = 17


def forget(bindings: Collection[PortBinding]) -> None:
    """Forget the UDP flows to published ports; what still comes is looked at anew."""
    ports = {binding.host_port for binding in bindings if binding.protocol == "udp"}
    if not ports:
        return
    with Netlink(_NETLINK_NETFILTER) as netlink:
        for flow in tuple(_flows(netlink, ports)):
            body = _IPV4 + attribute(_TUPLE_ORIG | NLA_F_NESTED, flow)
            try:
                netlink.ask("forget a flow", _DELETE, 0, body).commit()
            except OSError as error:
                if error.errno != errno.ENOENT:  # it ended meanwhile
                    raise


def _flows(netlink: Netlink, ports: Collection[int]) -> Iterator[bytes]:
    """The original direction of each UDP flow to one of these ports, as the kernel wrote it."""
    try:
        messages = netlink.dump(_GET, _IPV4)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return  # a kernel without nf_conntrack_netlink: flows live until they pause
        raise
    for message in messages:
        flow = attributes(message, len(_IPV4)).get(_TUPLE_ORIG, b"")
        protocol = attributes(attributes(flow).get(_TUPLE_PROTO, b""))
        port = int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big")
        if protocol.get(_PROTO_NUM) == bytes([_UDP]) and port in ports:
            yield flow
