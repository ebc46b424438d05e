"""The command line's frame: help, unknown commands, exit codes by category, bugs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import main as cli
from pipeline.cli import root
from pipeline.cli.commands import COMMANDS
from runtime import errors
from runtime.spans import Source, Span


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(root, "_load", lambda target: failing)
    return cli.run(["version"])


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InvalidInput("x"), 2),
        (errors.NotFound("x"), 2),
        (errors.Unsupported("x"), 2),
        (errors.Conflict("x"), 1),
        (errors.StepFailed("x"), 1),
        (errors.TimedOut("x"), 4),
        (errors.Cancelled("x"), 130),
        (errors.HostFault("x"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_category_has_one_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    assert fail_with(monkeypatch, error) == code


@pytest.mark.parametrize(
    "error, code", [(errors.NotFound("x"), 125), (errors.HostFault("x"), 125), (errors.InvalidInput("x"), 2)]
)
def test_run_tells_what_kept_the_container_from_starting_as_docker_does(
    monkeypatch: pytest.MonkeyPatch, error: errors.PipeError, code: int
) -> None:
    def failing(session: object, arguments: object) -> int:
        raise error

    monkeypatch.setattr("pipeline.cli.run_command._run", failing)
    assert cli.run(["run", "image"]) == code


def test_every_error_category_is_in_the_table() -> None:
    def leaves(category: type[errors.PipeError]) -> list[type[errors.PipeError]]:
        return [
            leaf
            for sub in category.__subclasses__()
            if sub.__module__ == "runtime.errors"
            for leaf in [sub, *leaves(sub)]
        ]

    assert {category for category, _ in cli.EXIT_CODES} == set(leaves(errors.PipeError))


def test_an_error_shows_place_excerpt_and_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    span = Span(Source("pipe.yaml", "name: x\nstags: {}\n"), 2, 1)
    fail_with(monkeypatch, errors.InvalidInput("unknown key `stags`", span, hint="did you mean `stages`?"))
    assert capsys.readouterr().err == (
        "pipe: pipe.yaml:2:1: unknown key `stags`\n   1 |     name: x\n   2 | >>> stags: {}\nhint: did you mean `stages`?\n"
    )


def test_a_bug_is_one_line_and_a_log_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert fail_with(monkeypatch, ZeroDivisionError("division by zero")) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == "pipe: internal error: ZeroDivisionError: division by zero"
    with open(second.rpartition(" ")[2]) as log:
        assert "Traceback" in log.read()


def test_an_unknown_command_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["biuld"]) == 2
    assert "unknown command `biuld`" in (text := capsys.readouterr().err) and "did you mean `build`?" in text


def test_help_imports_no_command() -> None:
    code = "import sys; from pipeline.cli.main import run; run(['--help']); print([m for m in sys.modules if m.startswith(('builder', 'rich', 'httpx', 'yaml', 'lark'))], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Build the images of pipe.yaml" in result.stdout
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_loads_and_has_help(entry: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([entry.name, "--help"]) == 0  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith("Usage: pipe")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_descriptors_lead_nowhere_and_break_nothing(closed: tuple[int, ...]) -> None:
    code = f"""
import os, subprocess, sys
for number in {closed}: os.close(number)
os.execv(sys.executable, [sys.executable, "-m", "pipeline.cli.main", "version"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 2 in closed or done.stderr == ""


def test_output_that_a_full_disk_does_not_take_is_an_error_of_the_host() -> None:
    command = [sys.executable, "-m", "pipeline.cli.main", "version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (3, "pipe: cannot write the output: No space left on device\n")
