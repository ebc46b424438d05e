"""`pipe bake --check|--call`: what is said instead of building, target by target. Order, exit codes and JSON are docker 28.5's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builder import run_pipe, write_files

BAKE = {
    "group": {"default": {"targets": ["b", "a"]}},
    "target": {
        "a": {"target": "second"},
        "b": {"dockerfile": "Clean"},
        "c": {"call": "outline", "target": "second", "args": {"A": "q"}},
        "d": {"call": "targets"},
        "e": {"call": "build", "dockerfile": "Clean", "output": ["type=cacheonly"]},
        "f": {"call": "check", "dockerfile": "Taking", "contexts": {"x": "target:a"}},
    },
}
DOCKERFILE = "FROM scratch AS base\nARG A=x\nFROM base as second\nMAINTAINER me\nFROM scratch AS last\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "Clean": "FROM scratch\nCOPY Clean /\n", "Taking": "FROM x\n"}
    return write_files(tmp_path / "c", {**files, "docker-bake.json": json.dumps(BAKE)})


def said(place: Path, *arguments: str, code: int = 0) -> str:
    done = run_pipe(place.parent / "store", "bake", *arguments, cwd=place, code=code)
    return done.stdout.decode()


def titles(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) == 1]


def test_targets_are_checked_in_the_order_of_their_names_and_a_finding_is_exit_code_1(place: Path) -> None:
    text = said(place, "--check", code=1)
    assert text.startswith("a\n\ncheck complete, 2 warnings\n")
    assert text.endswith("\n\nb\n\ncheck complete, no warnings\n")
    assert titles(said(place, "--call=check", "b")) == ["b"]


def test_a_target_may_say_what_is_to_be_said_of_it(place: Path) -> None:
    text = said(place, "c", "d")
    assert titles(text) == ["c", "d"]
    assert "A           q" in text and "last (default)" in text


def test_beside_one_that_is_asked_nothing_is_built(place: Path) -> None:
    assert titles(said(place, "a", "c", "e")) == ["c"]
    assert run_pipe(place.parent / "store", "images", "-aq").stdout == b""


def test_the_flag_is_for_all_targets_and_wins(place: Path) -> None:
    assert titles(said(place, "--check", "c", "e", code=1)) == ["c", "e"]


def test_other_targets_that_one_takes_from_are_not_spoken_of(place: Path) -> None:
    assert titles(said(place, "f")) == ["f"]


def test_as_json_it_stands_beside_what_would_be_built(place: Path) -> None:
    record = json.loads(said(place, "--call", "check,format=json", "a", "b", code=1))
    assert record["group"] == {"default": {"targets": ["a", "b"]}}
    assert record["target"]["a"]["build"] == {
        "context": ".",
        "dockerfile": "Dockerfile",
        "target": "second",
        "call": "lint",
    }
    rules = [warning["ruleName"] for warning in record["target"]["a"]["check"]["warnings"]]
    assert rules == ["FromAsCasing", "MaintainerDeprecated"]
    outline = json.loads(said(place, "--call", "outline,format=json", "a"))["target"]["a"]
    assert outline["build"]["call"] == "outline"
    assert outline["outline"]["args"][0]["name"] == "A"


def test_what_is_not_known_is_refused_before_anything_is_said(place: Path) -> None:
    done = run_pipe(place.parent / "store", "bake", "--call", "otline", "a", "b", cwd=place, code=2)
    assert done.stdout == b""
    assert b"did you mean `outline`" in done.stderr
