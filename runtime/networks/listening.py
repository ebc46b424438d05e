"""The two sockets of a container's name server, 127.0.0.11, made inside the container's network namespace."""

from __future__ import annotations

import socket

from runtime.networks import nft
from runtime.networks.names import RESOLVER
from runtime.sandbox.netns import dns_sockets

# Port 53 itself is left to the container: it may be a name server. So ours listens elsewhere, and questions are led there.
_REDIRECT = """
table ip pipe-dns {{ }}
delete table ip pipe-dns
table ip pipe-dns {{
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {address} udp dport 53 dnat to {address}:{udp}
    ip daddr {address} tcp dport 53 dnat to {address}:{tcp}
  }}
}}
"""


def name_server_sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP, in the namespace of the calling thread (`runtime.sandbox.netns.inside`)."""
    if not nft.available():
        return dns_sockets(RESOLVER, 53)
    datagrams, stream = dns_sockets(RESOLVER, 0)
    try:
        udp, tcp = datagrams.getsockname()[1], stream.getsockname()[1]
        nft.run(_REDIRECT.format(address=RESOLVER, udp=udp, tcp=tcp))
    except BaseException:
        datagrams.close()
        stream.close()
        raise
    return datagrams, stream
