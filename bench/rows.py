"""The rows of the table: what each tool is told to do, what is put right before every run, and the goal.

A row names its context, so the gigabyte is only written when its row is asked for. Cold rows begin with neither the
image of the round before nor a cached step, on every side.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import contexts
from bench.contexts import BASE, Maker, make_context
from bench.measure import Prepare, run_quietly

MINE = "pipe"
_GIB = 1 << 30
_BUILD = {"buildah": "bud --layers", "podman": "build --layers"}
Commands = dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """`commands` by tool; `goal` is the largest ratio to `peer`'s time."""

    name: str
    peer: str
    goal: float
    commands: Commands
    prepare: Prepare
    runs: int = 0  # at most; 0: as many as asked for


@dataclass(frozen=True, slots=True)
class Plan:
    """A row that can be made: `make` writes its context."""

    name: str
    make: Callable[[Bench], Row]


class Bench:
    """The tools, by name, as command lines, and where their contexts lie."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.work: Path = options.work
        own = f"{Path(sys.executable).parent / 'pipe'} --root {options.root} --progress quiet"
        named = {
            "docker": options.docker,
            "docker-oci": options.docker_oci,
            "podman": options.podman,
            "buildah": options.buildah,
        }
        self.tools = {MINE: own} | {tool: command for tool, command in named.items() if command}
        self._busybox: Path = options.busybox

    def context(self, name: str, maker: Maker) -> Path:
        return make_context(self.work / name, maker)

    def only(self, *names: str) -> Commands:
        """Our command and those of the peers named that are there."""
        return {tool: command for tool, command in self.tools.items() if tool in (MINE, *names)}

    def base_builds(self) -> Commands:
        """How each tool makes the base image; podman has buildah's."""
        place = self.context("base", contexts.base(self._busybox))
        return {tool: build(tool, command, f"-t {BASE} {place}") for tool, command in self.tools.items()}

    def builds(self, context: Path, flags: str = "") -> Commands:
        arguments = f"{flags} -t {tag(context)} {context}"
        tools = self.only("docker", "buildah")
        return {tool: build(tool, command, arguments) for tool, command in tools.items()}

    def forget(self, context: Path) -> Prepare:
        """Have no tool know of the image, nor of any step."""

        def prepare(tool: str) -> None:
            command = self.tools[tool]
            run_quietly(f"{command} rmi -f {tag(context)}")
            if tool == MINE:
                run_quietly(f"{command} image prune --force")
                run_quietly(f"{command} cache prune --all --force")
            elif tool.startswith("docker"):
                run_quietly(f"{command} builder prune -af")

        return prepare


def tag(context: Path) -> str:
    return f"localhost/bench/{context.name}:1"


def build(tool: str, command: str, arguments: str) -> str:
    return f"{command} {_BUILD.get(tool, 'build')} {arguments}"


def nothing(tool: str) -> None:
    """Preparation of rows that need none."""


def _cached(bench: Bench) -> Row:
    context = bench.context("mix10", contexts.mixed)
    return Row("cached-mix10", "docker", 1 / 4, bench.builds(context), nothing)


def _unchanged(bench: Bench) -> Row:
    context = bench.context("tree20k", contexts.tree(contexts.FILES))
    return Row("nochange20k", "docker", 1 / 4, bench.builds(context), nothing)


def _one_changed(bench: Bench) -> Row:
    # A context of its own: the others stay as they were made.
    context = bench.context("touch20k", contexts.tree(contexts.FILES))

    def change(tool: str) -> None:
        contexts.change_one(context, secrets.token_hex(16))

    return Row("touch1-20k", "docker", 1 / 8, bench.builds(context), change)


def _cold(name: str, maker: Maker, goal: float, runs: int = 0) -> Plan:
    def make(bench: Bench) -> Row:
        context = bench.context(name, maker)
        return Row(name, "docker", goal, bench.builds(context, "--no-cache"), bench.forget(context), runs)

    return Plan(name, make)


def _archive(name: str, source: str, maker: Maker, goal: float, runs: int = 0) -> Plan:
    """Build without a cache and write an OCI archive: in buildah's case two commands."""

    def make(bench: Bench) -> Row:
        context, out = bench.context(source, maker), bench.work / "out.tar"
        commands = {
            tool: build(tool, command, f"--no-cache --output type=oci,dest={out} {context}")
            for tool, command in bench.only("docker-oci").items()
        }
        if buildah := bench.tools.get("buildah"):
            steps = build("buildah", buildah, f"--no-cache -t {tag(context)} {context}")
            commands["buildah"] = f"sh -c '{steps} && {buildah} push {tag(context)} oci-archive:{out}'"
        cold = bench.forget(context)

        def prepare(tool: str) -> None:
            out.unlink(missing_ok=True)
            cold(tool)

        return Row(name, "docker-oci", goal, commands, prepare, runs)

    return Plan(name, make)


def _run(bench: Bench) -> Row:
    commands = {
        tool: f"{command} run --rm {BASE} true" for tool, command in bench.only("docker", "podman").items()
    }
    return Row("run-rm", "podman", 1 / 2, commands, nothing)


PLANS = (
    Plan("cached-mix10", _cached),
    Plan("nochange20k", _unchanged),
    Plan("touch1-20k", _one_changed),
    _cold("tree20k", contexts.tree(contexts.FILES), 1 / 5),
    _cold("run10", contexts.steps(10), 1 / 10),
    _cold("run5k", contexts.many_written, 1 / 3),
    _cold("big1g", contexts.one_file(_GIB), 1 / 4, runs=3),
    _archive("oci20k", "tree20k", contexts.tree(contexts.FILES), 1 / 5, runs=3),
    _archive("oci1g", "big1g", contexts.one_file(_GIB), 1 / 5, runs=2),
    Plan("run-rm", _run),
)


def clean(bench: Bench) -> None:
    """Leave no archive behind."""
    for path in bench.work.glob("out.tar*"):
        os.unlink(path)
