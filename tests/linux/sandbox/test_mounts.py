"""Binds, tmpfs and files: what is visible, what is writable, and that no image can lead a mount astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Json
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def with_mount(target: str, source: Path | str, *options: str, kind: str = "bind") -> Json:
    config = defaults.config([])
    config["mounts"].append(
        {"destination": target, "type": kind, "source": str(source), "options": list(options)}
    )
    return config


def test_a_bound_directory_is_shared_both_ways(box: Bench, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside")
    output = box.shell("cat /data/in; echo inside > /data/out", with_mount("/data", tmp_path, "rbind"))
    assert output == "from outside"
    assert (tmp_path / "out").read_text() == "inside\n"


def test_a_read_only_bind_cannot_be_written(box: Bench, tmp_path: Path) -> None:
    output = box.shell("touch /data/x 2>&1 || true", with_mount("/data", tmp_path, "rbind", "ro"))
    assert "Read-only file system" in output
    assert not (tmp_path / "x").exists()


def test_a_file_is_bound_over_a_file_that_is_made_for_it(box: Bench, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 me\n")
    rootfs = box.overlay()
    plan = box.plan(config=defaults.config(["cat", "/etc/hosts"]), rootfs=rootfs)
    plan.files = [{"path": "/etc/hosts", "source": str(tmp_path / "hosts")}]
    info, output = box.run(plan)
    assert (info.code, output) == (0, "127.0.0.1 me\n")
    assert os.path.getsize(f"{rootfs.upper}/etc/hosts") == 0


def test_made_mount_points_are_reported(box: Bench, tmp_path: Path) -> None:
    config = with_mount("/deep/er/place", tmp_path, "rbind")
    config["process"]["args"] = ["true"]
    process = box.spawner.create(box.plan(config=config))
    process.wait(60)
    assert process.made[:3] == ["/deep", "/deep/er", "/deep/er/place"]


def test_a_tmpfs_has_its_size_and_mode(box: Bench) -> None:
    config = with_mount("/scratch", "tmpfs", "size=1m", "mode=700", "nosuid", kind="tmpfs")
    output = box.shell(
        "stat -c %a /scratch; dd if=/dev/zero of=/scratch/big bs=1M count=2 2>&1 || true", config
    )
    assert output.startswith("700") and "No space left on device" in output


def test_a_tmpfs_can_start_with_what_the_image_has_there(box: Bench) -> None:
    config = with_mount("/etc", "tmpfs", "tmpcopyup", kind="tmpfs")
    rootfs = box.overlay()
    assert "alice" in box.shell("cat /etc/passwd; echo x > /etc/new", config, rootfs=rootfs)
    assert not os.path.exists(f"{rootfs.upper}/etc/new")


def test_mounts_apply_in_their_order(box: Bench, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    config = with_mount("/data", tmp_path / "a", "rbind")
    config["mounts"].append({"destination": "/data/b", "type": "tmpfs", "source": "tmpfs", "options": []})
    assert box.shell("grep -c ' /data' /proc/self/mountinfo", config).strip() == "2"


def test_a_link_in_the_image_cannot_lead_a_mount_out_of_the_root(box: Bench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "data").mkdir()
    rootfs = box.overlay()
    for name, target in (("absolute", str(victim)), ("relative", "../../../../../../.." + str(victim))):
        os.symlink(target, f"{rootfs.upper}/{name}")
    config = with_mount("/absolute/in", tmp_path / "data", "rbind")
    config["mounts"].append(
        {
            "destination": "/relative/in",
            "type": "bind",
            "source": str(tmp_path / "data"),
            "options": ["rbind"],
        }
    )
    config["process"]["args"] = ["true"]
    box.spawner.create(box.plan(config=config, rootfs=rootfs)).wait(60)
    assert os.listdir(victim) == []


def test_a_dangling_link_is_followed_inside_the_root_and_its_target_made(box: Bench, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    rootfs = box.overlay()
    os.mkdir(f"{rootfs.upper}/etc")
    os.symlink("../run/resolve/stub.conf", f"{rootfs.upper}/etc/resolv.conf")
    os.symlink("/var/there", f"{rootfs.upper}/here")
    config = with_mount("/here/deep", tmp_path, "rbind")
    config["process"]["args"] = [
        "cat",
        "/etc/resolv.conf",
        "/run/resolve/stub.conf",
        "/var/there/deep/resolv.conf",
    ]
    plan = box.plan(config=config, rootfs=rootfs)
    plan.files = [{"path": "/etc/resolv.conf", "source": str(tmp_path / "resolv.conf")}]
    info, output = box.run(plan)
    assert (info.code, output) == (0, "nameserver 192.0.2.1\n" * 3)


def test_links_that_lead_in_a_circle_are_an_error(box: Bench, tmp_path: Path) -> None:
    rootfs = box.overlay()
    os.symlink("/two", f"{rootfs.upper}/one")
    os.symlink("/one", f"{rootfs.upper}/two")
    config = with_mount("/one/x", tmp_path, "rbind")
    config["process"]["args"] = ["true"]
    with pytest.raises(SandboxError, match="symbolic links"):
        box.spawner.create(box.plan(config=config, rootfs=rootfs))


def test_a_magic_link_is_not_followed(box: Bench, tmp_path: Path) -> None:
    rootfs = box.overlay()
    os.symlink("/proc/self/root", f"{rootfs.upper}/way")
    config = with_mount("/way/x", tmp_path, "rbind")
    config["process"]["args"] = ["true"]
    with pytest.raises(SandboxError, match="/way/x"):
        box.spawner.create(box.plan(config=config, rootfs=rootfs))


def test_a_working_directory_is_made_when_missing(box: Bench) -> None:
    config = defaults.config([], cwd="/made/here")
    assert box.shell("pwd", config).strip() == "/made/here"


def test_a_working_directory_through_a_descriptor_of_ours_is_refused(box: Bench) -> None:
    for number in range(3, 12):
        config = defaults.config(["true"], cwd=f"/proc/self/fd/{number}")
        with pytest.raises(SandboxError):
            box.spawner.create(box.plan(config=config))


def test_mounting_a_directory_over_a_file_is_refused_with_its_path(box: Bench, tmp_path: Path) -> None:
    config = with_mount("/etc/passwd", tmp_path, "rbind")
    config["process"]["args"] = ["true"]
    with pytest.raises(SandboxError, match="/etc/passwd"):
        box.spawner.create(box.plan(config=config))


def test_an_unknown_bind_option_is_refused(box: Bench, tmp_path: Path) -> None:
    config = with_mount("/data", tmp_path, "rbind", "sideways")
    config["process"]["args"] = ["true"]
    with pytest.raises(SandboxError, match="sideways"):
        box.spawner.create(box.plan(config=config))


def test_nothing_of_a_container_appears_in_the_hosts_mounts(box: Bench) -> None:
    reader, writer = os.pipe()
    process = box.spawner.create(box.plan("cat"), reader)
    assert str(box.directory) in Path(f"/proc/{process.pid}/mountinfo").read_text()
    assert str(box.directory) not in Path("/proc/self/mountinfo").read_text()
    process.kill(9)
    process.wait(60)
    os.close(reader)
    os.close(writer)


def test_sysctls_of_its_own_namespaces_are_set_and_others_refused(box: Bench) -> None:
    config = defaults.config([])
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmax": "65536"}
    output = box.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax", config)
    assert output.split() == ["80", "65536"]
    config = defaults.config(["true"])
    config["linux"]["sysctl"] = {"kernel.panic": "1"}
    with pytest.raises(SandboxError, match=r"kernel\.panic"):
        box.spawner.create(box.plan(config=config))
