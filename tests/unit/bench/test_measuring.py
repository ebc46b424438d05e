"""The bench itself: what is left out, what a failure does, how a table reads."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from bench import contexts
from bench.__main__ import line
from bench.contexts import make_context
from bench.measure import Series, alternate, ratio
from bench.memory import sampling
from bench.rows import PLANS, Bench, Row, nothing
from bench.scaling import Point, table

ROW = Row("some", "docker", 1 / 4, {}, nothing)


def test_a_tool_that_fails_takes_no_further_part_and_the_others_are_measured() -> None:
    prepared: list[str] = []
    series = alternate({"pipe": "true", "docker": "sh -c 'echo no daemon >&2; exit 3'"}, prepared.append, 2)
    assert prepared == ["pipe", "docker", "pipe", "pipe"]
    assert len(series["pipe"].wall) == len(series["pipe"].memory) == 2
    assert "exited 3: no daemon" in series["docker"].failure
    assert alternate({"podman": "/there/is/none"}, nothing, 1)["podman"].failure


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio(Series("", [1, 2, 30]), Series("", [10, 10, 10])) == 0.2


def test_a_row_says_why_a_peer_has_no_figure() -> None:
    ours, theirs = Series("", [0.1], [20.0]), Series("", [1.0], [50.0], daemon=[160.0, 150.0])
    failed = Series("", failure="'buildah bud' exited 1:\n no|space")
    assert line(ROW, {"pipe": ours, "docker": theirs, "buildah": failed}, 25.0) == (
        "| some | 100 ms; 20, 25 MiB | 0.10 (1000 ms; 50, daemon 160 MiB) | -"
        " | not measured: 'buildah bud' exited 1: no\\|space | ≤ 0.25 of docker |"
    )
    assert line(ROW, {"pipe": failed, "docker": theirs}, 0).startswith("| some | not measured: ")


def test_what_grows_is_told_apart_from_what_a_command_takes_anyway() -> None:
    rows = list(table("COPY", [Point(10, 1.0, 20, 21), Point(110, 2.0, 20, 21)]))
    assert rows[-2:] == [
        "| 10 | 1000 ms | 100000 µs | 1.00 | - | 20, 21 MiB |",
        "| 110 | 2000 ms | 18182 µs | 0.18 | 10000 µs | 20, 21 MiB |",
    ]


def test_a_context_is_made_once_and_has_always_the_same_bytes(tmp_path: Path) -> None:
    first = make_context(tmp_path / "a", contexts.tree(150))
    again = make_context(tmp_path / "b", contexts.tree(150))
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert len(names) == 151
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    contexts.change_one(first, "changed")
    assert make_context(tmp_path / "a", contexts.tree(150)) == first
    assert [name for name in names if (first / name).read_bytes() != (again / name).read_bytes()] == [
        "tree/d000/f000"
    ]


def test_every_row_has_a_command_of_ours_and_of_the_peer_its_goal_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.rows.make_context", lambda directory, maker: directory)
    tools = {name: name for name in ("docker", "docker_oci", "podman", "buildah")}
    bench = Bench(Namespace(work=tmp_path, root="store", busybox=Path("/bin/busybox"), **tools))
    for plan in PLANS:
        row = plan.make(bench)
        assert row.name == plan.name
        assert {"pipe", row.peer} <= row.commands.keys()


def test_the_memory_of_a_command_is_that_of_all_its_processes() -> None:
    holds = "held = bytearray(b'x') * (32 << 20); print('held', flush=True); input()"
    both = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {holds!r}], stdin=0)\n"
        "held = bytearray(b'x') * (32 << 20)\n"
        "child.wait()\n"
    )
    command = [sys.executable, "-c", both]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with sampling(process.pid) as seen:
                process.stdout.readline()
                while seen.peak < 64 and process.poll() is None:
                    time.sleep(0.01)
        finally:
            process.stdin.close()
    assert seen.peak >= 64
