"""Measure `pipe` beside docker, podman, buildah and crun, and print a Markdown table of ratios.

Each row alternates the tools run by run. A peer is a command line, because it may live in another root or be a client
of a daemon elsewhere: `--docker 'sudo docker'`, `--podman podman`, `--buildah buildah`, `--crun crun`; those not named
are left out. `--work` must be visible to all of them under the same path, and `--root` should lie on the same kind of
file system as their stores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.contexts import BASE, make_contexts
from bench.measure import RunFailed, Series, alternate, ratio, run_once

GOALS = {  # row -> (peer, goal)
    "cached-mix10": ("docker", 1 / 3),
    "run10": ("docker", 1 / 8),
    "tree20k": ("docker", 1 / 4),
    "run-rm": ("podman", 1 / 2),
}


def tool_commands(options: argparse.Namespace) -> dict[str, str]:
    pipe = f"{Path(sys.executable).parent / 'pipe'} --root {options.root} --progress quiet"
    named = {"docker": options.docker, "podman": options.podman, "buildah": options.buildah}
    return {"pipe": pipe, **{tool: command for tool, command in named.items() if command}}


def build_command(tool: str, command: str, arguments: str) -> str:
    verb = "bud --layers" if tool == "buildah" else "build"
    return f"{command} {verb} {arguments}"


def build_row(tools: dict[str, str], context: Path, flags: str) -> dict[str, str]:
    tag = f"localhost/bench/{context.name}:1"
    builders = {tool: command for tool, command in tools.items() if tool != "podman"}
    return {
        tool: build_command(tool, command, f"{flags} -t {tag} {context}")
        for tool, command in builders.items()
    }


def forget(tools: dict[str, str], name: str) -> dict[str, str]:
    """Before a cold build: the image of the round before goes, and docker's build cache with it."""
    prepare = {tool: f"{command} rmi -f localhost/bench/{name}:1" for tool, command in tools.items()}
    if "docker" in tools:
        prepare["docker"] = (
            f"sh -c '{tools['docker']} rmi -f localhost/bench/{name}:1; {tools['docker']} builder prune -af'"
        )
    return prepare


def rows(tools: dict[str, str], work: Path) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Row -> (commands, preparations)."""
    run = {tool: f"{command} run --rm {BASE} true" for tool, command in tools.items() if tool != "buildah"}
    return {
        "cached-mix10": (build_row(tools, work / "mix10", ""), {}),
        "run10": (build_row(tools, work / "run10", "--no-cache"), forget(tools, "run10")),
        "tree20k": (build_row(tools, work / "tree20k", "--no-cache"), forget(tools, "tree20k")),
        "run-rm": (run, {}),
    }


def report(name: str, series: dict[str, Series]) -> str:
    ours = series["pipe"]
    cells = [f"{ours.median * 1000:.0f} ms, {ours.peak:.0f} MiB"]
    for peer in ("docker", "podman", "buildah"):
        if peer in series:
            theirs = series[peer]
            cells.append(f"{ratio(ours, theirs):.2f} ({theirs.median * 1000:.0f} ms, {theirs.peak:.0f} MiB)")
        else:
            cells.append("-")
    peer, goal = GOALS[name]
    cells.append(f"≤ {goal:.3g} of {peer}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/pipe-bench"), help="contexts, seen by all tools"
    )
    parser.add_argument("--root", default="", help="pipe's store (default: below --work)")
    parser.add_argument("--busybox", type=Path, default=Path("/bin/busybox"))
    for peer in ("docker", "podman", "buildah", "crun"):
        parser.add_argument(f"--{peer}", default="", metavar="COMMAND")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="", metavar="ROW")
    options = parser.parse_args()
    options.root = options.root or str(options.work / "store")
    make_contexts(options.work, options.busybox)
    tools = tool_commands(options)
    for tool, command in tools.items():
        run_once(build_command(tool, command, f"-t {BASE} {options.work / 'base'}"))
    print(
        f"kernel {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {options.runs} runs\n"
    )
    print("| work | pipe: median, peak memory | pipe/docker | pipe/podman | pipe/buildah | goal |")
    print("|---|---|---|---|---|---|")
    for name, (commands, prepare) in rows(tools, options.work).items():
        if options.only in ("", name):
            try:
                print(report(name, alternate(commands, prepare, options.runs)), flush=True)
            except RunFailed as error:
                print(f"| {name} | not measured: {error} |", flush=True)
    if options.only in ("", "container-start"):
        start_row(options)
    return 0


def start_row(options: argparse.Namespace) -> None:
    """Container start to exit in a warm process against crun; needs root, and a process that has mounted nothing."""
    if not options.crun:
        return
    command = [sys.executable, "-m", "bench.container_start", "--runtime", options.crun, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"| container-start | not measured: {done.stderr.strip()[-400:]} |", flush=True)
        return
    row = json.loads(done.stdout)
    print(
        f"| container-start | {row['ours_ms']:.1f} ms, {row['spawner_peak_kib'] / 1024:.0f} MiB | - | - | - |"
        f" ≤ 1 of crun: {row['ratio']:.2f} ({row['peer_ms']:.1f} ms) |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
