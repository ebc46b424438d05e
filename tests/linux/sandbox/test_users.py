"""Who the program is, by number and by the container's own names."""

from __future__ import annotations

import os

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.capabilities import SETS
from runtime.sandbox.errors import SandboxError
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


@pytest.mark.parametrize(
    ("user", "groups", "expected", "home"),
    [
        ("", [], "uid=0(root) gid=0(root)", "/root"),
        ("alice", [], "uid=1000(alice) gid=1000(alice) groups=50(staff)", "/home/alice"),
        ("1000", [], "uid=1000(alice) gid=1000(alice) groups=50(staff)", "/home/alice"),
        ("alice:staff", [], "uid=1000(alice) gid=50(staff)", "/home/alice"),
        ("4711", [], "uid=4711 gid=0(root)", "/"),
        ("4711:12", [], "uid=4711 gid=12", "/"),
        ("alice", ["12"], "uid=1000(alice) gid=1000(alice) groups=12,50(staff)", "/home/alice"),
        ("root", ["staff"], "uid=0(root) gid=0(root) groups=50(staff)", "/root"),
    ],
)
def test_a_user_is_found_as_docker_finds_it(
    box: Bench, user: str, groups: list[str], expected: str, home: str
) -> None:
    config = defaults.config([])
    config["process"]["user"] = {"username": user or "0", "additionalGids": groups}
    identity, where = box.shell("id; echo $HOME", config).splitlines()
    assert identity.split()[:2] == expected.split()[:2]
    assert _groups(identity) == _groups(expected)
    assert where == home


def _groups(line: str) -> set[str]:
    """busybox lists the primary group among them; Linux does not care."""
    words = dict(word.split("=") for word in line.split())
    return set(words.get("groups", words["gid"]).split(",")) | {words["gid"]}


@pytest.mark.parametrize("user", ["bob", "alice:wheel", "99999999999"])
def test_an_unknown_name_is_an_error_that_names_it(box: Bench, user: str) -> None:
    config = defaults.config(["true"])
    config["process"]["user"] = {"username": user}
    with pytest.raises(SandboxError, match=user.split(":")[-1]) as caught:
        box.spawner.create(box.plan(config=config))
    assert caught.value.kind == "input"


def test_a_passwd_that_is_a_fifo_or_a_link_to_the_host_is_not_read(box: Bench) -> None:
    for kind in ("fifo", "link"):
        rootfs = box.overlay()
        os.mkdir(f"{rootfs.upper}/etc")
        if kind == "fifo":
            os.mkfifo(f"{rootfs.upper}/etc/passwd")
        else:
            os.symlink("../../../../../../../../etc/passwd", f"{rootfs.upper}/etc/passwd")
        config = defaults.config(["true"])
        config["process"]["user"] = {"username": "daemon"}
        with pytest.raises(SandboxError, match=r"daemon|etc/passwd"):
            box.spawner.create(box.plan(config=config, rootfs=rootfs))


def test_additional_groups_and_umask_are_set(box: Bench) -> None:
    config = defaults.config([])
    config["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o027}
    output = box.shell("umask; grep Groups /proc/self/status", config)
    assert output.split() == ["0027", "Groups:", "7", "8"]


def test_a_directory_closed_to_root_but_open_to_the_user_is_entered(box: Bench) -> None:
    rootfs = box.overlay()
    os.makedirs(f"{rootfs.upper}/own")
    os.chown(f"{rootfs.upper}/own", 1000, 1000)
    os.chmod(f"{rootfs.upper}/own", 0o700)
    config = defaults.config([], cwd="/own")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["capabilities"] = {}
    assert box.shell("pwd", config, rootfs=rootfs).strip() == "/own"


def test_ambient_capabilities_reach_a_plain_user(box: Bench) -> None:
    config = defaults.config([])
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    names = ["CAP_NET_BIND_SERVICE"]
    config["process"]["capabilities"] = dict.fromkeys(SETS, names)
    facts = box.shell("grep Cap /proc/self/status", config)
    assert facts.count("0000000000000400") == 5
