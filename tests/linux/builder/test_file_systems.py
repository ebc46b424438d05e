"""Stores on other file systems: the same images by digest, mounted or copied as the place allows, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from runtime.linux import mounts
from tests.linux.builder.test_copied_roots import EVERYTHING, REWRITTEN
from tests.linux.builder.test_kills import EPOCH
from tests.support.builder import build_text, busybox_context, run_pipe
from tests.support.places import mounted, on_loop, served

pytestmark = pytest.mark.linux


@contextmanager
def restricted_memory(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    with mounted("tmpfs", directory, "tmpfs", flags) as place:
        yield place


def loop(*maker: str) -> Callable[[Path], AbstractContextManager[Path]]:
    return lambda directory: on_loop(directory, *maker)


def server(*command: str) -> Callable[[Path], AbstractContextManager[Path]]:
    """A file system in user space over a directory `beside` the mount point."""
    return lambda directory: served(directory, *command)


# Where overlay is mounted; in a store on the others roots are copied.
MOUNTING = {
    "btrfs": loop("mkfs.btrfs", "-q"),
    "ext4": loop("mkfs.ext4", "-q"),
    "xfs": loop("mkfs.xfs", "-q"),
    "tmpfs, noexec": restricted_memory,
}
FUSE_OVERLAY = (
    "fuse-overlayfs",
    "-o",
    "lowerdir={beside}/lower,upperdir={beside}/upper,workdir={beside}/work",
)
COPYING = {
    "bindfs": server("bindfs", "{beside}", "{place}"),
    "fuse-overlayfs": server(*FUSE_OVERLAY, "{place}"),
}
REFUSING = {
    "exfat": loop("mkfs.exfat"),
    "vfat": loop("mkfs.vfat"),
}


@pytest.fixture(scope="module")
def context(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"files/one": "1\n", "files/two": "2\n", "src/x": "x\n"}
    return busybox_context(tmp_path_factory.mktemp("context"), files)


@pytest.fixture(scope="module")
def usual(context: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image as a store on the usual file system has it."""
    return build_text(tmp_path_factory.mktemp("usual") / "store", context, EVERYTHING, *REWRITTEN, env=EPOCH)


@pytest.mark.parametrize("kind", [*MOUNTING, *COPYING])
def test_an_image_is_the_same_on_whatever_file_system(
    usual: str, context: Path, tmp_path: Path, kind: str
) -> None:
    with (MOUNTING | COPYING)[kind](tmp_path / "place") as place:
        root = place / "store"
        said = run_pipe(
            root,
            "build",
            "-t",
            "made:1",
            "-f",
            "-",
            *REWRITTEN,
            str(context),
            stdin=EVERYTHING.encode(),
            env=EPOCH,
        ).stderr.decode()
        assert said.count("copied, which is slower") == (kind in COPYING)
        assert build_text(root, context, EVERYTHING, *REWRITTEN, env=EPOCH) == usual
        assert run_pipe(root, "run", "--rm", "made:1", "cat", "/x/one").stdout == b"1\n"


@pytest.mark.parametrize("kind", REFUSING)
def test_a_file_system_that_keeps_no_owners_is_refused_at_once(
    context: Path, tmp_path: Path, kind: str
) -> None:
    with REFUSING[kind](tmp_path / "place") as place:
        done = run_pipe(place / "store", "build", "-f", "-", str(context), stdin=EVERYTHING.encode(), code=2)
        assert b"cannot keep owners, modes, symbolic links" in done.stderr
        assert b"hint: put the store on a file system of Unix" in done.stderr
