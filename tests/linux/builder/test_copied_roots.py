"""Builds in a store on an overlay, where roots are copied: the same images, by digest, and all that is promised elsewhere."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.linux.builder import test_run
from tests.linux.builder.test_against_buildah import Buildah, tree_in_tar, without_stubs
from tests.linux.builder.test_kills import EPOCH, Scene, kill_often
from tests.support.builder import (
    BASE,
    PROJECT,
    build_text,
    busybox_context,
    log_of,
    make_base,
    run_pipe,
    write_files,
)
from tests.support.pipe_command import Project
from tests.support.places import in_memory, on_overlay

pytestmark = pytest.mark.linux

REWRITTEN = ("-o", "type=image,rewrite-timestamp=true")
EVERYTHING = """FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
RUN mkdir -p /etc /tmp /a/b/c /d && chmod 1777 /tmp && echo x > /a/b/c/x && ln /a/b/c/x /a/y && echo 1 > /d/one && echo 2 > /d/two \\
    && ln -s one /d/l && mkfifo /d/f && mknod /d/null c 1 3 && touch -d @5 /d/old && truncate -s 9M /d/sparse && chmod 4755 /d/two
RUN rm -rf /a/b && mkdir /a/b && echo new > /a/b/n; rm /d/one; echo more >> /d/two
COPY files /d/files
WORKDIR /w/deep
RUN mv /d /e; chown 5:6 /e/two; touch /tmp/x; rm /tmp/x
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t --mount=type=bind,source=files,target=/src cp /src/one . && rm -r /a && echo hi > /a
RUN echo app >> /passwd; : >> /etc/resolve; ln /e/two /e/twin; mkdir /n.new && echo n > /n.new/n && mv /n.new /n
RUN : >> /passwd; : >> /e/twin; mkdir /x.new && echo x > /x.new/x && mv /x.new /x
FROM base AS other
RUN --mount=type=bind,from=base,source=/e,target=/m,rw cp -r /m/files /f && echo lost > /m/files/one
FROM base
COPY --from=other /f /f
COPY --link --from=base /e/two /two
COPY --from=base --chown=7:8 /e/files /e/old /x/
RUN cat /f/one && test ! -e /lost && rm -r /f && mkdir /f && rmdir /w/deep 2> /dev/null; true
"""


@pytest.fixture(scope="module")
def place(host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with on_overlay(tmp_path_factory.mktemp("place")) as merged:
        yield merged


@pytest.fixture(scope="module")
def copied_store(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_base(place / "store", tmp_path_factory.mktemp("base"))
    return place / "store"


@pytest.fixture
def root(copied_store: Path) -> Path:
    return copied_store


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return busybox_context(tmp_path / "c", {"files/one": "1\n", "files/two": "2\n", "src/x": "x\n"})


# The same tests, in the store above.
test_no_mount_point_lands_in_a_layer = test_run.test_no_mount_point_lands_in_a_layer
test_mount_points_that_a_layer_hides_are_cleaned_away = (
    test_run.test_mount_points_that_a_layer_hides_are_cleaned_away
)
test_an_empty_step_is_still_a_layer = test_run.test_an_empty_step_is_still_a_layer


def keys(root: Path) -> set[str]:
    with closing(sqlite3.connect(root / "pipe.db")) as database:
        return {key for (key,) in database.execute("SELECT key FROM cache_records")}


def test_images_and_keys_are_those_of_a_store_that_mounts(place: Path, context: Path, tmp_path: Path) -> None:
    stores = {tmp_path / "mounting": "overlay", tmp_path / "copying": "copy", place / tmp_path.name: "auto"}
    images = [
        build_text(root, context, EVERYTHING, *REWRITTEN, env={**EPOCH, "PIPE_SNAPSHOTS": snapshots})
        for root, snapshots in stores.items()
    ]
    assert len(set(images)) == 1
    (found,) = {frozenset(keys(root)) for root in stores}
    assert len(found) >= 16


AS_BUILDAH = """FROM base:1
RUN mkdir -p /a/b/c /d && echo x > /a/b/c/x && ln /a/b/c/x /a/y && echo 1 > /d/one && echo 2 > /d/two && ln -s one /d/l && chmod 4755 /d/two
RUN rm -rf /a/b && mkdir /a/b && echo new > /a/b/n; rm /d/one; echo more >> /d/two
COPY --chown=3:4 files /d/files
RUN mv /d /e; chown 5:6 /e/two; touch /tmp/x; rm /tmp/x; cp /e/files/one /f
COPY src /e/files/
RUN rm -r /a && echo hi > /a && rm /f && mkdir /f
"""


def test_an_output_is_the_tree_buildah_makes(root: Path, context: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pipe-buildah-") as short:
        buildah = Buildah(short)
        buildah.build(context, BASE, "base:1")
        buildah.build(context, AS_BUILDAH, "case:1")
        theirs, _ = buildah.look("case:1")
    output = ("-o", "type=tar,dest=-", "-f", "-", str(context))
    ours = tree_in_tar(run_pipe(root, "build", *output, stdin=AS_BUILDAH.encode()).stdout)
    assert without_stubs(ours) == without_stubs(theirs)


def test_an_image_leaves_by_skopeo_and_comes_back(root: Path, context: Path, tmp_path: Path) -> None:
    out, copied = tmp_path / "oci.tar", tmp_path / "copied.tar"
    image = build_text(root, context, EVERYTHING, "-t", "gone:1", "-o", f"type=oci,dest={out}")
    command = ["skopeo", "copy", "-q", f"oci-archive:{out}", f"docker-archive:{copied}:gone:2"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    run_pipe(root, "rmi", "-f", "gone:1")
    run_pipe(root, "cache", "prune", "-af")
    assert (
        image.encode()
        in run_pipe(root, "load", "-i", str(copied)).stdout
        + run_pipe(root, "images", "-aq", "--no-trunc").stdout
    )
    assert run_pipe(root, "run", "--rm", "gone:2", "cat", "/x/one").stdout == b"1\n"


def test_it_is_said_once_that_roots_are_copied(root: Path, context: Path) -> None:
    said = log_of(root, context, "--no-cache", "-f", "-", stdin=b"FROM base:1\nRUN echo 1\nRUN echo 2\n")
    assert said.count("copied, which is slower: overlay cannot carry an overlay") == 1
    report = run_pipe(root, "doctor", code=None).stdout
    assert b"carries no overlay" in report


def test_mounting_can_be_insisted_on_and_is_refused_with_the_way_out(place: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": 'FROM scratch\nCOPY a /\nRUN ["/a"]\n', "a": "1"})
    done = run_pipe(place / "other", "build", str(context), env={"PIPE_SNAPSHOTS": "overlay"}, code=3)
    assert b"is refused" in done.stderr
    assert b"PIPE_ROOT" in done.stderr
    done = run_pipe(place / "other", "build", str(context), env={"PIPE_SNAPSHOTS": "maybe"}, code=2)
    assert b"auto, overlay, copy" in done.stderr


def test_a_failed_step_and_any_step_can_be_looked_at(root: Path, context: Path) -> None:
    failing = b"FROM base:1\nWORKDIR /w\nRUN echo one > one\nRUN rm one && echo two > two && exit 7\n"
    run_pipe(root, "build", "-f", "-", str(context), stdin=failing, code=1)
    done = run_pipe(root, "shell", "--last-failed", "--", "ls", "/w")
    assert done.stdout == b"two\n"
    build_text(root, context, "FROM base:1\nRUN echo 1 > /s\nRUN echo 2 > /s\n", "-t", "steps:1")
    assert run_pipe(root, "shell", "steps:1@echo 1", "--", "cat", "/s").stdout == b"1\n"


def test_two_builds_at_once_do_not_meet(root: Path, context: Path) -> None:
    dockerfile = "FROM base:1\nRUN echo {0} > /who; for i in 1 2 3 4 5 6 7 8; do echo {0} >> /who; done\nRUN cat /who > /again\n"
    with ThreadPoolExecutor(2) as pool:
        names = ("left", "right")
        list(pool.map(lambda n: build_text(root, context, dockerfile.format(n), "-t", f"{n}:1"), names))
    for name in names:
        seen = run_pipe(root, "run", "--rm", f"{name}:1", "cat", "/again").stdout.decode().split()
        assert seen == [name] * 9
    assert os.listdir(root / "drafts") == []


def test_stages_run_on_copied_roots(place: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "work", place / "stages")
    try:
        project.write("""
            stages:
              unit:
                image: box
                checkout: /src
                run: test -f /src/pipe.yaml && echo changed > /src/pipe.yaml && echo hello
            """)
        done = project.pipe("test")
        assert "hello" in done.text
        assert "changed" not in (tmp_path / "work" / "pipe.yaml").read_text().split("\n")[0]
    finally:
        project.close()


def test_a_build_killed_while_roots_are_copied_leaves_nothing(place: Path) -> None:
    kill_often(place / "killed", 2, seed=os.getpid())


@pytest.mark.slow
def test_twenty_builds_killed_while_roots_are_copied_leave_nothing(place: Path) -> None:
    kill_often(place / "often", 20, seed=1)


def test_killed_builds_give_the_image_of_a_store_that_mounts(place: Path, tmp_path: Path) -> None:
    scene, usual = Scene(place / "scene"), Scene(tmp_path / "usual")
    try:
        assert scene.build() == usual.build()
    finally:
        scene.clean_up()
        usual.clean_up()


def test_a_disk_that_is_full_with_copies_says_so_and_the_next_build_works(tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "c", {"big": os.urandom(20 << 20)})
    dockerfile = 'FROM scratch\nCOPY busybox big /\nRUN ["/busybox", "true"]\n'
    with in_memory(tmp_path / "small", "40m") as small:
        settings = {"stdin": dockerfile.encode(), "env": {"PIPE_SNAPSHOTS": "copy"}}
        done = run_pipe(small / "store", "build", "-f", "-", str(context), code=3, **settings)
        assert b"cannot copy the layers" in done.stderr
        assert b"No space left" in done.stderr
        assert os.listdir(small / "store" / "drafts") == []
        from runtime.linux import mounts

        mounts.mount("", str(small), "", mounts.MS_REMOUNT, "size=120m")
        run_pipe(small / "store", "build", "-f", "-", str(context), **settings)


def test_an_interrupt_while_a_root_is_copied_ends_the_build(place: Path, tmp_path: Path) -> None:
    """The signal comes while the first copy is made: the copier asks between files."""
    context = busybox_context(tmp_path / "c", {f"many/{n}": "x" for n in range(3000)})
    dockerfile = 'FROM scratch\nCOPY . /\nRUN ["/busybox", "sleep", "1000"]\n'
    code = """
