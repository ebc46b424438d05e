"""Start to exit of `true` in a full container: the native sandbox against an OCI runtime with an equal bundle.

    python -m bench.container_start [--runtime crun] [--rounds 60] [--json]

Both get the same root (busybox, overlay on our side and the merged directory for the runtime, which mounts none), all
default mounts, masks, capabilities, seccomp, device rules and limits, and namespaces for mount, pid, network, ipc,
uts and cgroup. The two alternate; medians, their ratio, and the spawner's peak memory are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runtime.linux import mounts
from runtime.sandbox import defaults, seccomp
from runtime.sandbox.isolate import private_mounts
from runtime.sandbox.plan import Json, Plan, RootFs
from runtime.sandbox.spawner import Spawner

BUSYBOX = "/bin/busybox"


def make_root(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    (directory / "bin/true").symlink_to("busybox")
    for name in ("proc", "sys", "dev", "etc", "tmp"):
        (directory / name).mkdir()
    return directory


def configuration() -> Json:
    config = defaults.config(["/bin/true"], hostname="bench")
    config["linux"]["resources"] |= {
        "memory": {"limit": 256 << 20},
        "pids": {"limit": 100},
        "cpu": {"shares": 512},
    }
    return config


def hide_hybrid_cgroups() -> None:
    """crun refuses v1 hosts that also mount a cgroup2 tree with controllers; here both sides see a plain v1 host."""
    private_mounts()
    while os.path.ismount("/sys/fs/cgroup/unified"):
        mounts.umount("/sys/fs/cgroup/unified", mounts.MNT_DETACH)


class Native:
    def __init__(self, directory: Path) -> None:
        self.spawner = Spawner.start()
        self.directory = directory
        self.program = seccomp.program(str(directory / "seccomp"), defaults.CAPABILITIES)
        self.count = 0

    def run(self) -> float:
        self.count += 1
        upper, work = self.directory / f"upper{self.count}", self.directory / f"work{self.count}"
        upper.mkdir()
        work.mkdir()
        root = RootFs([str(self.directory / "lower")], str(upper), str(work))
        start = time.perf_counter()
        info = self.spawner.create(Plan(configuration(), root, seccomp=self.program)).wait()
        elapsed = time.perf_counter() - start
        if info is None or info.code != 0:
            sys.exit(f"native: {info}")
        return elapsed

    def peak_kib(self) -> int:
        status = Path(f"/proc/{self.spawner.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


class Runtime:
    """`crun run` and the like: a process per container, as every caller of an OCI runtime pays it."""

    def __init__(self, directory: Path, command: str) -> None:
        self.command = command
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        config = configuration()
        config["root"]["path"] = str(directory / "lower")
        config["linux"]["seccomp"] = seccomp.resolve(seccomp.default_profile(), defaults.CAPABILITIES)
        (self.bundle / "config.json").write_text(json.dumps(config))
        self.count = 0

    def run(self) -> float:
        self.count += 1
        name = f"pipe-bench-{os.getpid()}-{self.count}"
        start = time.perf_counter()
        result = subprocess.run(
            [self.command, "run", "--bundle", str(self.bundle), name], stdin=subprocess.DEVNULL
        )
        elapsed = time.perf_counter() - start
        if result.returncode:
            sys.exit(f"{self.command}: exit {result.returncode}")
        return elapsed


def alternate(rounds: int, *runs: Callable[[], float]) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 3):
        for position, run in enumerate(runs):
            elapsed = run()
            if number >= 3:  # the first warm caches up, on both sides
                times[position].append(elapsed)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runtime", default="crun")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipe-bench-") as name:
        directory = Path(name)
        make_root(directory / "lower")
        hide_hybrid_cgroups()
        native = Native(directory)
        peer = Runtime(directory, options.runtime)
        with native.spawner:
            ours, theirs = alternate(options.rounds, native.run, peer.run)
            peak = native.peak_kib()
    mine, other = (statistics.median(times) * 1000 for times in (ours, theirs))
    if options.json:
        print(
            json.dumps(
                {
                    "ours_ms": mine,
                    "peer_ms": other,
                    "ratio": mine / other,
                    "peer": options.runtime,
                    "spawner_peak_kib": peak,
                }
            )
        )
        return
    print(
        f"{'pipe':>8} {mine:7.2f} ms (fastest {min(ours) * 1000:.2f})   spawner's peak {peak / 1024:.0f} MiB"
    )
    print(
        f"{options.runtime:>8} {other:7.2f} ms (fastest {min(theirs) * 1000:.2f})   ratio {mine / other:.2f}"
    )


if __name__ == "__main__":
    main()
