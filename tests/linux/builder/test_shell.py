"""Looking around after a step, and in one that failed (FEATURES B-27, M-5)."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.builder import PROJECT, build_text, run_pipe, write_files
from tests.support.openssh import make_key

pytestmark = pytest.mark.linux

PATIENCE = 120.0
DOCKERFILE = """FROM base:1 AS build
WORKDIR /work
RUN echo one > one
RUN echo two > two
FROM base:1
ENV GREETING=hello
USER app
WORKDIR /srv
COPY --from=build /work /srv
RUN ls > /tmp/listing
"""
FAILING = """FROM base:1
ENV GREETING=hello
WORKDIR /w
RUN mkdir sub && cd sub && echo started > state && exit 7
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_files(tmp_path / "context", {})


def said(root: Path, *arguments: str, code: int = 0) -> str:
    done = run_pipe(root, "shell", *arguments, code=code)
    return (done.stdout + done.stderr).decode()


def test_a_step_is_meant_by_its_text_with_what_it_saw(root: Path, context: Path) -> None:
    build_text(root, context, DOCKERFILE, "-t", "shell:1")
    assert said(root, "shell:1@copy --from", "--", "ls", "/srv") == "one\ntwo\n"
    seen = said(
        root, "shell:1@/tmp/listing", "--", "sh", "-c", "pwd; id -u; echo $GREETING; cat /tmp/listing"
    )
    assert seen == "/srv\n1000\nhello\none\ntwo\n"


def test_a_step_of_another_stage_is_meant_by_stage_and_number(root: Path, context: Path) -> None:
    build_text(root, context, DOCKERFILE, "-t", "shell:1")
    first = said(root, "shell:1@build/3", "--", "ls", "/work")
    assert first == "one\n"
    assert said(root, "shell:1@build/4", "--", "ls", "/work") == "one\ntwo\n"


def test_a_step_that_ran_nothing_has_the_surroundings_of_its_place(root: Path, context: Path) -> None:
    dockerfile = """FROM base:1
ENV WHEN=early
COPY --chmod=644 file /first
RUN true
ENV WHEN=late
USER app
WORKDIR /there
COPY file /second
"""
    (context / "file").write_text("x")
    build_text(root, context, dockerfile, "-t", "places:1")
    ask = ("--", "sh", "-c", "pwd; id -u; echo $WHEN")
    assert said(root, "places:1@/first", *ask) == "/\n0\nearly\n"
    assert said(root, "places:1@/second", *ask) == "/there\n1000\nlate\n"


def test_a_copy_in_another_stage_has_the_surroundings_of_its_nearest_run(root: Path, context: Path) -> None:
    (context / "file").write_text("x")
    dockerfile = "FROM base:1 AS build\nENV IN=build\nWORKDIR /b\nCOPY file /b/\nRUN echo > /b/made\nFROM base:1\nUSER app\nCOPY --from=build /b /b\n"
    build_text(root, context, dockerfile, "-t", "near:1")
    assert (
        said(root, "near:1@build/3", "--", "sh", "-c", "pwd; id -u; echo $IN; ls /b")
        == "/b\n0\nbuild\nfile\n"
    )


def test_what_is_changed_there_changes_nothing(root: Path, context: Path) -> None:
    image = build_text(root, context, DOCKERFILE, "-t", "shell:1")
    before = run_pipe(root, "images", "-a", "--no-trunc").stdout
    said(root, "shell:1", "--", "sh", "-c", "echo x > /tmp/listing; touch /tmp/new")
    assert said(root, "shell:1", "--", "ls", "/tmp") == "listing\n"
    assert build_text(root, context, DOCKERFILE) == image
    assert run_pipe(root, "ps", "-aq").stdout == b""
    after = run_pipe(root, "images", "-a", "--no-trunc").stdout
    assert ids_of(after) == ids_of(before)


def ids_of(listed: bytes) -> set[bytes]:
    return {word for word in listed.split() if word.startswith(b"sha256:")}


def test_a_step_that_is_not_there_or_not_clear_is_said(root: Path, context: Path) -> None:
    build_text(root, context, DOCKERFILE, "-t", "shell:1")
    assert "no step of the image says 'nowhere'" in said(root, "shell:1@nowhere", "--", "true", code=2)
    assert "has no step 99" in said(root, "shell:1@99", "--", "true", code=2)
    assert "no record of step 9 of stage build" in said(root, "shell:1@build/9", "--", "true", code=2)


def test_the_command_decides_the_exit_code(root: Path, context: Path) -> None:
    build_text(root, context, DOCKERFILE, "-t", "shell:1")
    said(root, "shell:1", "--", "sh", "-c", "exit 42", code=42)


def test_a_failed_step_can_be_entered_until_the_next_collection(fresh_root: Path, tmp_path: Path) -> None:
    from tests.support.builder import make_base

    make_base(fresh_root, tmp_path / "base")
    context = write_files(tmp_path / "context", {})
    assert "no failed step is kept" in said(fresh_root, "--last-failed", "--", "true", code=2)
    done = run_pipe(fresh_root, "build", "-f", "-", str(context), stdin=FAILING.encode(), code=1)
    assert b"pipe shell --last-failed" in done.stderr
    seen = said(fresh_root, "--last-failed", "--", "sh", "-c", "pwd; echo $GREETING; cat sub/state")
    assert seen == "/w\nhello\nstarted\n"
    run_pipe(fresh_root, "system", "prune", "-f")
    assert "no failed step is kept" in said(fresh_root, "--last-failed", "--", "true", code=2)


