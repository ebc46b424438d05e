"""Contexts and hosts that misbehave: a clear error or a correct image, and the store is as good as before."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runtime.linux import mounts
from tests.support.builder import build, config_of, contents_of, make_base, run_pipe, tree_of, write_files
from tests.support.places import mounted

pytestmark = pytest.mark.linux

COPY_ALL = "FROM base:1\nCOPY . /x/\n"


def test_a_context_behind_a_link_is_the_context(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": COPY_ALL, "a": "1"})
    (tmp_path / "link").symlink_to(context)
    image = build(root, context)
    assert build(root, tmp_path / "link") == image
    assert build(root, Path("link"), cwd=tmp_path) == image


def test_a_link_out_of_the_context_is_copied_as_a_link_and_never_followed(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": COPY_ALL})
    write_files(tmp_path / "outside", {"secret": "s"})
    (context / "out").symlink_to(tmp_path / "outside")
    (context / "up").symlink_to("../outside")
    found = tree_of(root, context)
    assert found["x/out"].issym()
    assert found["x/up"].linkname == "../outside"
    for name in ("out/secret", "up/secret"):
        (context / "Dockerfile").write_text(f"FROM base:1\nCOPY {name} /y/\n")
        done = run_pipe(root, "build", str(context), code=2)
        assert name.encode() in done.stderr


def test_names_that_are_no_utf8_may_be_anywhere(root: Path, tmp_path: Path) -> None:
    context = Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xff"))
    name = os.fsdecode(b"Dock\xff")
    write_files(
        context,
        {name: "FROM base:1\nARG X\nLABEL x=$X\nRUN echo $X\nCOPY . /c\n", os.fsdecode(b"f\xff"): "1"},
    )
    arguments = (
        "-f",
        str(context / name),
        "--build-arg",
        os.fsdecode(b"X=\xfe"),
        "--label",
        os.fsdecode(b"l=\xfe"),
    )
    image = build(root, context, *arguments)
    assert config_of(root, image)["config"]["Labels"] == {"x": "\ufffd", "l": "\ufffd"}
    assert build(root, context, *arguments) == image
    assert b"COPY . /c" in run_pipe(root, "why", image).stdout


def test_pipes_and_sockets_in_a_context_do_not_stop_a_build(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": COPY_ALL, "a": "1"})
    os.mkfifo(context / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.path.relpath(context / "socket"))
        found = tree_of(root, context)
    assert found["x/fifo"].isfifo()
    assert "x/socket" not in found
    assert "x/a" in found


def test_a_file_that_cannot_be_read_is_named(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": COPY_ALL, "a": "1", "locked": "?"})
    # Not even root may read it.
    unreadable = Path("/proc/sys/vm/compact_memory")
    if not unreadable.exists():
        pytest.skip("this kernel has no such file")
    with mounted(str(unreadable), context / "locked", "", mounts.MS_BIND):
        done = run_pipe(root, "build", str(context), code=None)
    assert done.returncode in (2, 3)
    assert b"locked" in done.stderr
    assert b"internal error" not in done.stderr
    assert contents_of(root, context, ["x/locked"]) == {"x/locked": b"?"}


def test_a_context_without_a_dockerfile_or_that_is_none_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert b"no Dockerfile" in run_pipe(root, "build", str(tmp_path / "empty"), code=2).stderr
    assert b"does not exist" in run_pipe(root, "build", str(tmp_path / "gone"), code=2).stderr
    (tmp_path / "empty" / "Dockerfile").symlink_to("Dockerfile")
    assert b"no Dockerfile" in run_pipe(root, "build", str(tmp_path / "empty"), code=2).stderr


def test_a_full_disk_fails_the_build_and_leaves_a_sound_store(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with mounted("tmpfs", small, "tmpfs", options="size=24m,mode=700"):
        root = small / "store"
        make_base(root, tmp_path / "base")
        context = write_files(
            tmp_path / "context", {"big": os.urandom(30 << 20), "Dockerfile": "FROM base:1\nCOPY big /\n"}
        )
        done = run_pipe(root, "build", str(context), code=3)
        assert b"No space left on device" in done.stderr
        assert b"free some space" in done.stderr
        (context / "Dockerfile").write_text("FROM base:1\nRUN head -c 30000000 /dev/zero > /big\n")
        run_pipe(root, "build", str(context), code=1)
        (context / "Dockerfile").write_text("FROM base:1\nRUN echo small > /small\n")
        # What the failed steps wrote was given back.
        assert contents_of(root, context, ["small"]) == {"small": b"small\n"}


def test_records_from_a_future_the_clock_came_back_from_still_serve(fresh_root: Path, tmp_path: Path) -> None:
    make_base(fresh_root, tmp_path / "base")
    context = write_files(
        tmp_path / "context", {"Dockerfile": "FROM base:1\nCOPY a /a\nRUN cat /a\n", "a": "1"}
    )
    image = build(fresh_root, context)
    with closing(sqlite3.connect(fresh_root / "pipe.db")) as database, database:
        for table, columns in (("cache_records", ("made", "used")), ("snapshots", ("created",))):
            for column in columns:
                database.execute(f"UPDATE {table} SET {column} = {column} * 2")
    assert build(fresh_root, context) != ""
    write_files(context, {"a": "2"})
    changed = build(fresh_root, context)
    assert changed != image
    assert build(fresh_root, context) == changed
    run_pipe(fresh_root, "cache", "ls")
    run_pipe(fresh_root, "why", changed)
    run_pipe(fresh_root, "cache", "prune", "-af")
    assert contents_of(fresh_root, context, ["a"]) == {"a": b"2"}


def test_a_clock_that_jumps_between_builds_makes_nothing_stale_and_nothing_forgotten(
    fresh_root: Path, tmp_path: Path
) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("Debian's package faketime is not installed")
    make_base(fresh_root, tmp_path / "base")
    dockerfile = "FROM base:1\nCOPY . /x/\nRUN cat /x/a > /sum\n"
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile, "a": "0"})
    jumps = ("+0", "+3650d", "-3650d", "+2h", "-18000d", "-2h", "+30000d", "+0")
    for number, jump in enumerate(jumps):
        clock = {"LD_PRELOAD": str(libraries[0]), "FAKETIME": jump, "FAKETIME_NO_CACHE": "1"}
        write_files(context, {"a": str(number % 3)})  # of one length, and back to what it was
        assert contents_of(fresh_root, context, ["sum"], env=clock) == {"sum": str(number % 3).encode()}
        said = run_pipe(fresh_root, "build", "-t", "made:1", str(context), env=clock).stderr
        assert said.count(b" CACHED") == 3
    for command in (("images",), ("cache", "ls"), ("cache", "gc"), ("why", "made:1")):
        run_pipe(fresh_root, *command, env=clock)


def test_a_file_changed_behind_its_times_is_read_again(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "context", {"Dockerfile": COPY_ALL, "a": "old"})
    far = 4_000_000_000
    os.utime(context / "a", (far, far))
    build(root, context)
    build(root, context)
    (context / "a").write_text("new")
    os.utime(context / "a", (far, far))
    assert contents_of(root, context, ["x/a"]) == {"x/a": b"new"}


def test_a_store_in_memory_works(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    with mounted("tmpfs", tmp_path / "memory", "tmpfs"):
        root = tmp_path / "memory" / "store"
        make_base(root, tmp_path / "base")
        context = write_files(
            tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN rm /etc/group && echo 1 > /one\n"}
        )
        found = tree_of(root, context)
        assert "one" in found
        assert "etc/group" not in found


def test_a_lock_that_a_killed_build_left_goes_with_the_next(root: Path, tmp_path: Path) -> None:
    """It may have been all that one had."""
    left = root / "locks" / f"step-{'0' * 32}"
    left.touch()
    context = write_files(tmp_path / "c", {"Dockerfile": f"FROM base:1\nRUN echo {tmp_path}\n"})
    build(root, context)
    assert not left.exists()
    left.touch()
    build(root, context)  # also one that finds everything
    assert not left.exists()
