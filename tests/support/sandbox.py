"""A root file system of one static busybox, and short ways to run something in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.plan import ExitInfo, Json, Plan, RootFs
from runtime.sandbox.spawner import Spawner

BUSYBOX = "/bin/busybox"


def busybox_rootfs(directory: Path) -> Path:
    """Fill `directory` with /bin/busybox, a link per applet, and /etc with root, a user and a group; returns it."""
    if not os.path.exists(BUSYBOX):
        pytest.skip("no /bin/busybox (package busybox-static)")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/alice"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if name != "busybox":
            (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n")
    os.chown(directory / "home/alice", 1000, 1000)
    return directory


class Bench:
    """One root, one spawner: run commands and see what came out."""

    def __init__(self, directory: Path, spawner: Spawner) -> None:
        self.spawner = spawner
        self.directory = directory
        self.lower = busybox_rootfs(directory / "lower")
        self.count = 0

    def overlay(self) -> RootFs:
        """A fresh writable root over the busybox layer."""
        self.count += 1
        upper, work = self.directory / f"upper{self.count}", self.directory / f"work{self.count}"
        upper.mkdir()
        work.mkdir()
        return RootFs([str(self.lower)], str(upper), str(work))

    def plan(
        self, *args: str, config: Json | None = None, rootfs: RootFs | None = None, **more: object
    ) -> Plan:
        return Plan(config or defaults.config(list(args)), rootfs or self.overlay(), **more)  # type: ignore[arg-type]

    def run(self, plan: Plan, timeout: float = 60) -> tuple[ExitInfo, str]:
        """Run to the end; what it wrote to either stream."""
        with open(self.directory / f"out{self.count}", "w+b") as output:
            process = self.spawner.create(plan, -1, output.fileno(), output.fileno())
            info = process.wait(timeout)
            if info is None:
                process.kill(9)
                pytest.fail(f"still running after {timeout} s: {plan.config['process']['args']}")
            output.seek(0)
            return info, output.read().decode()

    def shell(self, script: str, config: Json | None = None, **more: object) -> str:
        """The output of a script that must succeed."""
        configuration = config or defaults.config([])
        configuration["process"]["args"] = ["/bin/sh", "-c", script]
        info, output = self.run(self.plan(config=configuration, **more))
        assert info.code == 0, f"{info} {output}"
        return output
