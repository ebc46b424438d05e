"""Take away what stores left on this host that are no more.

A store's bridges and rules stay when it is not used, and nobody runs `pipe` for a store that was deleted. Its bridges
carry its path, so whoever needs a new network looks for such ones first.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runtime.linux.netlink import Link, Netlink
from runtime.networks import bridges
from runtime.networks.firewall import backend_for

_TABLE_LENGTH = len("pipe-000000")


def reclaim(netlink: Netlink) -> tuple[str, ...]:
    """Remove the bridges of deleted stores, and their rules; the caller holds the host's lock. Their names."""
    busy = {link.master for link in netlink.links()}
    # One that has cables is in use, whatever we see: its store may be in another mount namespace.
    return remove_stores(netlink, lambda link, root: link.index not in busy and not _exists(root))


def _exists(root: str) -> bool:
    return os.path.exists(os.path.join(root, "pipe.db"))


def remove_stores(netlink: Netlink, doomed: Callable[[Link, str], bool]) -> tuple[str, ...]:
    """Remove the bridges for which `doomed(bridge, root of its store)`, and the rules of stores that have none left."""
    links = [link for link in netlink.links() if link.kind == "bridge"]
    gone = [link for link in links if (root := bridges.root_of(link.alias)) and doomed(link, root)]
    for link in gone:
        bridges.remove_bridge(netlink, link.name)
    left = {link.name[:_TABLE_LENGTH] for link in links if link not in gone}
    for table in {link.name[:_TABLE_LENGTH] for link in gone} - left:
        backend_for(table).remove()
    return tuple(link.name for link in gone)
