"""Commands that look at a pipe.yaml and change nothing: plan, lint, schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli.main import run

TEXT = """\
name: shop
images: {app: {}}
stages:
  unit: {image: app, matrix: {py: ["3.11", "3.12"]}, run: x}
  night: {image: app, needs: [unit], run: x, if: 'NIGHT'}
deploy: {live: {services: {web: {image: app}}}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipe.yaml").write_text(TEXT)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPE_ROOT", str(tmp_path / "never"))
    return tmp_path


def test_plan_shows_what_would_run_and_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--why"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "image  app  - all stages"
    assert "stage  unit (3.12)  - all stages  <- image/app" in lines
    assert "stage  night  - left out: `if: NIGHT` is false" in lines
    assert not (project / "never").exists()


def test_plan_as_json_and_as_a_graph(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--deploy", "--json"]) == 0
    nodes = {node["name"]: node for node in json.loads(capsys.readouterr().out)["nodes"]}
    assert {edge["node"] for edge in nodes["deploy/live"]["needs"]} >= {
        "image/app",
        "push/app",
        "stage/unit (3.11)",
    }
    assert (nodes["stage/night"]["runs"], nodes["stage/night"]["line"]) == (False, 5)
    assert run(["plan", "--dot", "unit@3.12"]) == 0
    assert '"image/app" -> "stage/unit (3.12)";' in capsys.readouterr().out


def test_a_variable_on_the_command_line_decides(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "-e", "NIGHT=1"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_lint_is_content_with_a_good_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint"]) == 0
    assert capsys.readouterr().out == "no mistakes found\n"


def test_lint_as_json_says_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "pipe.yaml").write_text(TEXT.replace("matrix:", "matrx:"))
    assert run(["lint", "--json"]) == 2
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (record["file"], record["line"], record["column"], record["hint"]) == (
        "pipe.yaml",
        4,
        22,
        "did you mean `matrix`?",
    )


def test_a_pipe_yaml_is_found_from_below(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    assert run(["plan"]) == 0
    assert "unit (3.11)" in capsys.readouterr().out


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert "stages" in json.loads(capsys.readouterr().out)["properties"]


def test_an_environment_must_be_named_when_there_are_several(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = TEXT.replace("deploy: {live:", "deploy: {other: {services: {web: {image: app}}}, live:")
    (project / "pipe.yaml").write_text(two)
    assert run(["deploy"]) == 2
    assert "which environment?" in capsys.readouterr().err
