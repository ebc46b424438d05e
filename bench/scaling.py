"""How time and memory grow with the number of files and of steps: `pipe` alone, `python -m bench --scaling`.

A further unit costs what two sizes differ by, so that the start of the command, which is the same for all, does not hide
what grows. Linear is where a further unit costs the same at every size.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import contexts
from bench.measure import RunFailed, alternate, finish, start
from bench.memory import sampling
from bench.rows import MINE, Bench, nothing

_FILES = (1_000, 10_000, 100_000)
_STEPS = (10, 100, 500)
_RUNS = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One size: seconds (median), MiB of the largest process and, sampled, of all together."""

    units: int
    wall: float
    largest: float
    together: float


def scaling(bench: Bench, say: Callable[[str], None]) -> None:
    """Measure and print all tables."""
    files = [bench.context(f"files{count}", contexts.tree(count)) for count in _FILES]
    steps = [bench.context(f"steps{count}", contexts.steps(count)) for count in _STEPS]
    cold, cached, changed = _cold(bench), _cached(bench), _one_changed(bench)
    for title, measure, places, sizes in (
        ("COPY, nothing cached", cold, files, _FILES),
        ("COPY, unchanged", cached, files, _FILES),
        ("COPY, one file changed", changed, files, _FILES),
        ("RUN, nothing cached", cold, steps, _STEPS),
        ("RUN, all cached", cached, steps, _STEPS),
    ):
        try:
            points = [measure(place, size) for place, size in zip(places, sizes, strict=True)]
        except RunFailed as error:
            say(f"\n{title}: not measured: {error}")
            continue
        say("\n".join(table(title, points)))


def table(title: str, points: list[Point]) -> Iterator[str]:
    yield f"\n| {title} | median | per unit | to the smallest | a further unit | memory: largest process, all |"
    yield "|---|---|---|---|---|---|"
    for before, point in zip([None, *points], points):
        further = f"{_further(before, point) * 1e6:.0f} µs" if before else "-"
        unit = point.wall / point.units
        yield (
            f"| {point.units} | {point.wall * 1000:.0f} ms | {unit * 1e6:.0f} µs"
            f" | {unit * points[0].units / points[0].wall:.2f} | {further}"
            f" | {point.largest:.0f}, {point.together:.0f} MiB |"
        )


def _further(before: Point, point: Point) -> float:
    return (point.wall - before.wall) / (point.units - before.units)


Measure = Callable[[Path, int], Point]


def _point(
    command: str, prepare: Callable[[str], None], units: int, after: Callable[[str], None] = nothing
) -> Point:
    series = alternate({MINE: command}, prepare, _RUNS)[MINE]
    if series.failure:
        raise RunFailed(series.failure)
    prepare(MINE)
    together = memory_of(command)
    after(MINE)
    return Point(units, statistics.median(series.wall), series.peak, together)


def memory_of(command: str) -> float:
    """MiB of all processes of a command at the worst moment, from one run that is not timed."""
    process = start(command)
    with sampling(process.pid) as seen:
        finish(process, command)
    return seen.peak


def _cold(bench: Bench) -> Measure:
    def measure(context: Path, units: int) -> Point:
        command = bench.builds(context, "--no-cache")[MINE]
        return _point(command, bench.forget(context), units)

    return measure


def _cached(bench: Bench) -> Measure:
    return lambda context, units: _point(bench.builds(context)[MINE], nothing, units)


def _one_changed(bench: Bench) -> Measure:
    def measure(context: Path, units: int) -> Point:
        def change(tool: str) -> None:
            contexts.change_one(context, secrets.token_hex(16))

        return _point(bench.builds(context)[MINE], change, units, bench.forget(context))

    return measure
