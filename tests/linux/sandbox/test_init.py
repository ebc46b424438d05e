"""The helper between Python and the program: `--init`, and what it keeps out of reach."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from runtime.sandbox import defaults, helper
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def test_with_init_the_program_is_not_process_one(box: Bench) -> None:
    info, output = box.run(box.plan("sh", "-c", "echo $$; cat /proc/1/comm; readlink /proc/1/exe", init=True))
    assert info.code == 0
    assert output.split()[0] == "2"
    assert "python" not in output and "memfd:pipe" in output


def test_init_reaps_orphans_and_ends_as_the_program_ends(box: Bench) -> None:
    # A zombie that nobody reaps keeps its name in /proc for ever, and this from ending.
    script = "(sleep 0.01 & exit 0); while grep -q '(sleep)' /proc/[0-9]*/stat; do usleep 5000; done 2>/dev/null; exit 9"
    info, output = box.run(box.plan("sh", "-c", script, init=True))
    assert (info.code, output) == (9, "")


def test_init_passes_signals_on(box: Bench) -> None:
    reader, writer = os.pipe()
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = box.spawner.create(box.plan("sh", "-c", script, init=True), -1, writer)
    os.close(writer)
    assert os.read(reader, 10) == b"ready\n"
    process.kill(signal.SIGTERM)
    info = process.wait(60)
    assert info is not None and info.code == 5
    os.close(reader)


def test_init_reports_death_by_signal_like_a_shell(box: Bench) -> None:
    info, _ = box.run(box.plan("sh", "-c", "kill -TERM $$", init=True))
    assert info.code == 128 + signal.SIGTERM


def test_a_missing_program_is_127_with_init_too(box: Bench) -> None:
    info, _ = box.run(box.plan("/no/such", init=True))
    assert info.code == 127 and "no such file" in info.error


def test_init_gives_the_terminal_to_the_program(box: Bench) -> None:
    config = defaults.config(
        ["sh", "-c", "trap 'echo interrupted; exit 7' INT; echo ready; while :; do read x; done"]
    )
    config["process"]["terminal"] = True
    process = box.spawner.create(box.plan(config=config, init=True))
    seen = b""
    while b"ready" not in seen:
        seen += os.read(process.terminal, 100)
    os.write(process.terminal, b"\x03")
    info = process.wait(60)
    os.close(process.terminal)
    assert info is not None and info.code == 7


@pytest.mark.parametrize("way", ["direct", "script"])
def test_a_container_cannot_execute_our_own_program_from_outside(box: Bench, way: str) -> None:
    """CVE-2019-5736: /proc/self/exe must never be a file of the host."""
    rootfs = box.overlay()
    command = "/proc/self/exe"
    if way == "script":
        command = "/trick"
        Path(f"{rootfs.upper}/trick").write_text("#!/proc/self/exe\n")
        os.chmod(f"{rootfs.upper}/trick", 0o755)
    config = defaults.config([command, "-c", "print('python runs')"])
    info, output = box.run(box.plan(config=config, rootfs=rootfs), timeout=60)
    assert "python runs" not in output
    assert info.code != 0


@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="no qemu-aarch64-static")
def test_the_helper_for_arm_runs_as_far_as_it_can_be_emulated(tmp_path: Path) -> None:
    program = Path(helper.__file__).parent / "helper.aarch64"
    shutil.copy(program, tmp_path / "helper")
    (tmp_path / "helper").chmod(0o755)
    command = ["qemu-aarch64-static", "-0", "pipe-exec", str(tmp_path / "helper"), "/no/such/program", "x"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 127


def test_the_helper_cannot_be_changed_by_anybody() -> None:
    descriptor = helper.load()
    if descriptor < 0:
        pytest.skip("none is built for this machine")
    try:
        with pytest.raises(PermissionError):
            os.write(descriptor, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
