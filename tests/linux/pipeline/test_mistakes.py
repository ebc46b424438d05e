"""Mistakes in what people write: one clear message, exit code 2, and a store nothing was done to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipe_command import Project

pytestmark = pytest.mark.linux


def test_a_mistake_in_pipe_yaml_opens_no_store(tmp_path: Path) -> None:
    project = Project(tmp_path / "work", tmp_path / "never")
    project.write("stages:\n  a: {image: box, rn: x}\n")
    for command in (["test"], ["build"], ["deploy", "x"], ["plan"], ["lint"]):
        done = project.pipe(*command, code=2)
        assert "pipe.yaml:5:19: unknown key `rn` in stage `a`" in done.text
        assert "did you mean `run`?" in done.text
    assert not (tmp_path / "never").exists()


def test_lint_shows_all_mistakes_at_once(tmp_path: Path) -> None:
    project = Project(tmp_path / "work", tmp_path / "never")
    project.write("stages:\n  a: {image: box, rn: x, timeout: never}\n  b: {image: box, needs: [c]}\n")
    out = project.pipe("lint", code=2).out
    assert out.count("error: ") == 2  # what the keys mean is looked at when they can be read
    project.write("stages:\n  a: {image: box, needs: [x]}\n  b: {image: box, needs: [c]}\n")
    assert project.pipe("lint", code=2).out.count("error: ") == 2


def test_a_mistake_in_a_dockerfile_leaves_no_run(project: Project) -> None:
    (project.directory / "Dockerfile").write_text("FROM scratch AS box\nCOPPY a b\n")
    project.write('stages: {a: {image: box, run: "true"}}\n')
    done = project.pipe("test", code=2)
    assert "Dockerfile:2:1" in done.err
    assert "COPPY" in done.err
    assert project.name not in project.pipe("runs").out


def test_an_unknown_name_names_the_nearest(project: Project) -> None:
    project.write('stages: {smoke: {image: box, run: "true"}}\n')
    assert "did you mean `smoke`?" in project.pipe("test", "smok", code=2).err
    assert "no environment `live`" in project.pipe("deploy", "live", code=2).err


def test_an_engine_that_is_not_there_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    project = Project(tmp_path / "work", tmp_path / "never")
    project.write("deploy: {x: {engine: 'ssh://a@b', services: {w: {image: box}}}}\n")
    done = project.pipe("deploy", "x", code=2)
    assert "engine 'ssh://a@b' is not there yet" in done.err
    assert not (tmp_path / "never").exists()


def test_a_missing_pipe_yaml_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path / "work", tmp_path / "never")
    done = project.pipe("test", code=2)
    assert "no pipe.yaml in" in done.err


def test_lint_tells_what_the_build_checks_say(tmp_path: Path) -> None:
    project = Project(tmp_path / "work", tmp_path / "never")
    project.write('stages: {a: {image: box, run: "true"}}\n')
    (project.directory / "Dockerfile").write_text("FROM scratch AS Box\nCOPY busybox /b\nFROM Box as box\n")
    assert "warning: Dockerfile:1:1: StageNameCasing" in project.pipe("lint").out
    assert '"severity": "warning"' in project.pipe("lint", "--json", "--strict", code=2).out


def test_a_missing_context_points_into_pipe_yaml(project: Project) -> None:
    project.write('  gone: {context: nowhere}\nstages: {a: {image: gone, run: "true"}}\n')
    done = project.pipe("test", code=2)
    assert "pipe.yaml:4:3: image gone: build context" in done.err
