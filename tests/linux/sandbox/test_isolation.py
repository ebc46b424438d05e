"""What the kernel says from inside a container with all defaults."""

from __future__ import annotations

import os
import re

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.plan import RootFs
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def mounts(text: str) -> dict[str, tuple[str, str]]:
    """mount point -> (file system, options of the mount)."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        found[fields[4]] = (after.split()[0], fields[5])
    return found


def test_it_has_exactly_dockers_capabilities_and_filter(box: Bench, seccomp_program: str) -> None:
    facts = status(box.shell("cat /proc/self/status", seccomp=seccomp_program))
    assert facts["CapPrm"] == facts["CapEff"] == facts["CapBnd"] == "00000000a80425fb"
    assert facts["CapInh"] == facts["CapAmb"] == "0000000000000000"
    assert facts["Seccomp"] == "2"
    assert facts["NoNewPrivs"] == "0"


def test_no_new_privileges_is_set_when_asked(box: Bench, seccomp_program: str) -> None:
    config = defaults.config([])
    config["process"]["noNewPrivileges"] = True
    facts = status(box.shell("cat /proc/self/status", config, seccomp=seccomp_program))
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


def test_a_plain_user_starts_with_no_effective_capability(box: Bench) -> None:
    config = defaults.config([])
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    facts = status(box.shell("cat /proc/self/status", config))
    assert facts["CapEff"] == facts["CapPrm"] == "0000000000000000"
    assert facts["CapBnd"] == "00000000a80425fb"
    assert facts["Uid"].split() == ["1000"] * 4


def test_it_is_pid_one_in_namespaces_of_its_own(box: Bench) -> None:
    names = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    output = box.shell("echo $$; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done")
    pid, *links = output.split()
    assert pid == "1"
    for name, link in zip(names, links):
        assert link != os.readlink(f"/proc/self/ns/{name}")


def test_the_root_is_an_overlay_and_holds_only_the_container(box: Bench) -> None:
    found = mounts(box.shell("cat /proc/self/mountinfo"))
    assert found["/"][0] == "overlay"
    assert found["/proc"][0] == "proc"
    assert found["/dev"][0] == "tmpfs"
    assert found["/dev/pts"][0] == "devpts"
    assert found["/dev/mqueue"][0] == "mqueue"
    assert found["/dev/shm"][0] == "tmpfs"
    assert found["/sys"][0] == "sysfs"
    assert "ro" in found["/sys"][1].split(",")
    assert not [place for place in found if place.startswith("/tmp")]


def test_what_the_container_writes_is_in_the_upper_directory_only(box: Bench) -> None:
    rootfs = box.overlay()
    box.shell("echo kept > /kept; rm /etc/group", rootfs=rootfs)
    assert os.path.exists(f"{rootfs.upper}/kept")
    assert (box.lower / "etc/group").exists()


def test_masked_paths_tell_nothing_and_read_only_paths_cannot_be_written(box: Bench) -> None:
    script = """
    for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do
        test ! -e $path || test -z "$(head -c 10 $path)" || echo "$path is readable"
    done
    for path in /proc/acpi /sys/firmware; do
        test ! -e $path || test -z "$(ls $path)" || echo "$path is not empty"
        ! touch $path/x 2>/dev/null || echo "$path is writable"
    done
    for path in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
        test ! -e $path || ! (echo 1 > $path) 2>/dev/null || echo "$path is writable"
    done
    """
    assert box.shell(script) == ""


def test_the_usual_devices_and_links_are_there_and_no_others(box: Bench) -> None:
    output = box.shell(
        "cd /dev; for n in *; do echo $n $(stat -c '%F %t:%T %a' $n); done; for n in fd stdin stdout stderr ptmx; do readlink $n; done"
    )
    for line in (
        "null character special file 1:3 666",
        "zero character special file 1:5 666",
        "full character special file 1:7 666",
        "random character special file 1:8 666",
        "urandom character special file 1:9 666",
        "tty character special file 5:0 666",
    ):
        assert line in output
    nodes = re.findall(r"(?m)^(\S+) (?:block|character) special", output)
    assert sorted(nodes) == ["full", "null", "random", "tty", "urandom", "zero"]
    assert "/proc/self/fd/2" in output and "pts/ptmx" in output


def test_a_device_outside_the_list_can_be_made_but_not_opened(box: Bench) -> None:
    output = box.shell("mknod /tmp/kmsg c 1 11 && ! cat /tmp/kmsg 2>/tmp/why; cat /tmp/why")
    assert "Operation not permitted" in output


def test_it_cannot_mount_unshare_or_load_anything(box: Bench, seccomp_program: str) -> None:
    script = "mount -t tmpfs x /tmp; unshare -m true; mount -o remount,rw /sys; chroot / true && echo chroot; echo end"
    output = box.shell(script + " 2>&1", seccomp=seccomp_program)
    assert output.count("permission denied") + output.count("Operation not permitted") >= 3
    assert "chroot" in output and "end" in output


def test_no_descriptor_of_ours_is_open_inside(box: Bench) -> None:
    output = box.shell("ls -l /proc/self/fd /proc/1/fd")
    numbers = {int(number) for number in re.findall(r" (\d+) -> ", output)}
    # busybox `ls` itself opens the directory it lists, and so does the shell nothing else.
    assert numbers <= {0, 1, 2, 3}
    assert "socket" not in output and str(box.directory) + "/lower" not in output


def test_the_host_name_is_set_and_the_hosts_is_untouched(box: Bench) -> None:
    before = os.uname().nodename
    config = defaults.config([], hostname="inside")
    config["domainname"] = "example.org"
    assert box.shell("hostname; cat /proc/sys/kernel/domainname", config).split() == ["inside", "example.org"]
    assert os.uname().nodename == before


def test_only_a_loopback_interface_is_there_and_up(box: Bench) -> None:
    output = box.shell("ls /sys/class/net; ip addr show lo; ping -c 1 -W 30 127.0.0.1")
    assert output.split()[0] == "lo"
    assert "127.0.0.1/8" in output and "0% packet loss" in output


def test_signals_start_with_their_defaults_and_none_blocked(box: Bench) -> None:
    """Under `make` too, whose children have libc's internal signals 32 and 33 ignored."""
    info, output = box.run(box.plan("cat", "/proc/self/status"))
    assert info.code == 0
    facts = status(output)
    assert int(facts["SigBlk"], 16) == 0
    assert int(facts["SigIgn"], 16) == 0


