"""What is refused before anything is created, and how values become kernel words. No root needed."""

from __future__ import annotations

import json
import struct

import pytest

from runtime.linux import mounts as linux
from runtime.sandbox import capabilities, defaults, seccomp
from runtime.sandbox.cgroup import v2
from runtime.sandbox.cgroup.device_program import assemble
from runtime.sandbox.cgroup.devices import rule_text
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.mounts import Bind, CgroupV1, FileSystem, Options, parse_mount
from runtime.sandbox.plan import Plan, RootFs, check_plan
from runtime.sandbox.program import find_program
from runtime.sandbox.user import resolve_user

PASSWD = b"root:x:0:0:root:/root:/bin/sh\n# a comment: with: colons: and: more: of: them\nalice:x:1000:100::/home/alice:/bin/sh\nbroken\n1001:x:7:7::/seven:\n"
GROUP = b"root:x:0:\nusers:x:100:\nstaff:x:50:alice,bob\nwheel:x:10:root,alice\n"


def read(path: str, limit: int) -> bytes:
    assert limit > 0
    return {"/etc/passwd": PASSWD, "/etc/group": GROUP}[path]


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, [0, 10], "/root"),
        ("alice", 1000, 100, [100, 50, 10], "/home/alice"),
        ("1000", 1000, 100, [100, 50, 10], "/home/alice"),
        ("alice:staff", 1000, 50, [50], "/home/alice"),
        ("alice:7", 1000, 7, [7], "/home/alice"),
        ("alice:", 1000, 100, [100, 50, 10], "/home/alice"),
        ("5:6", 5, 6, [6], "/"),
        ("1001", 7, 7, [7], "/seven"),  # a name that looks like a number is still a name
    ],
)
def test_users_are_resolved_by_name_and_number(
    text: str, uid: int, gid: int, groups: list[int], home: str
) -> None:
    identity = resolve_user(text, [], read)
    assert (identity.uid, identity.gid, identity.groups, identity.home) == (uid, gid, groups, home)


def test_additional_groups_are_added_once() -> None:
    assert resolve_user("alice", ["wheel", "77"], read).groups == [100, 50, 10, 77]


@pytest.mark.parametrize("text", ["bob", "alice:nobody", "-1", "99999999999", "¹"])
def test_an_unknown_user_or_group_is_bad_input(text: str) -> None:
    with pytest.raises(SandboxError) as caught:
        resolve_user(text, [], read)
    assert caught.value.kind == "input"


