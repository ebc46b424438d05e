"""Measure `pipe` beside docker, podman, buildah and crun, and print a Markdown table of ratios.

Each row alternates the tools run by run, after one round that is not counted; before a cold run images and caches of the
round before are removed on every side, and before every run the disks are synced. A peer is a command line, because it
may live in another root or be a client of a daemon elsewhere:

    python -m bench --docker 'sudo docker' --podman podman --buildah buildah --crun crun \\
        --docker-oci 'docker -H unix:///run/docker-c8d.sock' --dockerd-pid "$(pidof dockerd)" --work DIR --root STORE

Peers that are not named are left out; one that fails is shown with its reason. --docker-oci is a docker whose images lie
in containerd, the only kind that writes OCI archives. --dockerd-pid adds the daemon's peak memory to docker's.

--work holds the contexts (2 GB; with --scaling 1 GB more) and takes the archives that are written; all tools must see it
under the same path. --root is pipe's store. Put every store, and best --work too, on the same kind of file system with a
journal, such as ext4 in a loop file: on ext4 without one, creating files is ten times as slow for minutes after
many were deleted, which charges whoever comes next. Nothing else should run meanwhile.

--scaling measures pipe alone at 1,000 to 100,000 files and 10 to 500 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from bench.measure import RunFailed, Series, alternate, ratio, run_once
from bench.memory import Daemon
from bench.rows import MINE, PLANS, Bench, Row, clean
from bench.scaling import memory_of, scaling

_COLUMNS = ("docker", "podman", "buildah")
_START = "container-start"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pipe-bench"), metavar="DIR")
    parser.add_argument("--root", default="", metavar="STORE", help="default: below --work")
    parser.add_argument("--busybox", type=Path, default=Path("/bin/busybox"), help="a static one")
    for peer in ("docker", "docker-oci", "podman", "buildah", "crun"):
        parser.add_argument(f"--{peer}", default="", metavar="COMMAND")
    parser.add_argument("--dockerd-pid", type=int, metavar="PID")
    parser.add_argument("--docker-oci-pid", type=int, metavar="PID")
    parser.add_argument("--runs", type=int, default=7, help="counted rounds; the largest rows do fewer")
    rows = ", ".join([*(plan.name for plan in PLANS), _START])
    parser.add_argument("--only", default="", metavar="ROW,…", help=f"of {rows}")
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    options.root = options.root or str(options.work / "store")
    return options


def main() -> int:
    options = parse()
    bench = Bench(options)
    refused = prepare_tools(bench)
    print(
        f"kernel {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True
    )
    if options.scaling:
        scaling(bench, lambda text: print(text, flush=True))
        return 0
    print(f"{options.runs} runs\n")
    print(
        "| work | pipe: median; memory: largest process, all | pipe/docker | pipe/podman | pipe/buildah | goal |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    pids = {"docker": options.dockerd_pid, "docker-oci": options.docker_oci_pid}
    daemons = {tool: Daemon(pid) for tool, pid in pids.items() if pid}
    chosen = [name for name in options.only.split(",") if name]
    for plan in PLANS:
        if not chosen or plan.name in chosen:
            print(measure(plan.make(bench), options.runs, daemons, refused), flush=True)
    if not chosen or _START in chosen:
        start_row(options)
    clean(bench)
    print(f"\nThis process took {own_peak():.0f} MiB: smaller peaks cannot be told.", flush=True)
    return 0


def own_peak() -> float:
    """MiB that our own process ever held; the kernel counts them as held by a child until it executes its program."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare_tools(bench: Bench) -> dict[str, str]:
    """Have every tool build the base image; those that cannot, and why."""
    refused = {}
    for tool, command in bench.base_builds().items():
        try:
            run_once(command)
        except (RunFailed, OSError) as error:
            refused[tool] = str(error)
    return refused


def measure(row: Row, runs: int, daemons: dict[str, Daemon], refused: dict[str, str]) -> str:
    """The row's line."""
    commands = {tool: command for tool, command in row.commands.items() if tool not in refused}
    series = alternate(commands, row.prepare, min(runs, row.runs or runs), daemons)
    series |= {tool: Series("", failure=refused[tool]) for tool in row.commands if tool in refused}
    ours = series[MINE]
    together = 0.0
    if not ours.failure:
        row.prepare(MINE)
        try:
            together = memory_of(ours.command)
        except RunFailed as error:
            ours.failure = str(error)
    for tool in commands:
        row.prepare(tool)
    return line(row, series, together)


def line(row: Row, series: dict[str, Series], together: float) -> str:
    ours = series[MINE]
    goal = f"≤ {row.goal:.3g} of {row.peer}"
    if ours.failure:
        return f"| {row.name} | {_not_measured(ours)} | - | - | - | {goal} |"
    cells = [f"{_time(ours.median)}; {ours.peak:.0f}, {together:.0f} MiB"]
    for column in _COLUMNS:
        theirs = series.get(row.peer if row.peer.startswith(column) else column)
        cells.append(_beside(ours, theirs) if theirs else "-")
    return f"| {row.name} | " + " | ".join([*cells, goal]) + " |"


def _beside(ours: Series, theirs: Series) -> str:
    if theirs.failure:
        return _not_measured(theirs)
    daemon = f", daemon {max(theirs.daemon):.0f}" if theirs.daemon else ""
    return f"{ratio(ours, theirs):.2f} ({_time(theirs.median)}; {theirs.peak:.0f}{daemon} MiB)"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _not_measured(series: Series) -> str:
    reason = " ".join(series.failure.split()).replace("|", "\\|")
    return f"not measured: {reason}"


def start_row(options: argparse.Namespace) -> None:
    """Container start to exit in a warm process against crun; needs root, and a process that has mounted nothing."""
    if not options.crun:
        return
    command = [sys.executable, "-m", "bench.container_start", "--runtime", options.crun, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(
            f"| {_START} | not measured: {done.stderr.strip()[-400:]} | - | - | - | ≤ 1 of crun |", flush=True
        )
        return
    row = json.loads(done.stdout)
    print(
        f"| {_START} | {row['ours_ms']:.1f} ms; {row['spawner_peak_kib'] / 1024:.0f} MiB | - | - | - |"
        f" ≤ 1 of crun: {row['ratio']:.2f} ({row['peer_ms']:.1f} ms) |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
