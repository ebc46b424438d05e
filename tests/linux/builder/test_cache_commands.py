"""`pipe cache` and `pipe why`."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from builder import gc
from runtime.events import ignore
from runtime.store import Store
from tests.support.builder import build, make_base, run_pipe, write_files

pytestmark = pytest.mark.linux


@pytest.fixture
def store(fresh_root: Path, tmp_path: Path) -> Path:
    make_base(fresh_root, tmp_path / "base")
    return fresh_root


def why(root: Path, image: str, *step: str) -> str:
    return run_pipe(root, "why", image, *step).stdout.decode()


def test_why_names_the_file_the_variable_and_the_command(store: Path, tmp_path: Path) -> None:
    def dockerfile(argument: str, command: str) -> str:
        return f"FROM base:1\nCOPY . /src\nARG V={argument}\nRUN {command}\n"

    context = write_files(
        tmp_path / "c", {"a.txt": "1", "b.txt": "2", "Dockerfile": dockerfile("1", "echo 1")}
    )
    build(store, context, "-t", "x")
    assert "it had never run before" in why(store, "x", "COPY")
    (context / "a.txt").write_text("other")
    build(store, context, "-t", "x")
    text = why(store, "x")
    assert "file a.txt" in text
    assert "b.txt" not in text
    assert "the step before" in text
    (context / "Dockerfile").write_text(dockerfile("2", "echo 1"))
    (context / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    build(store, context, "-t", "x")
    (context / "Dockerfile").write_text(dockerfile("3", "echo 2"))
    build(store, context, "-t", "x")
    text = why(store, "x", "RUN echo 2")
    assert "variable V: 2 -> 3" in text
    assert "args: /bin/sh -c echo 1 -> /bin/sh -c echo 2" in text


def test_why_names_files_of_stages_and_mounts_and_the_base(store: Path, tmp_path: Path) -> None:
    dockerfile = """FROM base:1 AS made
    COPY src /src
    FROM other:1
    COPY --from=made /src /taken
    RUN --mount=type=bind,source=src,target=/m cat /m/a > /b
    """
    context = write_files(tmp_path / "c", {"src/a": "1", "src/same": "", "Dockerfile": dockerfile})
    run_pipe(store, "tag", "base:1", "other:1")
    epoch = {"SOURCE_DATE_EPOCH": "1000000000"}  # then all steps have one time, and still an order
    build(store, context, "-t", "x", env=epoch)
    (context / "src" / "a").write_text("22")
    build(store, context, "-t", "x", env=epoch)
    for step in ("COPY --from", "RUN"):
        told = why(store, "x", step)
        assert "file a: mode" in told.replace("src/", "")
        assert "1 bytes" in told and "2 bytes" in told
        assert "same" not in told
    build(store, write_files(tmp_path / "o", {"Dockerfile": "FROM base:1\nRUN echo > /o\n"}), "-t", "other:1")
    build(store, context, "-t", "x", env=epoch)
    assert "base image: sha256:" in why(store, "x", "COPY --from")


def test_why_tells_of_other_stages_links_and_steps_that_moved(store: Path, tmp_path: Path) -> None:
    dockerfile = """FROM base:1 AS lib
    ARG V=1
    RUN --mount=type=secret,id=one echo $V > /dev/null
    COPY lnk /lnk/
    FROM base:1
    COPY --from=lib /lnk /x
    RUN echo end
    """
    context = write_files(tmp_path / "c", {"lnk/f": "1", "Dockerfile": dockerfile})
    (context / "lnk" / "l").symlink_to("old")
    build(store, context, "-t", "x")
    build(store, context, "-t", "x", "--build-arg", "V=2")
    assert "variable V: 1 -> 2" in why(store, "x", "[lib 2/3]")
    (context / "lnk" / "l").unlink()
    (context / "lnk" / "l").symlink_to("new")
    build(store, context, "-t", "x", "--build-arg", "V=2")
    for step in ("[lib 3/3]", "COPY --from=lib"):
        assert "file l: link to old, mode 0777, owner 0:0 -> link to new" in why(store, "x", step)
    (context / "Dockerfile").write_text(
        dockerfile.replace("RUN echo", "RUN true\n    RUN echo").replace("id=one", "id=two")
    )
    build(store, context, "-t", "x", "--build-arg", "V=2", env={"SOURCE_DATE_EPOCH": "1000"})
    told = why(store, "x", "RUN echo end")
    assert "ran with SOURCE_DATE_EPOCH=1000" in told
    assert "COPY --from=lib /lnk /x -> [stage-1 3/4] RUN true" in told
    told = why(store, "x", "[lib 2/3]")
    assert "id=one" in told and "id=two" in told


def test_the_cache_is_listed_and_pruned(store: Path, tmp_path: Path) -> None:
    context = write_files(
        tmp_path / "c",
        {"Dockerfile": "FROM base:1\nRUN --mount=type=cache,target=/c echo x > /c/x\nRUN echo > /y\n"},
    )
    build(store, context, "-t", "keep")
    listed = [
        json.loads(line) for line in run_pipe(store, "cache", "ls", "--format", "json").stdout.splitlines()
    ]
    assert {entry["kind"] for entry in listed} >= {"exec", "copy", "cache mount"}
    assert "total" in run_pipe(store, "cache", "du").stdout.decode()

    (context / "Dockerfile").write_text("FROM base:1\nRUN echo > /unneeded\n")
    build(store, context)
    run_pipe(store, "cache", "prune", "-f")
    # The image nobody named still is an image; take it away and what only it needed is free.
    before = len(os.listdir(store / "snapshots"))
    run_pipe(store, "cache", "prune", "-f", "--all")
    left = [
        json.loads(line) for line in run_pipe(store, "cache", "ls", "--format", "json").stdout.splitlines()
    ]
    assert left == []
    assert len(os.listdir(store / "snapshots")) <= before
    build(store, write_files(tmp_path / "d", {"Dockerfile": "FROM keep\nRUN test -e /y\n"}))


def test_a_dry_run_only_tells_and_caps_keep_the_last_used(store: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN head -c 2000000 /dev/zero > /z\n"})
    build(store, context, "-t", "x")
    run_pipe(store, "rmi", "x")

    def kept() -> int:
        return len(run_pipe(store, "cache", "ls", "--format", "json").stdout.splitlines())

    before = kept()
    told = run_pipe(store, "cache", "prune", "--dry-run").stdout.decode()
    assert "RUN head" in told
    assert "Would reclaim: 2." in told
    assert kept() == before
    run_pipe(store, "cache", "prune", "-f", "--max-used-space", "1GB", "--min-free-space", "0.000001%")
    run_pipe(store, "cache", "gc")
    run_pipe(store, "cache", "prune", "-f", "--reserved-space", "1GB")
    assert kept() == before
    run_pipe(store, "cache", "prune", "-f", "--filter", "type=exec.cachemount", "--filter", "until=1h30m")
    assert kept() == before
    run_pipe(store, "cache", "prune", "-f", "--max-used-space", "1MB")
    assert kept() < before
    assert run_pipe(store, "cache", "prune", "-f", "--max-used-space", "big", code=2).stderr


def test_a_build_collects_at_most_once_an_hour(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "_EASY_BYTES", 0)
    dockerfile = "FROM base:1\nRUN --mount=type=cache,target=/c echo x > /c/x\n"
    build(store, write_files(tmp_path / "c", {"Dockerfile": dockerfile}))
    stamp = store / "locks" / "cache-collected"
    assert stamp.exists()  # a build looked
    with Store.open(str(store)) as opened:

        def mounts() -> int:
            gc.collect_if_due(opened, ignore, "build")
            return len(opened.db.read("SELECT 1 FROM cache_mounts"))

        with opened.db.transaction() as connection:
            connection.execute("UPDATE cache_mounts SET used = used - ?", (72 * 3600 * 10**9,))
        assert mounts() == 1  # a moment ago it was looked
        os.utime(stamp, (0, 0))
        with open(stamp, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert mounts() == 1  # somebody else is at it
        assert mounts() == 0
        assert os.stat(stamp).st_mtime > 0


def test_check_outline_and_targets(tmp_path: Path, fresh_root: Path) -> None:
    dockerfile = "# what it is\nFROM scratch as base\nARG V=1\nWORKDIR rel\nFROM base AS last\nCOPY a /\n"
    context = write_files(tmp_path / "c", {"Dockerfile": dockerfile, "a": ""})
    checked = run_pipe(fresh_root, "build", "--check", str(context), code=1)
    assert b"FromAsCasing" in checked.stdout
    assert b"WorkdirRelativePath" in checked.stdout
    found = json.loads(run_pipe(fresh_root, "build", "--check", "--format=json", str(context), code=1).stdout)
    assert {each["ruleName"] for each in found["warnings"]} >= {"FromAsCasing"}
    assert b"last" in run_pipe(fresh_root, "build", "--call=targets", str(context)).stdout
    assert b"V" in run_pipe(fresh_root, "build", "--call=outline", str(context)).stdout
    piped = run_pipe(fresh_root, "build", "--check", "-", stdin=dockerfile.encode(), code=1)
    assert b"FromAsCasing" in piped.stdout
    packed = subprocess.run(["tar", "-cz", "-C", str(context), "."], check=True, capture_output=True).stdout
    assert b"last" in run_pipe(fresh_root, "build", "--call=targets", "-", stdin=packed).stdout
    assert not fresh_root.exists()
