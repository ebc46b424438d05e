"""Container networks on this host: bridges, addresses, names, published ports, and the packet filter they need.

Knows the store's database and the kernel, not what a container is: endpoints belong to an id and a process. Start
reading at `networks.Networks`.
"""

from runtime.networks.networks import Networks as Networks
from runtime.networks.values import Endpoint as Endpoint
from runtime.networks.values import Network as Network