import os, signal, sys
from runtime.store import merging
real = merging.Merged._copied
def copied(self, *arguments):
    if self._count == 500:
        os.kill(os.getpid(), signal.SIGINT)
    return real(self, *arguments)
merging.Merged._copied = copied
from pipeline.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
    command = [
        sys.executable,
        "-c",
        code,
        "--root",
        str(place / "interrupted"),
        "build",
        "-f",
        "-",
        str(context),
    ]
    env = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, input=dockerfile.encode(), env=env, capture_output=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert os.listdir(place / "interrupted" / "drafts") == []


def test_a_step_with_all_capabilities_cannot_reach_the_layers_through_a_mount(
    root: Path, context: Path
) -> None:
    build_text(root, context, "FROM base:1\nRUN echo good > /file\nRUN echo 2 > /other\n", "-t", "kept:1")
    change = "mount -o remount,bind,rw /m && echo bad > /m/file; cat /m/file > /seen"
    mounting = f"FROM base:1\nRUN --security=insecure --mount=type=bind,from=kept:1,target=/m {change}\n"
    build_text(root, context, mounting, "--allow", "security.insecure", "-t", "seen:1")
    assert run_pipe(root, "run", "--rm", "seen:1", "cat", "/seen").stdout == b"bad\n"
    assert run_pipe(root, "run", "--rm", "kept:1", "cat", "/file").stdout == b"good\n"
