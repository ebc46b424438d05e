"""Sandbox, networks, containers and stores on vfat and others, on Debian's own kernel, in a virtual machine that has cgroup v2 only (see `tools/vm`)."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import REPOSITORY

pytestmark = [pytest.mark.linux, pytest.mark.slow, pytest.mark.timeout(5400)]


@pytest.mark.parametrize(
    "part",
    [
        "tests/linux/sandbox",
        "tests/linux/networks",
        "tests/linux/containers",
        "tests/linux/builder/test_file_systems.py",
    ],
)
def test_all_passes_on_a_kernel_with_cgroup_v2_only(part: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "tools/vm", "-m", "linux and not slow", part],
        capture_output=True,
        text=True,
        timeout=5000,
        check=False,
        errors="replace",
    )
    assert "controllers: cpuset cpu io memory" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.returncode == 0, done.stdout[-8000:]
