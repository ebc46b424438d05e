"""Flags of `run`, each seen from inside by what the kernel says (D-15 to D-18)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pipeline.cli.main import run
from tests.support.containers import World

pytestmark = pytest.mark.linux

Inside = Callable[..., str]


@pytest.fixture
def inside(world: World, capfd: pytest.CaptureFixture[str]) -> Inside:
    """What a shell script prints in `pipe run --rm FLAGS busybox sh -c SCRIPT`."""

    def call(flags: str, script: str) -> str:
        capfd.readouterr()
        network = [] if "--net" in flags or "-P" in flags or "--link" in flags else ["--network", "none"]
        code = run(
            [
                "--root",
                str(world.root),
                "run",
                "--rm",
                *network,
                *flags.split(),
                "busybox",
                "sh",
                "-c",
                script,
            ]
        )
        captured = capfd.readouterr()
        assert code == 0, captured.err
        return captured.out

    return call


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        ("--hostname h --domainname d.e", "hostname; cat /proc/sys/kernel/domainname; grep h /etc/hostname", "h\nd.e\nh\n"),
        ("--user alice", "id -un; id -gn; grep CapEff /proc/self/status | cut -f2", "alice\nalice\n0000000000000000\n"),
        ("--user 4:5 --group-add staff --group-add 77", "id -u; id -g; id -G", "4\n5\n5 50 77\n"),
        ("--workdir /var/new", "pwd", "/var/new\n"),
        ("--env A=1 --env B", "echo $A-$B", "1-\n"),
        ("--cap-drop ALL --cap-add CHOWN", "grep CapBnd /proc/self/status | cut -f2", "0000000000000001\n"),
        ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | cut -f2", "1\n"),
        ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status | cut -f2", "0\n"),
        ("--ulimit nofile=100:200 --ulimit core=0", "ulimit -Sn; ulimit -Hn; ulimit -c", "100\n200\n0\n"),
        ("--sysctl net.core.somaxconn=99", "cat /proc/sys/net/core/somaxconn", "99\n"),
        ("--shm-size 3m", "df -k /dev/shm | tail -1 | awk '{print $2}'", "3072\n"),
        ("--tmpfs /t:size=1m,mode=711", "stat -c %a /t; grep -o 'noexec' /proc/mounts | head -1", "711\nnoexec\n"),
        ("--read-only", "touch /x 2>/dev/null || echo refused", "refused\n"),
        ("--device /dev/zero:/dev/nought:r", "head -c 2 /dev/nought | wc -c", "2\n"),
        ("--add-host db:10.1.2.3", "grep db /etc/hosts", "10.1.2.3\tdb\n"),
        ("--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500\n"),
        ("--init", "cat /proc/1/comm; test $$ != 1 && echo child", None),
        ("--dns 192.0.2.1 --dns-search example.org --dns-option ndots:3", "cat /etc/resolv.conf", None),
    ],
)  # fmt: skip
def test_what_the_flag_says_is_so_inside(
    inside: Inside, flags: str, script: str, expected: str | None
) -> None:
    text = inside(flags, script)
    if expected is not None:
        assert text == expected
    elif "--init" in flags:
        assert text.splitlines()[-1] == "child"
    else:
        assert text == "nameserver 192.0.2.1\nsearch example.org\noptions ndots:3\n"


def test_by_default_every_namespace_is_its_own(inside: Inside) -> None:
    kinds = ("mnt", "pid", "net", "uts", "ipc", "cgroup", "time")
    text = inside("", f"cd /proc/self/ns; for kind in {' '.join(kinds)}; do readlink $kind; done")
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert [own for own, other in zip(text.split(), host) if own == other] == []
    assert len(text.split()) == len(kinds)


@pytest.mark.parametrize("kind", ["pid", "net", "uts", "ipc"])
def test_host_modes_share_the_hosts_namespace(inside: Inside, kind: str) -> None:
    flag = "--network host" if kind == "net" else f"--{kind} host"
    assert inside(flag, f"readlink /proc/self/ns/{kind}").strip() == os.readlink(f"/proc/self/ns/{kind}")


def test_privileged_has_all_of_ours(inside: Inside) -> None:
    with open("/proc/self/status") as file:
        own = next(line.split()[1] for line in file if line.startswith("CapBnd"))
    text = inside(
        "--privileged", "grep CapBnd /proc/self/status | cut -f2; test -w /proc/sys && echo writable"
    )
    assert text == f"{own}\nwritable\n"


def test_a_neighbours_processes_and_memory_can_be_shared(world: World, inside: Inside) -> None:
    owner = world.up("sleep", "1234", name="owner", ipc_mode="shareable")
    assert "sleep 1234" in inside("--pid container:owner", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    expected = os.readlink(f"/proc/{owner.state.pid}/ns/ipc")
    assert inside("--ipc container:owner", "readlink /proc/self/ns/ipc").strip() == expected
    world.containers.remove("owner", force=True)


def test_a_link_names_a_neighbour_on_the_default_bridge(world: World, inside: Inside) -> None:
    owner = world.up("sleep", "1000", name="linked", network_mode="bridge")
    (endpoint,) = world.networks.endpoints(container=owner.id)
    assert f"{endpoint.address}\talias" in inside("--link linked:alias", "cat /etc/hosts")
    world.containers.remove("linked", force=True)


def test_limits_stand_in_the_control_group(world: World) -> None:
    from pipeline.cli.run_flags import parse_command_line
    from pipeline.cli.run_spec import container_spec
    from runtime.cgroups import hierarchies, usage

    flags = "-m 64m --pids-limit 33 --cpus 0.5 --cpu-shares 512 --network none busybox sleep 1000"
    container = world.containers.create(container_spec(parse_command_line(flags.split()), {}, "/"))
    world.containers.start(container.id)
    assert usage(container.cgroup).memory_limit == 64 << 20
    unified = hierarchies().unified
    pids = hierarchies().cgroup(container.cgroup).directory("pids")
    cpu = hierarchies().cgroup(container.cgroup).directory("cpu")
    assert pids is not None
    assert cpu is not None
    with open(f"{pids}/pids.max") as file:
        assert file.read() == "33\n"
    with open(f"{cpu}/cpu.max" if unified else f"{cpu}/cpu.cfs_quota_us") as file:
        assert file.read().split()[0] == "50000"
    assert world.containers.stats(container.id).pids >= 1
    world.containers.remove(container.id, force=True)
