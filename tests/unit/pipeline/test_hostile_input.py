"""Whatever stands in a pipe.yaml, the answer is a spec or a list of mistakes: nothing else is ever raised."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.checks import check_pipeline
from pipeline.conditions import Facts
from pipeline.config.load import Surroundings, parse_pipeline
from pipeline.plan import Goal, Kind, plan_run
from runtime.errors import InvalidInput, PipeError
from tests.support import REPOSITORY
from tests.unit.pipeline.test_pipefile import MISTAKES

PIECES = [
    "null", "[]", "{}", "''", "1", "-1", "true", "[[]]", "{a: {b: c}}", "${", "$$", "${x.y}", "${matrix.a}", "*a", "&a", "|", ">",
    "!!int x", "<<: [1]", "\t", "\x85", "é", "1e999", "0x10", "~", "- -", "? x", "'", '"', ":", "#", "%", "@", "{}: x", "é: 1",
    "${images.app.digest}", "99999999999999999999", "1:2:3:4", "/", "../..", "::", "a b", "=", "service_healthy",
]  # fmt: skip


def judge(text: str, surroundings: Surroundings) -> None:
    """Read, check and plan; only our own errors may come out."""
    try:
        spec, reader = parse_pipeline(text, "pipe.yaml", "/nowhere", surroundings)
        if reader.problems or check_pipeline(spec):
            return
        plan_run(spec, Goal(kind=Kind.STAGE), Facts(surroundings.lookup))
        plan_run(
            spec,
            Goal(kind=Kind.DEPLOY, names=tuple(e.name for e in spec.environments)),
            Facts(surroundings.lookup),
        )
    except PipeError as error:
        assert isinstance(error, InvalidInput), error


SEEDS = [path.read_text() for path in sorted((REPOSITORY / "examples").glob("*/pipe.yaml"))] + [
    m[0] for m in MISTAKES
]


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_pipe_yaml_is_a_bug(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    surroundings = Surroundings(str(tmp_path), {"CI": "true"})
    for _ in range(150):
        text = rng.choice(SEEDS)
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(text))
            until = min(len(text), at + rng.choice((0, 1, 3, 8)))
            text = text[:at] + rng.choice(PIECES) + text[until:]
        judge(text, surroundings)


def test_no_value_of_the_wrong_kind_is_a_bug(tmp_path: Path) -> None:
    """Every key of a stage, a service and an environment, with every odd value."""
    from pipeline.config.container_keys import SERVICE
    from pipeline.config.environments import _ENVIRONMENT_KEYS
    from pipeline.config.pipefile import _IMAGE_KEYS, PIPEFILE_KEYS
    from pipeline.config.stages import _STAGE_KEYS

    surroundings = Surroundings(str(tmp_path), {})
    values = [
        "",
        "null",
        "[]",
        "{}",
        "x",
        "[x]",
        "{x: y}",
        "[{x: y}]",
        "{x: {y: z}}",
        "-1",
        "'${matrix.a}'",
        "[[x]]",
        "'a:b:c'",
        "1.5",
        "{x: [y]}",
    ]
    for value in values:
        for key in _STAGE_KEYS:
            judge(f"images: {{app: {{}}}}\nstages:\n  a:\n    image: app\n    {key}: {value}\n", surroundings)
        for key in SERVICE:
            judge(
                f"stages:\n  a:\n    image: i\n    services:\n      s:\n        image: i\n        {key}: {value}\n",
                surroundings,
            )
        for key in _ENVIRONMENT_KEYS:
            judge(f"deploy:\n  a:\n    services: {{w: {{image: i}}}}\n    {key}: {value}\n", surroundings)
        for key in _IMAGE_KEYS:
            judge(f"images:\n  app:\n    {key}: {value}\n", surroundings)
        for key in PIPEFILE_KEYS:
            judge(f"{key}: {value}\n", surroundings)
