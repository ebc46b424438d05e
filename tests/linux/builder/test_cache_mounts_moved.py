"""`pipe cache export|import`: cache mounts between machines (FEATURES B-11)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from builder.operations.cachemounts import hold, identity_of
from runtime.cancel import Cancel
from runtime.store import Store
from tests.support.builder import build, make_base, run_pipe, write_files
from tests.support.registry import docker_registry

pytestmark = pytest.mark.linux

FILL = """FROM base:1
RUN --mount=type=cache,target=/pip,mode=0700,uid=1000 mkdir /pip/deep && echo wheel > /pip/deep/w && ln /pip/deep/w /pip/hard && ln -s deep/w /pip/soft && chmod 4750 /pip/deep/w
RUN --mount=type=cache,target=/twin-a echo same > /twin-a/x && touch -d @1000 /twin-a/x
RUN --mount=type=cache,target=/twin-b echo same > /twin-b/x && touch -d @1000 /twin-b/x
"""
LOOK = """FROM base:1
RUN --mount=type=cache,target=/pip,mode=0700,uid=1000 stat -c '%a %u %h' /pip /pip/hard && cat /pip/soft && cp -a /pip /seen
RUN --mount=type=cache,target=/twin-a --mount=type=cache,target=/twin-b cat /twin-a/x /twin-b/x
"""


@pytest.fixture
def filled(fresh_root: Path, tmp_path: Path) -> Path:
    make_base(fresh_root, tmp_path / "base")
    build(fresh_root, write_files(tmp_path / "fill", {"Dockerfile": FILL}))
    return fresh_root


@pytest.fixture
def other(tmp_path: Path) -> Path:
    make_base(tmp_path / "other", tmp_path / "base2")
    return tmp_path / "other"


def listed(root: Path) -> dict[str, int]:
    """Names of the cache mounts, and when they were used."""
    lines = run_pipe(root, "cache", "ls", "--format", "json").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["label"]: entry["used"] for entry in entries if entry["kind"] == "cache mount"}


def test_mounts_go_through_a_directory_with_all_that_is_in_them(
    filled: Path, other: Path, tmp_path: Path
) -> None:
    run_pipe(filled, "cache", "export", f"{tmp_path}/moved")
    said = run_pipe(other, "cache", "import", f"{tmp_path}/moved").stdout.decode()
    assert said.count(" imported ") == 3
    assert listed(other) == listed(filled)  # the time of the last use goes along: they age on
    done = run_pipe(other, "build", str(write_files(tmp_path / "look", {"Dockerfile": LOOK})))
    text = (done.stdout + done.stderr).decode()
    assert "700 1000 " in text
    assert "4750 0 2" in text
    assert "wheel" in text
    assert text.count("same") == 2
    subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/moved:latest"], check=True, capture_output=True
    )


def test_mounts_go_through_a_registry_by_name_or_id(filled: Path, other: Path, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as registry:
        reference = f"{registry.host}/shop/mounts:main"
        run_pipe(filled, "cache", "export", "/pip", identity_of("/twin-a")[:12], reference)
        run_pipe(other, "cache", "import", reference)
        assert sorted(listed(other)) == ["/pip", "/twin-a"]
        missing = run_pipe(filled, "cache", "export", "/nothing", reference, code=None)
        assert missing.returncode != 0
        assert b"no cache mount /nothing" in missing.stderr


def test_what_is_here_stays_unless_it_is_to_be_replaced(filled: Path, tmp_path: Path) -> None:
    run_pipe(filled, "cache", "export", f"{tmp_path}/moved")
    wheel = filled / "cachemounts" / identity_of("/pip") / "data" / "deep" / "w"
    wheel.write_text("newer")
    assert b" kept " in run_pipe(filled, "cache", "import", f"{tmp_path}/moved").stdout
    assert wheel.read_text() == "newer"
    run_pipe(filled, "cache", "import", "--replace", f"{tmp_path}/moved")
    assert wheel.read_text() == "wheel\n"
    assert os.listdir(filled / "drafts") == []


def test_a_mount_in_use_is_waited_for(filled: Path, tmp_path: Path) -> None:
    """The export ends after the user of the mount does, and has what that one wrote."""
    from threading import Thread

    wheel = filled / "cachemounts" / identity_of("/pip") / "data" / "deep" / "w"
    with Store.open(str(filled)) as store:
        with hold(store, identity_of("/pip"), Cancel()):
            export = Thread(target=run_pipe, args=(filled, "cache", "export", "/pip", f"{tmp_path}/moved"))
            export.start()
            lock = filled / "cachemounts" / identity_of("/pip") / "lock"
            _until_somebody_waits_for(lock)
            assert not (tmp_path / "moved" / "index.json").exists()
            wheel.write_text("finished")
        export.join(120)
    run_pipe(tmp_path / "new", "cache", "import", f"{tmp_path}/moved")
    copied = tmp_path / "new" / "cachemounts" / identity_of("/pip") / "data" / "deep" / "w"
    assert copied.read_text() == "finished"


def _until_somebody_waits_for(path: Path) -> None:
    """Some other process has the file open."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) != os.getpid() and path in _open_files(process):
                return
        time.sleep(0.05)
    raise AssertionError("nobody came to the lock")


def _open_files(process: Path) -> set[Path]:
    try:
        return {Path(os.readlink(entry)) for entry in (process / "fd").iterdir()}
    except OSError:
        return set()


def test_damage_and_other_things_are_refused_and_change_nothing(filled: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    run_pipe(filled, "cache", "export", "/pip", str(moved))
    blobs = (moved / "blobs" / "sha256").iterdir()
    layer = next(path for path in blobs if path.read_bytes()[:4] == b"\x28\xb5\x2f\xfd")  # zstd's magic
    layer.write_bytes(layer.read_bytes()[:-8] + b"damaged!")
    fresh = tmp_path / "fresh"
    assert run_pipe(fresh, "cache", "import", str(moved), code=None).returncode != 0
    assert listed(fresh) == {}
    assert os.listdir(fresh / "drafts") == []
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN true\n"})
    run_pipe(filled, "build", "--cache-to", f"type=local,dest={tmp_path}/steps", str(context))
    refused = run_pipe(fresh, "cache", "import", f"{tmp_path}/steps", code=None)
    assert b"no cache mounts" in refused.stderr
    assert run_pipe(fresh, "cache", "import", f"{tmp_path}/nowhere", code=None).returncode != 0
