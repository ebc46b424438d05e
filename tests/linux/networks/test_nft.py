"""Where libnftables cannot be loaded, its program does the same."""

from __future__ import annotations

import pytest

from runtime.containers.spec import PortBinding
from runtime.networks import Networks, nft
from tests.support.networks import HOST_ADDRESS, OUTSIDE_ADDRESS, World

pytestmark = pytest.mark.linux


@pytest.fixture
def program_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_library", lambda: None)


def test_the_program_makes_the_same_rules(world: World, networks: Networks, program_only: None) -> None:
    world.other_engine()
    container = world.container("one")
    endpoint = container.join(networks, "bridge")
    container.serve("one", 80)
    outside = world.outside.serve("hello")
    assert container.fetch(OUTSIDE_ADDRESS, outside) == f"hello to {HOST_ADDRESS}"
    port = networks.publish(container.id, endpoint, [PortBinding(container_port=80)])[0].host_port
    assert world.outside.fetch(HOST_ADDRESS, port).startswith("one")
    networks.release(container.id)
    networks.teardown()
    assert "pipe-" not in world.host.run("nft", "list", "ruleset")


@pytest.mark.parametrize("way", ["library", "program"])
def test_a_refusal_shows_the_command_and_the_reason(
    world: World, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "program":
        request.getfixturevalue("program_only")
    with pytest.raises(nft.NftError, match=r"nft refused `add rule ip nothing here accept`: .*No such file"):
        nft.run("add rule ip nothing here accept")


def test_commands_are_one_transaction(world: World) -> None:
    with pytest.raises(nft.NftError):
        nft.run("add table ip first\nadd rule ip nothing here accept\n")
    assert "first" not in nft.run("list tables")
