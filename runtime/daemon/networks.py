"""Routes about networks (FEATURES E-59 to E-65)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runtime.containers.connecting import Connecting
from runtime.daemon.api import Route
from runtime.daemon.asked import expecting, filters_of
from runtime.daemon.containers import found, json_body
from runtime.daemon.engine import Engine
from runtime.daemon.place_query import attachment, string_map
from runtime.errors import Conflict, HostFault, InvalidInput, NotFound, Unsupported
from runtime.http.messages import HttpError, Request, Response, json_response
from runtime.networks.inspect import FILTERS, fits, network_record
from runtime.networks.values import Network


class NetworkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._networks = engine, engine.networks

    def routes(self) -> Iterable[Route]:
        yield "GET", "/networks", self.list
        yield "GET", "/networks/{id}", self.inspect
        yield "DELETE", "/networks/{id}", self.remove
        yield "POST", "/networks/create", self.create
        yield "POST", "/networks/prune", self.prune
        yield "POST", "/networks/{id}/connect", self.connect
        yield "POST", "/networks/{id}/disconnect", self.disconnect

    def _get(self, name: str) -> Network:
        """By name, id or unique beginning of an id."""
        if name == "bridge":
            return self._networks.ensure_default()
        known = self._networks.list()
        exact = [each for each in known if name in (each.id, each.name)]
        begun = exact or [each for each in known if each.id.startswith(name)]
        if len(begun) > 1:
            raise InvalidInput(f"network {name} is ambiguous ({len(begun)} matches found on ID prefix)")
        if not begun:
            raise NotFound(f"network {name} not found")
        return begun[0]

    def list(self, request: Request) -> Response:
        wanted = filters_of(request, FILTERS)
        self._networks.ensure_default()
        self._networks.sweep()
        used = {endpoint.network.id for endpoint in self._networks.endpoints()}
        chosen = [each for each in self._networks.list() if fits(each, wanted, used)]
        return json_response([_record(each, ()) for each in chosen])

    def inspect(self, request: Request) -> Response:
        self._networks.sweep()
        network = self._get(request.params["id"])
        return json_response(_record(network, self._networks.endpoints(network=network.id)))

    def create(self, request: Request) -> Response:
        with expecting("the network's JSON"):
            name, wanted = _wanted(json_body(request))
        made = self._networks.create(name, **wanted)
        return json_response({"Id": made.id, "Warning": ""}, 201)

    def remove(self, request: Request) -> Response:
        network = self._get(request.params["id"])
        try:
            self._networks.remove(network.name)
        except Conflict as error:
            raise HttpError(403, error.message) from error  # so says the API
        return Response(204)

    def prune(self, request: Request) -> Response:
        if filters_of(request, ("until", "label", "label!")):
            raise Unsupported("filters of a network prune", hint="leave them out")
        return json_response({"NetworksDeleted": list(self._networks.prune()) or None})

    def connect(self, request: Request) -> Response:
        network, record = self._get(request.params["id"]), json_body(request)
        container = found(self._engine, str(record.get("Container") or ""))
        with expecting("EndpointConfig"):
            attached = attachment(network.name, record.get("EndpointConfig"))
        self._connecting().connect(container.id, attached)
        return Response(200)

    def disconnect(self, request: Request) -> Response:
        network, record = self._get(request.params["id"]), json_body(request)
        container = found(self._engine, str(record.get("Container") or ""))
        self._connecting().disconnect(container.id, network.name)
        return Response(200)

    def _connecting(self) -> Connecting:
        engine = self._engine
        if engine.containers.spawner is None:
            raise HostFault("this process cannot change networks of containers")
        return Connecting(engine.store, engine.networks, engine.containers.spawner)


def _wanted(record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and the rest of what `Networks.create` takes."""
    ipam: dict[str, Any] = record.get("IPAM") or {}
    if record.get("EnableIPv6"):
        raise Unsupported("networks are IPv4 only", hint="leave EnableIPv6 out")
    if (ipam.get("Driver") or "default") != "default":
        raise Unsupported(f"IPAM driver {ipam['Driver']!r}", hint="only `default`")
    ranges = ipam.get("Config") or []
    if len(ranges) > 1:
        raise Unsupported("a network has one range of addresses", hint="give one IPAM.Config")
    config: dict[str, Any] = ranges[0] if ranges else {}
    return str(record.get("Name") or ""), {
        "driver": str(record.get("Driver") or "bridge"),
        "subnet": str(config.get("Subnet") or ""),
        "gateway": str(config.get("Gateway") or ""),
        "ip_range": str(config.get("IPRange") or ""),
        "reserved": string_map(config.get("AuxiliaryAddresses")),
        "internal": bool(record.get("Internal")),
        "labels": string_map(record.get("Labels")),
        "options": string_map(record.get("Options")),
    }


def _record(network: Network, endpoints: Any) -> dict[str, Any]:
    """Network of the API, with the fields that are for swarms."""
    record = network_record(network, endpoints)
    record["IPAM"]["Options"] = None
    return {**record, "ConfigFrom": {"Network": ""}, "ConfigOnly": False}
