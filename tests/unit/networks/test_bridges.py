from __future__ import annotations

import pytest

from runtime.networks.bridges import alias_of, root_of
from runtime.networks.values import Network

NETWORK = Network(id="0123456789ab".ljust(64, "0"), name="web")


def test_a_bridge_tells_its_store() -> None:
    assert root_of(alias_of(NETWORK, "/var/lib/pipe")) == "/var/lib/pipe"
    assert root_of(alias_of(NETWORK, "/srv/größe of it")) == "/srv/größe of it"


@pytest.mark.parametrize("alias", ["", "pipe network 0123456789ab", "somebody else's of /var/lib/pipe"])
def test_of_other_bridges_nothing_is_known(alias: str) -> None:
    assert root_of(alias) == ""


@pytest.mark.parametrize("letter", ["x", "ö", "€"])
def test_a_path_too_long_to_be_told_is_not_taken_for_another(letter: str) -> None:
    alias = alias_of(NETWORK, "/" + letter * 300)
    assert len(alias.encode()) <= 255
    assert root_of(alias) == ""
