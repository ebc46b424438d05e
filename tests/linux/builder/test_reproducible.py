"""`pipe build --verify-reproducible` (FEATURES M-13): what must not count does not, and what differs is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builder import build, run_pipe, write_files

pytestmark = pytest.mark.linux

ENVIRONMENT = {"SOURCE_DATE_EPOCH": "1400000000"}
REWRITE = ("-o", "type=image,rewrite-timestamp=true")


def verified(root: Path, context: Path, *arguments: str, code: int, env: dict[str, str] = ENVIRONMENT) -> str:
    done = run_pipe(root, "build", "--verify-reproducible", *arguments, str(context), code=code, env=env)
    return (done.stdout + done.stderr).decode()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    lines = "FROM base:1\nWORKDIR /a/b\nCOPY data /made/here/\nRUN --mount=type=cache,target=/c ls -A /c > was; touch /c/mark\n"
    return write_files(tmp_path / "context", {"Dockerfile": lines, "data/one": "1", "data/sub/two": "2"})


def test_an_equal_build_is_called_reproducible_and_tagged(root: Path, context: Path) -> None:
    text = verified(root, context, *REWRITE, "-t", "verified:1", code=0)
    assert "reproducible: two builds gave sha256:" in text
    image = build(root, context, *REWRITE, env=ENVIRONMENT)
    assert image in text
    assert run_pipe(root, "images", "-q", "--no-trunc", "verified:1").stdout.decode().strip() == image


def test_a_host_name_in_a_file_is_found_to_the_byte(root: Path, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM base:1\nRUN echo same > /same\nRUN head -c 70000 /dev/zero > /big; hostname >> /big; chmod 640 /big\n"
    )
    text = verified(root, context, *REWRITE, "-t", "unverified:1", code=1)
    assert "layer 5 (" in text
    assert "hostname >> /big" in text
    assert "/big content at byte 70000: 'buildkitsandbox\\n' / 'machine-two\\n'" in text
    assert run_pipe(root, "images", "-q", "unverified:1").stdout == b""


def test_without_a_time_the_times_are_named_and_what_to_do(root: Path, context: Path) -> None:
    text = verified(root, context, code=1, env={})
    assert "time: " in text
    assert "set SOURCE_DATE_EPOCH" in text


def test_quiet_prints_the_image_and_nothing_else(root: Path, context: Path) -> None:
    done = run_pipe(root, "build", "-q", "--verify-reproducible", *REWRITE, str(context), env=ENVIRONMENT)
    assert done.stdout.decode().strip() == build(root, context, *REWRITE, env=ENVIRONMENT)


def test_a_build_that_fails_is_no_verdict(root: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base:1\nRUN exit 3\n")
    text = verified(root, context, code=1)
    assert "there is nothing to compare" in text


def test_cache_mounts_of_the_two_builds_are_not_left(root: Path, context: Path) -> None:
    verified(root, context, *REWRITE, code=0)
    assert b"verify-" not in run_pipe(root, "cache", "ls").stdout