def test_plans_survive_their_way_through_a_socket() -> None:
    plan = Plan(
        defaults.config(["true"]), RootFs(["/a", "/b"], "/u", "/w", True), [{"name": "eth0"}], [], init=True
    )
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("process.args", ["a\0b"], "not a string"),
        ("process.args", [1], "not a string"),
        ("process.scheduler", {"policy": "SCHED_BATCH"}, "process.scheduler"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "user namespaces"),
        ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "pid"}, {"type": "pid"}], "twice"),
        ("hooks", {"poststop": [{"path": "/x"}]}, "poststop"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(path: str, value: object, message: str) -> None:
    config = defaults.config(["true"])
    *above, last = path.split(".")
    place = config
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(SandboxError, match=message):
        check_plan(Plan(config))


def test_a_host_name_needs_a_uts_namespace() -> None:
    config = defaults.config(["true"], hostname="x")
    config["linux"]["namespaces"] = [{"type": "mount"}]
    with pytest.raises(SandboxError, match="UTS"):
        check_plan(Plan(config))


def test_mount_options_become_attributes_flags_and_data() -> None:
    options = Options(["nosuid", "noexec", "ro", "relatime", "size=64k", "mode=755", "sync"], "/x")
    assert (
        options.flags & linux.MS_NOSUID
        and options.flags & linux.MS_RDONLY
        and options.flags & linux.MS_SYNCHRONOUS
    )
    assert options.add == linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC | linux.MOUNT_ATTR_RDONLY
    assert options.data == ["size=64k", "mode=755"]


def test_the_last_of_two_opposite_options_wins() -> None:
    assert not Options(["ro", "rw"], "/x").flags & linux.MS_RDONLY
    assert Options(["rw", "ro"], "/x").add & linux.MOUNT_ATTR_RDONLY
    options = Options(["bind", "nosuid", "suid"], "/x")
    assert options.clear & linux.MOUNT_ATTR_NOSUID and not options.add & linux.MOUNT_ATTR_NOSUID


def test_recursive_options_and_propagation_are_kept_apart() -> None:
    options = Options(["rbind", "rro", "rslave"], "/x")
    assert options.recursive and options.recursive_add == linux.MOUNT_ATTR_RDONLY and options.add == 0
    assert options.propagation == linux.MS_SLAVE and options.propagation_recursive


def test_mount_entries_describe_themselves() -> None:
    assert (
        parse_mount({"destination": "/proc", "type": "proc", "source": "proc"}, []).describe()
        == "mount proc on /proc"
    )
    bind = parse_mount({"destination": "/d", "source": "/s", "options": ["rbind", "ro"]}, [])
    assert isinstance(bind, Bind) and bind.describe() == "bind /s on /d read-only"
    cgroup = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    assert isinstance(parse_mount(cgroup, [("memory", "memory")]), CgroupV1)
    unified = parse_mount(cgroup, [])
    assert isinstance(unified, FileSystem) and unified.kind == "cgroup2"


@pytest.mark.parametrize(
    "entry",
    [
        {"destination": "/d", "source": "relative", "options": ["bind"]},
        {"destination": "/d", "source": "/s"},
        {"destination": "/d", "source": "/s", "options": ["bind", "idmap"]},
    ],
)
def test_mount_entries_that_mean_nothing_are_refused(entry: dict[str, object]) -> None:
    with pytest.raises(SandboxError):
        parse_mount(entry, [])


def test_capability_names_are_bits_and_back() -> None:
    assert capabilities.mask(defaults.CAPABILITIES) == 0xA80425FB
    assert capabilities.names_of(0x2000) == ["CAP_NET_RAW"]
    with pytest.raises(SandboxError, match="CAP_FLY"):
        capabilities.mask(["CAP_FLY"])


def test_device_rules_in_the_words_of_version_one() -> None:
    assert [rule_text(rule) for rule in defaults.device_rules()][:4] == [
        "a",
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
    ]
    assert rule_text({"allow": True, "type": "a", "access": "rw"}) == "a *:* rw"


def decide(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run the few BPF instructions the device program uses."""
    code = list(struct.iter_unpack("=BBhi", program))
    registers, memory, at = [0] * 11, (access << 16 | kind, major, minor), 0
    while True:
        operation, pair, offset, value = code[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if operation == 0x61:
            registers[target] = memory[offset // 4]
        elif operation == 0xB7:
            registers[target] = value
        elif operation == 0xBF:
            registers[target] = registers[source]
        elif operation == 0x57:
            registers[target] &= value
        elif operation == 0x77:
            registers[target] >>= value
        elif operation == 0x55:
            at += offset if registers[target] != value else 0
        elif operation == 0x5D:
            at += offset if registers[target] != registers[source] else 0
        else:
            assert operation == 0x95
            return registers[0]


MKNOD, READ, WRITE, BLOCK, CHARACTER = 1, 2, 4, 1, 2


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        (CHARACTER, READ | WRITE, 1, 3, 1),
        (CHARACTER, READ, 136, 42, 1),
        (CHARACTER, MKNOD, 10, 200, 1),
        (BLOCK, MKNOD, 8, 0, 1),
        (CHARACTER, READ, 10, 200, 0),
        (CHARACTER, READ | MKNOD, 10, 200, 0),
        (BLOCK, READ, 8, 0, 0),
        (BLOCK, READ | WRITE, 1, 3, 0),
    ],
)
def test_the_device_program_decides_like_the_list(
    kind: int, access: int, major: int, minor: int, allowed: int
) -> None:
    assert decide(assemble(defaults.device_rules()), kind, access, major, minor) == allowed


def test_a_privileged_list_allows_everything() -> None:
    assert decide(assemble([{"allow": True, "access": "rwm"}]), BLOCK, READ, 8, 0) == 1


def test_limits_in_the_words_of_version_two() -> None:
    resources = {
        "memory": {"limit": 1 << 20, "reservation": 1 << 19, "swap": 3 << 20},
        "cpu": {"shares": 1024, "quota": 50000, "cpus": "0"},
        "pids": {"limit": -1},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
        "unified": {"memory.high": "900000"},
    }
    assert v2.settings(resources) == [
        ("memory", "memory.max", "1048576"),
        ("memory", "memory.low", "524288"),
        ("memory", "memory.swap.max", "2097152"),
        ("cpu", "cpu.weight", "39"),
        ("cpu", "cpu.max", "50000 100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "max"),
        ("io", "io.max", "8:0 rbps=5"),
        ("memory", "memory.high", "900000"),
    ]
    assert (v2.cpu_weight(2), v2.cpu_weight(262144)) == (1, 10000)


def test_swap_less_than_memory_is_refused() -> None:
    with pytest.raises(SandboxError, match="less than"):
        v2.settings({"memory": {"limit": 100, "swap": 50}})


def test_the_default_profile_depends_on_capabilities_machine_and_kernel() -> None:
    profile = seccomp.default_profile()
    plain = seccomp.resolve(profile, defaults.CAPABILITIES, machine="x86_64", kernel=(6, 1))
    admin = seccomp.resolve(profile, ["CAP_SYS_ADMIN"], machine="x86_64", kernel=(6, 1))
    old = seccomp.resolve(profile, defaults.CAPABILITIES, machine="x86_64", kernel=(4, 4))
    arm = seccomp.resolve(profile, defaults.CAPABILITIES, machine="aarch64", kernel=(6, 1))
    assert "mount" not in _allowed(plain) and "mount" in _allowed(admin)
    assert "ptrace" in _allowed(plain) and "ptrace" not in _allowed(old)
    assert "arch_prctl" in _allowed(plain) and "arch_prctl" not in _allowed(arm)
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def _allowed(resolved: dict[str, object]) -> set[str]:
    rules = resolved["syscalls"]
    assert isinstance(rules, list)
    return {
        name
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_compiled_profiles_are_kept_and_found_again(tmp_path: object) -> None:
    pytest.importorskip("pyseccomp")
    first = seccomp.program(str(tmp_path), defaults.CAPABILITIES)
    with open(first, "rb") as file:
        content = file.read()
    assert len(content) % 8 == 0 and 8 < len(content) // 8 <= 4096
    assert seccomp.program(str(tmp_path), reversed(defaults.CAPABILITIES)) == first
    assert seccomp.program(str(tmp_path), []) != first
    with open(first.removesuffix(".bpf") + ".json") as file:
        assert json.load(file)["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize(
    "profile",
    [{"defaultAction": "SCMP_ACT_DANCE"}, {"defaultAction": "SCMP_ACT_NOTIFY"}, {"syscalls": []}, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ODD"}]}]}],
)  # fmt: skip
def test_a_profile_that_makes_no_sense_is_bad_input(profile: dict[str, object], tmp_path: object) -> None:
    with pytest.raises(SandboxError) as caught:
        seccomp.program(str(tmp_path), [], profile)
    assert caught.value.kind == "input"


def test_commands_with_a_slash_are_taken_as_they_are() -> None:
    assert find_program("./x", {}) == "./x"
    assert find_program("sh", {"PATH": "/nowhere:/bin"}) == "/bin/sh"
