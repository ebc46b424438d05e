"""The nouns of this room: a network, an endpoint (one container's interface on it), a published port's target."""

from __future__ import annotations

from collections.abc import Mapping

from registry_client.values import field, frozen
from runtime.networks.addresses import Range, dotted

_NOWHERE = Range(0, 32)


@frozen(kw_only=True)
class Network:
    """`driver` is bridge, or host or null for the two that every store has and nobody can attach to by cable."""

    id: str
    name: str
    driver: str = "bridge"
    device: str = ""
    subnet: Range = _NOWHERE
    gateway: int = 0
    ip_range: Range | None = None
    automatic: bool = False  # its range was chosen by us, not by the user
    internal: bool = False
    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    host_ip: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    reserved: Mapping[str, str] = field(default_factory=dict, hash=False)
    created: float = 0.0

    @property
    def named(self) -> bool:
        """Whether containers find each other by name here; not on the default bridge (Docker's rule)."""
        return self.driver == "bridge" and self.name != "bridge"

    @property
    def gateway_address(self) -> str:
        return dotted(self.gateway) if self.gateway else ""


@frozen(kw_only=True)
class Endpoint:
    """One interface of one container, reserved in the database; in the kernel once it was attached."""

    id: str
    network: Network
    container_id: str
    container_name: str
    interface: str
    address_number: int
    mac: str
    device: str
    default_route: bool
    names: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return dotted(self.address_number)

    @property
    def gateway(self) -> str:
        """The container's default route, "" when another endpoint of it has it."""
        return self.network.gateway_address if self.default_route else ""

    def entry(self) -> dict[str, str | int]:
        """The `interfaces` entry of a sandbox plan."""
        return {
            "name": self.interface,
            "address": f"{self.address}/{self.network.subnet.prefix}",
            "gateway": self.gateway,
            "mac": self.mac,
            "mtu": self.network.mtu,
        }


HOST = Network(id="000000000001".ljust(64, "0"), name="host", driver="host")
NONE = Network(id="000000000002".ljust(64, "0"), name="none", driver="null")