def test_a_read_only_root_refuses_writes_but_keeps_its_mounts_writable(box: Bench) -> None:
    config = defaults.config([])
    config["root"]["readonly"] = True
    output = box.shell("touch /x 2>&1 || true; touch /dev/shm/y && echo shm", config)
    assert "Read-only file system" in output and "shm" in output


def test_layers_are_stacked_topmost_first(box: Bench) -> None:
    for name in ("one", "two"):
        directory = box.directory / name
        directory.mkdir()
        (directory / "which").write_text(name)
    rootfs = box.overlay()
    rootfs.lowers = [str(box.directory / "two"), str(box.directory / "one"), *rootfs.lowers]
    assert box.shell("cat /which", rootfs=rootfs) == "two"


def test_a_root_without_an_upper_directory_cannot_be_written(box: Bench) -> None:
    (box.directory / "empty").mkdir(exist_ok=True)
    for lowers in ([str(box.directory / "empty"), str(box.lower)],):
        assert "Read-only" in box.shell("touch /x 2>&1 || true", rootfs=RootFs(lowers))


def test_two_hundred_layers_are_no_problem(box: Bench) -> None:
    rootfs = box.overlay()
    layers = []
    for number in range(200):
        directory = box.directory / f"a rather long name, with comma and colon: {number:04}"
        directory.mkdir()
        (directory / f"f{number}").touch()
        layers.append(str(directory))
    rootfs.lowers = [*layers, *rootfs.lowers]
    assert box.shell("ls / | grep -c '^f[0-9]'", rootfs=rootfs).strip() == "200"
