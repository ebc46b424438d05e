"""`pipe network …` on a host of the test's own."""

from __future__ import annotations

import json

import pytest

from pipeline.cli import main as cli
from runtime.networks import Networks
from tests.support.networks import World

pytestmark = pytest.mark.linux


class Pipe:
    """The command line, on the store of the fixture `networks`."""

    def __init__(self, root: str, capture: pytest.CaptureFixture[str]) -> None:
        self.root, self.capture = root, capture
        self.error = ""

    def __call__(self, *arguments: str) -> str:
        code = cli.run(["--root", self.root, "network", *arguments])
        output, self.error = self.capture.readouterr()
        assert code == 0, self.error
        return output

    def fails(self, *arguments: str) -> tuple[int, str]:
        code = cli.run(["--root", self.root, "network", *arguments])
        return code, self.capture.readouterr().err


@pytest.fixture
def pipe(networks: Networks, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> Pipe:
    return Pipe(f"{tmp_path}/store", capsys)


def test_a_network_is_made_shown_and_removed(world: World, networks: Networks, pipe: Pipe) -> None:
    made = pipe(
        "create", "web", "--subnet", "10.77.0.0/24", "--label", "tier=front", "-o", "mtu=1400"
    ).strip()
    container = world.container("one")
    endpoint = container.join(networks, "web")
    (shown,) = json.loads(pipe("inspect", "web"))
    assert (shown["Id"], shown["Labels"]) == (made, {"tier": "front"})
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]
    assert shown["Containers"][container.id]["IPv4Address"] == f"{endpoint.address}/24"
    assert shown["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert pipe("ls", "-q", "--no-trunc", "-f", "label=tier=front").strip() == made
    assert pipe("ls", "-q", "-f", "dangling=true") == ""
    assert pipe.fails("rm", "web")[0] == 1
    container.kill()
    assert pipe("rm", made[:12]) == "web\n"
    assert [line.split()[1] for line in pipe("ls").splitlines()] == ["ID", "host", "none"]


def test_prune_removes_what_nobody_uses(world: World, networks: Networks, pipe: Pipe) -> None:
    for name in ("used", "unused"):
        pipe("create", name)
    world.container("one").join(networks, "used")
    assert pipe("prune", "--force") == "unused\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "web", "--subnet", "10.0.0.1/24"], 2, "did you mean `10.0.0.0/24`?"),
        (["create", "web", "--subnet", "10.0.0.0/24", "--subnet", "10.0.1.0/24"], 2, "given 2 times"),
        (["create", "web", "--driver", "overlay"], 2, "driver 'overlay' is not supported"),
        (["create", "web", "--driver", "brigde"], 2, "did you mean `bridge`?"),
        (["create", "web", "--ipv6"], 2, "IPv4 only"),
        (["create", "web", "-o", "mtv=1"], 2, "did you mean `mtu`?"),
        (["create", "web", "-o", "mtu=big"], 2, "mtu 'big'"),
        (["create", "-w-"], 2, ""),
        (["create", "host"], 1, "predefined"),
        (["rm", "bridge"], 1, "cannot be removed"),
        (["rm", "wbe"], 2, "no such network: wbe"),
        (["inspect", "wbe"], 2, "no such network: wbe"),
        (["connect", "bridge", "nobody"], 2, "no such container: nobody"),
    ],
)
def test_a_mistake_is_said_and_changes_nothing(
    pipe: Pipe, networks: Networks, arguments: list[str], code: int, words: str
) -> None:
    found, text = pipe.fails(*arguments)
    assert (found, words in text) == (code, True), text
    assert networks.records.all() == []
