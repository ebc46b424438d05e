"""The doctor on hosts made of files: a good one, and good ones with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main as cli
from pipeline.doctor import Finding, Host, Level, examine, exit_code

MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 21 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
"""
FILES = {
    "/proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "/proc/self/status": "Name:\tpipe\nCapEff:\t000001ffffffffff\n",
    "/proc/self/mountinfo": MOUNTS,
    "/proc/sys/user/max_user_namespaces": "15000\n",
    "/proc/sys/kernel/seccomp/actions_avail": "allow\n",
    "/proc/sys/net/ipv4/ip_forward": "1\n",
    "/proc/filesystems": "nodev\toverlay\n\text4\n",
    "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "/etc/resolv.conf": "nameserver 192.0.2.53\n",
    "/etc/ssl/certs/ca-certificates.crt": "certificates",
    "/usr/lib/libseccomp.so.2": "",
    "/usr/lib/libnftables.so.1": "",
    "/usr/bin/git": "#!/bin/sh\necho git version 2.39.5\n",
    **{f"/proc/self/ns/{name}": "" for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")},
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which all is well."""
    for name, text in FILES.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return Host(store="/var/lib/pipe", docker_config="/root/.docker", base=str(tmp_path))


def write(host: Host, path: str, text: str) -> None:
    file = Path(host.file(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def remove(host: Host, path: str) -> None:
    Path(host.file(path)).unlink()


def complaints(host: Host) -> list[Finding]:
    """All but the good ones; how much room the test machine has left does not matter."""
    return [f for f in examine(host) if f.level is not Level.OK and f.check != "disk space"]


def test_a_good_host_gets_no_complaint(host: Host) -> None:
    assert complaints(host) == []
    shown = {finding.check: finding.detail for finding in examine(host)}
    assert shown["cgroups"] == "v2 with cpu, cpuset, io, memory, pids"
    assert shown["store"] == "/var/lib/pipe on ext4 (/)"
    assert shown["git"] == "2.39.5"


CONFIG = "/root/.docker/config.json"
WRONG: dict[str, tuple[Callable[[Host], None], Level, str]] = {
    "old kernel": (lambda host: write(host, "/proc/sys/kernel/osrelease", "5.4.0-1"), Level.BROKEN, "kernel"),
    "few capabilities": (
        lambda host: write(host, "/proc/self/status", "CapEff:\t00000000a80425fb\n"),
        Level.BROKEN,
        "privileges",
    ),
    "no rlimits": (
        lambda host: write(host, "/proc/self/status", "CapEff:\t000001fffeffffff\n"),
        Level.NOTE,
        "privileges",
    ),
    "no net namespace": (lambda host: remove(host, "/proc/self/ns/net"), Level.BROKEN, "namespaces"),
    "no user namespaces": (
        lambda host: write(host, "/proc/sys/user/max_user_namespaces", "0\n"),
        Level.NOTE,
        "user namespaces",
    ),
    "no memory controller": (
        lambda host: write(host, "/sys/fs/cgroup/cgroup.controllers", "cpu pids\n"),
        Level.LIMITED,
        "cgroups",
    ),
    "no cgroups": (
        lambda host: write(host, "/proc/self/mountinfo", MOUNTS.splitlines()[0]),
        Level.LIMITED,
        "cgroups",
    ),
    "no seccomp": (
        lambda host: remove(host, "/proc/sys/kernel/seccomp/actions_avail"),
        Level.LIMITED,
        "seccomp",
    ),
    "no libseccomp": (lambda host: remove(host, "/usr/lib/libseccomp.so.2"), Level.LIMITED, "seccomp"),
    "no overlay": (lambda host: write(host, "/proc/filesystems", "\text4\n"), Level.LIMITED, "overlayfs"),
    "store on overlay": (
        lambda host: write(host, "/proc/self/mountinfo", MOUNTS + "31 21 0:9 / /var/lib rw - overlay o rw\n"),
        Level.LIMITED,
        "store",
    ),
    "store on vfat": (
        lambda host: write(host, "/proc/self/mountinfo", MOUNTS + "31 21 0:9 / /var/lib rw - vfat v rw\n"),
        Level.BROKEN,
        "store",
    ),
    "store that found overlay refused": (
        lambda host: write(host, "/var/lib/pipe/filesystem", "fs:boot:1:an overlay on ext4 is refused\n"),
        Level.LIMITED,
        "store",
    ),
    "store on tmpfs": (
        lambda host: write(host, "/proc/self/mountinfo", MOUNTS + "31 21 0:9 / /var/lib rw - tmpfs t rw\n"),
        Level.NOTE,
        "store",
    ),
    "no packet filter": (
        lambda host: remove(host, "/usr/lib/libnftables.so.1"),
        Level.LIMITED,
        "packet filter",
    ),
    "no forwarding": (
        lambda host: write(host, "/proc/sys/net/ipv4/ip_forward", "0\n"),
        Level.NOTE,
        "forwarding",
    ),
    "no name server": (lambda host: write(host, "/etc/resolv.conf", ""), Level.LIMITED, "name servers"),
    "no git": (lambda host: remove(host, "/usr/bin/git"), Level.LIMITED, "git"),
    "broken logins": (lambda host: write(host, CONFIG, "{"), Level.LIMITED, "credentials"),
    "missing helper": (
        lambda host: write(host, CONFIG, json.dumps({"credHelpers": {"example.com": "nowhere"}})),
        Level.LIMITED,
        "credentials",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_what_to_do(host: Host, name: str) -> None:
    harm, level, check = WRONG[name]
    harm(host)
    (finding,) = complaints(host)
    assert (finding.check, finding.level) == (check, level)
    assert finding.hint or "tmpfs" in finding.detail


def test_a_missing_bundle_of_certificates_is_named(host: Host) -> None:
    (finding,) = complaints(replace(host, ca_bundle="/nowhere.pem"))
    assert (finding.check, finding.detail) == ("certificates", "/nowhere.pem does not exist")


def test_without_root_containers_do_not_run(host: Host) -> None:
    (finding,) = complaints(replace(host, user=1000))
    assert (finding.check, finding.level) == ("privileges", Level.BROKEN)


def test_v1_hierarchies_count_where_they_are_mounted(host: Host) -> None:
    write(host, "/proc/cgroups", "#subsys\ncpu\t1\t1\t1\nmemory\t2\t1\t1\npids\t3\t1\t1\n")
    mounts = [
        f"4{n} 30 0:3{n} / /sys/fs/cgroup/{name} rw - cgroup c rw,{name}"
        for n, name in enumerate(("cpu", "memory", "pids"))
    ]
    write(host, "/proc/self/mountinfo", MOUNTS + "\n".join(mounts))
    assert {f.detail for f in examine(host) if f.check == "cgroups"} == {"v1 with cpu, memory, pids"}


def test_loopback_name_servers_are_all_right(host: Host) -> None:
    write(host, "/etc/resolv.conf", "nameserver 127.0.0.53\n")
    assert complaints(host) == []


def test_the_worst_finding_decides_the_exit_code() -> None:
    def code(*levels: Level) -> int:
        return exit_code([Finding("x", level, "") for level in levels])

    assert code() == code(Level.OK, Level.NOTE) == 0
    assert code(Level.OK, Level.LIMITED) == 1
    assert code(Level.LIMITED, Level.BROKEN) == 3


def test_the_command_examines_this_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = cli.run(["--root", str(tmp_path), "doctor", "--format", "json"])
    records = json.loads(capsys.readouterr().out)
    assert code == exit_code([Finding(r["check"], Level(r["level"]), r["detail"]) for r in records])
    assert {"kernel", "cgroups", "store", "name servers"} <= {record["check"] for record in records}
    cli.run(["--root", str(tmp_path), "doctor"])
    assert "kernel" in capsys.readouterr().out
