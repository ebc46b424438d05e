"""Build checks in ordinary builds: told, remembered, and where somebody says so the end of the build."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.builder import log_of, run_pipe, write_files

pytestmark = pytest.mark.linux

DOCKERFILE = """FROM base:1 AS unused
ENV x y
FROM base:1 AS Result
ENV a b
WORKDIR sub
COPY file /
CMD echo $HOME
"""
SUMMARY = """4 warnings found (use --debug to expand):
 - StageNameCasing: stage name `Result` should be in lower case (line 3)
 - LegacyKeyValueFormat: write `ENV key=value` instead of `ENV key value` (line 4)
 - WorkdirRelativePath: WORKDIR `sub` is relative to whatever the base image has (line 5)
 - JSONArgsRecommended: CMD should be a JSON array, so that signals reach the program (line 7)
"""


def context_with(directory: Path, dockerfile: str = DOCKERFILE) -> Path:
    return write_files(directory / "context", {"Dockerfile": dockerfile, "file": "content"})


def test_a_build_tells_the_findings_of_what_it_builds_whether_cached_or_not(
    root: Path, tmp_path: Path
) -> None:
    context = context_with(tmp_path)
    first = log_of(root, context)
    assert SUMMARY in first
    again = log_of(root, context)
    assert SUMMARY in again
    assert "#1 CACHED" in again
    assert "#1 WARN: LegacyKeyValueFormat" in again


def test_a_cached_build_does_not_even_import_the_rules(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path)
    log_of(root, context)
    done = run_pipe(root, "build", str(context), env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = done.stderr.decode()
    assert "builder.checked" in imported
    assert "builder.checks" not in imported


def test_a_build_that_fails_tells_its_findings_too(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path, DOCKERFILE + "RUN exit 3\n")
    log = log_of(root, context, code=1)
    assert SUMMARY in log
    assert "exit 3" in log


@pytest.mark.parametrize("mistake", ["BADCMD x", "FROM $nothing", "COPY --from=9 a b"])
def test_a_dockerfile_with_a_mistake_tells_once_what_is_found_before_it(
    root: Path, tmp_path: Path, mistake: str
) -> None:
    context = context_with(tmp_path, f"FROM base:1 AS Upper\nMAINTAINER me\n{mistake}\n")
    log = log_of(root, context, code=2)
    assert log.count("WARN: StageNameCasing: stage name `Upper`") == 1
    if mistake == "BADCMD x":
        assert "2 warnings found" in log
        assert "WARN: MaintainerDeprecated: " in log
    if mistake == "FROM $nothing":
        assert "WARN: UndefinedArgInFrom: " in log


def test_error_true_ends_a_build_before_its_first_step_with_exit_code_1(root: Path, tmp_path: Path) -> None:
    context = context_with(
        tmp_path, "# check=error=true\nFROM base:1\nRUN echo one-$((1+1))-three\nENV a b\n"
    )
    for _ in range(2):  # made, and remembered
        log = log_of(root, context, code=1)
        assert "build checks failed: LegacyKeyValueFormat" in log
        assert "one-2-three" not in log


def test_error_true_counts_when_every_step_is_cached(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path)
    log_of(root, context)
    argument = "BUILDKIT_DOCKERFILE_CHECK=error=true;skip=JSONArgsRecommended"
    log = log_of(root, context, "--build-arg", argument, code=1)
    assert "build checks failed: StageNameCasing, LegacyKeyValueFormat, WorkdirRelativePath" in log


def test_rules_are_skipped_for_the_file_for_an_instruction_and_by_an_argument(
    root: Path, tmp_path: Path
) -> None:
    file = "# check=skip=StageNameCasing,WorkdirRelativePath;error=true\n"
    text = file + DOCKERFILE.replace("ENV a b", "# check=skip=LegacyKeyValueFormat\nENV a b")
    context = context_with(tmp_path, text)
    assert "build checks failed: JSONArgsRecommended\n" in log_of(root, context, code=1)
    log = log_of(root, context, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true")
    assert "warning" not in log


def test_an_unknown_option_of_the_checks_is_refused_only_where_it_is_a_directive(
    root: Path, tmp_path: Path
) -> None:
    text = "# check=eror=true\nFROM base:1\nENV a=b\n"
    log = log_of(root, context_with(tmp_path / "one", text), code=2)
    assert "did you mean `error`?" in log
    text = "FROM base:1\n# check=eror=true\nENV a=b\n"
    log_of(root, context_with(tmp_path / "two", text))


def test_what_is_found_depends_on_arguments_and_on_what_is_ignored(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path, "FROM base:1\nARG where=/abs\nWORKDIR $where\nCOPY . /all\n")
    assert "warning" not in log_of(root, context)
    assert "WorkdirRelativePath: WORKDIR `rel`" in log_of(root, context, "--build-arg", "where=rel")
    assert "warning" not in log_of(root, context)
    (context / ".dockerignore").write_text("**\n")
    assert "CopyIgnoredFile" in log_of(root, context)


def test_the_metadata_file_has_the_findings_in_the_form_of_buildx(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path)
    place = tmp_path / "metadata.json"
    log_of(root, context, "--metadata-file", str(place))
    warnings = json.loads(place.read_text())["buildx.build.warnings"]
    assert len(warnings) == 4
    second = warnings[1]
    assert base64.b64decode(second["short"]).startswith(b"LegacyKeyValueFormat: ")
    assert second["url"].endswith("/legacy-key-value-format/")
    assert second["range"] == [{"start": {"line": 4}, "end": {"line": 4}}]
    assert base64.b64decode(second["sourceInfo"]["data"]).decode() == DOCKERFILE


def test_debug_expands_the_findings(root: Path, tmp_path: Path) -> None:
    log = log_of(root, context_with(tmp_path), "--debug")
    assert "4 warnings found:\n" in log
    assert "   4 | >>> ENV a b" in log


def test_only_the_latest_findings_are_kept(fresh_root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path, "FROM scratch\nCOPY file /\n")
    log_of(fresh_root, context)
    with sqlite3.connect(fresh_root / "pipe.db") as database:
        rows = [(f"key-{n}", "{}") for n in range(2000)]
        database.executemany("INSERT INTO check_findings (key, findings) VALUES (?, ?)", rows)
    database.close()
    log_of(fresh_root, context, "--build-arg", "other=1")
    with sqlite3.connect(fresh_root / "pipe.db") as database:
        (count,) = database.execute("SELECT count(*) FROM check_findings").fetchone()
    database.close()
    assert count == 1000


def test_check_knows_what_a_base_image_that_is_here_sets(root: Path, tmp_path: Path) -> None:
    context = context_with(tmp_path, "FROM base:1\nLABEL a=$PATH b=$nowhere\n")
    done = run_pipe(root, "build", "--check", str(context), code=1)
    assert "variable `$nowhere` is not defined" in done.stdout.decode()
    assert "$PATH`" not in done.stdout.decode()
