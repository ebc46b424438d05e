"""Names as programs in a container see them: busybox and the C library ask, the database answers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from runtime.containers.spec import NetworkAttachment
from runtime.errors import Conflict
from runtime.networks import Networks
from runtime.networks.resolver import Resolver
from tests.support.networks import Container, World

pytestmark = pytest.mark.linux


class Served:
    """Containers whose resolvers run in this process."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.resolvers: list[Resolver] = []

    def serve(self, container: Container) -> None:
        resolver = self.networks.resolver_for(container.id, container.pid)
        resolver.start()
        self.resolvers.append(resolver)


@pytest.fixture
def served(networks: Networks) -> Iterator[Served]:
    served = Served(networks)
    yield served
    for resolver in served.resolvers:
        resolver.close()


def look_up(container: Container, name: str) -> str:
    done = container.do(
        lambda: subprocess.run(
            ["busybox", "nslookup", name, "127.0.0.11"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    )
    return done.stdout


def test_containers_find_each_other_by_name_alias_and_short_id(
    world: World, networks: Networks, served: Served
) -> None:
    networks.create("web")
    client, server = world.container("client"), world.container("server")
    client.join(networks, "web")
    endpoint = server.join(networks, "web", aliases=("db", "Database"))
    served.serve(client)
    for name in ("server", "db", "database", server.id[:12], "server.web"):
        assert f"Address: {endpoint.address}\n" in look_up(client, name), name
    assert "name = server.web" in look_up(client, endpoint.address)


def test_names_of_other_networks_are_not_known(world: World, networks: Networks, served: Served) -> None:
    networks.create("web", internal=True)
    networks.create("other")
    client, hidden = world.container("client"), world.container("hidden")
    client.join(networks, "web")
    endpoint = hidden.join(networks, "other")
    served.serve(client)
    assert endpoint.address not in look_up(client, "hidden")


def test_a_container_that_ended_has_no_name_any_more(
    world: World, networks: Networks, served: Served
) -> None:
    networks.create("web", internal=True)
    client, server = world.container("client"), world.container("server")
    client.join(networks, "web")
    endpoint = server.join(networks, "web")
    served.serve(client)
    assert endpoint.address in look_up(client, "server")
    server.kill()
    networks.sweep()
    assert endpoint.address not in look_up(client, "server")


def test_the_default_bridge_knows_no_names(world: World, networks: Networks, served: Served) -> None:
    client, server = world.container("client"), world.container("server")
    client.join(networks, "bridge")
    endpoint = server.join(networks, "bridge")
    served.serve(client)
    assert networks.records.lookup(client.id, "server") == []
    assert endpoint.network.named is False


def test_a_container_that_ended_cannot_be_attached(world: World, networks: Networks) -> None:
    networks.create("web")
    container = world.container("one")
    endpoint = networks.connect(container.id, "one", NetworkAttachment(network="web"))
    container.kill()
    with pytest.raises(Conflict, match="container one ended before"):
        networks.attach(endpoint, container.pid)


def test_a_container_may_be_a_name_server_itself(world: World, networks: Networks, served: Served) -> None:
    networks.create("web")
    client, server = world.container("client"), world.container("server")
    client.join(networks, "web")
    endpoint = server.join(networks, "web")
    served.serve(client)
    client.echo(53)
    client.serve("mine", 53)
    assert f"Address: {endpoint.address}\n" in look_up(client, "server")
    assert client.fetch("127.0.0.1", 53) == "mine to 127.0.0.1"