MOUNTING = """FROM base:1 AS other
RUN mkdir /other && echo from a stage > /other/file
FROM base:1
RUN --mount=type=bind,target=/ctx --mount=type=bind,source=sub/one,target=/one,rw \\
    --mount=type=bind,from=other,source=/other,target=/other --mount=type=cache,target=/kept,id=shell-kept \\
    --mount=type=secret,id=token --mount=type=secret,id=word,env=WORD --mount=type=ssh \\
    echo cached > /kept/mark; echo changed > /one; exit 4
"""
LOOK = """cat /ctx/sub/one; ls -A /ctx; echo over > /one; cat /one /other/file /kept/mark; touch /other/x || echo read-only
echo secrets:$(cat /run/secrets/token):$WORD; test -S $SSH_AUTH_SOCK && echo an agent"""


def test_a_failed_step_has_its_mounts_again_and_its_secrets_if_they_are_given(
    root: Path, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": MOUNTING,
        "sub/one": "of the context\n",
        ".dockerignore": "hidden\nDockerfile",
        "hidden": "",
    }
    context = write_files(tmp_path / "context", files)
    key = make_key(tmp_path)
    given = (
        "--secret",
        f"id=token,src={tmp_path}/token",
        "--secret",
        "id=word,env=WORD",
        "--ssh",
        f"default={key}",
    )
    (tmp_path / "token").write_text("t0ken-value")
    env = {"WORD": "w0rd-value"}
    run_pipe(root, "build", *given, str(context), env=env, code=1)
    done = run_pipe(root, "shell", "--last-failed", *given, "--", "sh", "-c", LOOK, env=env)
    assert done.stdout.decode() == (
        "of the context\n.dockerignore\nsub\nover\nfrom a stage\ncached\nread-only\n"
        "secrets:t0ken-value:w0rd-value\nan agent\n"
    )
    assert (context / "sub" / "one").read_text() == "of the context\n"
    for path in root.glob("pipe.db*"):
        assert b"t0ken-value" not in path.read_bytes()
        assert b"w0rd-value" not in path.read_bytes()


def test_secrets_that_are_not_given_again_are_named(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": MOUNTING, "sub/one": "x"})
    run_pipe(root, "build", str(context), code=1)
    done = run_pipe(
        root,
        "shell",
        "--last-failed",
        "--",
        "sh",
        "-c",
        "ls /run/secrets 2>&1 | wc -l; echo ${SSH_AUTH_SOCK-none}",
    )
    assert b"not there: secret token: give it again with --secret id=token,src=FILE" in done.stderr
    assert b"not there: ssh agent default: forward it again with --ssh default" in done.stderr
    assert done.stdout.endswith(b"none\n")


def test_a_failed_script_and_its_network_are_there(root: Path, context: Path) -> None:
    script = "FROM base:1\nRUN --network=none <<EOF\n#!/bin/sh\necho tried > /tried\nexit 5\nEOF\n"
    run_pipe(root, "build", "-f", "-", str(context), stdin=script.encode(), code=1)
    look = "cat /tried; tail -1 /dev/pipes/EOF; ls /sys/class/net; /dev/pipes/EOF; echo code $?"
    assert said(root, "--last-failed", "--", "sh", "-c", look) == "tried\nexit 5\nlo\ncode 5\n"


def test_without_a_terminal_it_is_said_how_to_get_in_later(root: Path, context: Path) -> None:
    done = run_pipe(
        root, "build", "-f", "-", "--on-failure=shell", str(context), stdin=FAILING.encode(), code=1
    )
    assert b"no terminal; enter the failed step later" in done.stderr


def test_a_shell_opens_in_the_failed_step_with_its_mounts_and_secrets(root: Path, tmp_path: Path) -> None:
    dockerfile = FAILING.replace("RUN ", "RUN --mount=type=secret,id=key --mount=type=tmpfs,target=/scratch ")
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile, "key": "s3cret"})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli.main", "--root", str(root), "build", "--on-failure=shell",
         "--secret", f"id=key,src={context}/key", str(context)],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )  # fmt: skip
    os.close(theirs)
    try:
        _read_until(ours, b"this is its sandbox")
        # Split, so that the echo of what is typed is not taken for the answer.
        os.write(
            ours,
            b"echo in:$PWD:$GREETING:$(cat sub/state):$(cat /run/secrets/key | wc -c):$(test -t 0 && echo t''ty)\n",
        )
        _read_until(ours, b"in:/w:hello:started:6:tty")
        os.write(ours, b"mount | grep -c ' /scratch ' | sed s/^/mounted:/\n")
        _read_until(ours, b"mounted:1")
        os.write(ours, b"exit\n")
        _read_until(ours, b"failed with exit code 7")
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, wanted: bytes) -> None:
    seen, deadline = b"", time.monotonic() + PATIENCE
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} did not come: {seen!r}"
        try:
            seen += os.read(terminal, 1 << 16)
        except OSError as error:
            raise AssertionError(f"{wanted!r} did not come: {seen!r}") from error
