"""The same plans under Debian's crun: the same facts inside, the same results outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.cgroup import detect
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.oci_runtime import OciRuntime
from runtime.sandbox.plan import ExitInfo, Plan
from runtime.sandbox.spawner import Spawner
from tests.support.sandbox import Bench, busybox_rootfs

pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.skipif(not shutil.which("crun"), reason="no crun"),
]


@pytest.fixture
def crun(box: Bench, tmp_path: Path) -> Iterator[OciRuntime]:
    # A spawner of its own: when it ends, so does what a failed test left.
    with Spawner.start() as spawner:
        yield OciRuntime(spawner, "crun", str(tmp_path / "state"))


def run(crun: OciRuntime, plan: Plan, directory: Path) -> tuple[ExitInfo, str]:
    with open(directory / "output", "w+b") as output:
        process = crun.create(plan, -1, output.fileno(), output.fileno())
        info = process.wait(60)
        assert info is not None
        output.seek(0)
        return info, output.read().decode()


FACTS = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; hostname; pwd; echo $HOME; umask; ls /dev / | grep -v core"
MOUNTS = "cut -d' ' -f5,6 /proc/self/mountinfo | grep -v /sys/fs/cgroup/ | sort"


def test_both_give_the_program_the_same_identity_and_limits(
    box: Bench, crun: OciRuntime, seccomp_program: str, tmp_path: Path
) -> None:
    config = defaults.config(["sh", "-c", FACTS], hostname="same", cwd="/tmp")
    config["process"]["user"] = {"username": "alice"}
    native = box.run(box.plan(config=config, seccomp=seccomp_program))
    foreign = run(crun, box.plan(config=config, seccomp=seccomp_program), tmp_path)
    assert foreign == native
    assert native[0].code == 0 and "Seccomp:\t2" in native[1]


def test_both_make_the_same_mounts(box: Bench, crun: OciRuntime, tmp_path: Path) -> None:
    config = defaults.config(["sh", "-c", MOUNTS])
    data = tmp_path / "data"
    data.mkdir()
    mount = {"destination": "/data", "type": "bind", "source": str(data), "options": ["rbind", "ro"]}
    config["mounts"].append(mount)
    native, foreign = box.run(box.plan(config=config))[1], run(crun, box.plan(config=config), tmp_path)[1]
    ours, theirs = (dict(line.split() for line in text.splitlines()) for text in (native, foreign))
    # crun binds the host's nodes when it must; both mask what exists and nothing else.
    assert set(ours) == set(theirs)
    for place in (
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/data",
        "/proc/sys",
        "/proc/irq",
    ):
        assert _flags(ours[place]) >= _flags(theirs[place]), place  # crun forgets nosuid of /proc/sys


def _flags(text: str) -> set[str]:
    return set(text.split(",")) - {"relatime"}


def test_what_the_container_wrote_is_still_there_when_it_has_ended(
    box: Bench, crun: OciRuntime, tmp_path: Path
) -> None:
    rootfs = box.overlay()
    info, _ = run(crun, box.plan("sh", "-c", "echo kept > /kept", rootfs=rootfs), tmp_path)
    assert info.code == 0
    names = {name for _, directories, files in os.walk(rootfs.upper) for name in (*directories, *files)}
    assert "kept" in names and not names & {"busybox", "passwd", "alice"}  # no whiteouts either
    plain = tmp_path / "plain"
    busybox_rootfs(plain)
    before = sorted(str(path) for path in plain.rglob("*"))
    config = defaults.config(["true"])
    config["root"]["path"] = str(plain)
    plan = box.plan(config=config)
    plan.rootfs = None
    assert run(crun, plan, tmp_path)[0].code == 0
    assert set(before) <= {str(path) for path in plain.rglob("*")}


def test_exit_codes_and_missing_programs_are_told_the_same_way(
    box: Bench, crun: OciRuntime, tmp_path: Path
) -> None:
    assert run(crun, box.plan("sh", "-c", "exit 42"), tmp_path)[0].code == 42
    missing = run(crun, box.plan("no-such-program"), tmp_path)[0]
    assert missing.code == 127 and "no-such-program" in missing.error


def test_it_can_be_paused_released_and_killed(box: Bench, crun: OciRuntime) -> None:
    process = crun.create(box.plan("sleep", "600"), pause=True)
    assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    process.release()
    process.kill(signal.SIGKILL)
    info = process.wait(60)
    assert info is not None and info.code == 137


def test_a_terminal_is_handed_over(box: Bench, crun: OciRuntime) -> None:
    config = defaults.config(["sh", "-c", "tty"])
    config["process"]["terminal"] = True
    process = crun.create(box.plan(config=config))
    assert b"/dev/pts/0" in os.read(process.terminal, 100)
    process.wait(60)
    os.close(process.terminal)


def test_init_works_there_too(box: Bench, crun: OciRuntime, tmp_path: Path) -> None:
    info, output = run(crun, box.plan("sh", "-c", "echo $$; exit 3", init=True), tmp_path)
    assert (info.code, output) == (3, "2\n")


def test_a_container_the_runtime_refuses_leaves_nothing(box: Bench, crun: OciRuntime, tmp_path: Path) -> None:
    config = defaults.config(["true"])
    missing = {"type": "network", "path": "/no/such/namespace"}
    config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}, missing]
    name = f"pipe-{os.urandom(6).hex()}"
    with pytest.raises(SandboxError, match="crun"):
        crun.create(box.plan(config=config), name=name)
    crun.starter.close()  # type: ignore[attr-defined]
    assert not os.path.exists(tmp_path / "state/bundles" / name)
    assert not [path for path in detect().cgroup(name).directories if os.path.exists(path)]
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if name in _text(path)]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_an_unknown_runtime_is_refused(box: Bench) -> None:
    with pytest.raises(SandboxError, match="no-such-runtime"):
        OciRuntime(box.spawner, "no-such-runtime", "/nowhere").create(box.plan("true"))


SHIM = """
import sys
sys.path.insert(0, sys.argv[1])
from runtime.sandbox import defaults
from runtime.sandbox.oci_runtime import EmbeddedRuntime
from runtime.sandbox.plan import Plan, RootFs

with EmbeddedRuntime("crun", sys.argv[3]) as runtime:
    plan = Plan(defaults.config(["sh", "-c", "echo hello; sleep 600"]), RootFs([sys.argv[2]]))
    process = runtime.create(plan, 0, 1, 2, pause=True)
    process.release()
    joined = runtime.join(process.pid, defaults.config(["sh", "-c", "exit 4"])["process"])
    assert joined.wait(60).code == 4
    process.kill(9)
    sys.exit(process.wait(60).code)
"""


def test_a_process_with_one_thread_and_no_spawner_can_use_it(box: Bench, tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, "-c", SHIM, root, str(box.lower), str(tmp_path / "state")]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False, cwd=root
    )
    assert (result.stdout, result.returncode) == (b"hello\n", 137), result.stderr.decode()
