"""Unchanged files of a COPY are hard links to the snapshot before, and the layer is that of a build that knew nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.build import Builder
from builder.lines import lines_of
from builder.operations import selection
from builder.operations.linking import link_or_copy
from builder.operations.reuse import Earlier
from builder.operations.walking import Stretch
from builder.prune import entries, on_disk
from builder.request import BuildRequest
from runtime.errors import InvalidInput
from runtime.images.images import Images
from runtime.sandbox.spawner import Spawner
from runtime.store import Store
from runtime.store.layers import hash_layer, write_layer
from runtime.store.usage import usage

pytestmark = pytest.mark.linux

DOCKERFILE = b"FROM scratch\nCOPY --chown=3:4 . /app/\n"
MANY = 200  # files: enough for the second process to help
LARGE = 3 << 20


@pytest.fixture(params=[True, False], ids=["helped", "alone"])
def spawner(request: pytest.FixtureRequest) -> Iterator[Spawner | None]:
    if not request.param:
        yield None
        return
    with Spawner.start() as spawner:
        yield spawner


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files count as if they had been left alone for long."""
    monkeypatch.setattr("builder.digests._QUIET_NS", -(10**15))
    monkeypatch.setattr("builder.operations.copyworker._QUIET_NS", -(10**15))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    for number in range(MANY):
        place = context / f"d{number // 50}" / f"f{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"file {number}")
    (context / "large").write_bytes(bytes(LARGE))
    (context / "link").symlink_to("d0")
    (context / "noted").write_text("with an attribute")
    os.setxattr(context / "noted", "user.note", b"1")
    return context


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as store:
        yield store


@pytest.fixture(params=[False, True], ids=["at once", "after a look"])
def looking(request: pytest.FixtureRequest) -> bool:
    """Whether a build looks first, as the command does, and the work is done with what was seen."""
    return bool(request.param)


@pytest.fixture
def build(spawner: Spawner | None, looking: bool, context: Path) -> Callable[..., Path]:
    """Build the context; where its layer lies."""

    def build(
        store: Store,
        *,
        no_cache: bool = False,
        dockerfile: bytes = DOCKERFILE,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Path:
        images = Images(store)
        # With an epoch, which the directory made on the way carries: else it would tell the builds apart.
        request = BuildRequest(
            context=str(context), dockerfile_text=dockerfile, no_cache=no_cache, epoch=10**9
        )
        builder = Builder(store, images, None, spawner)
        if looking and not no_cache:
            looker = Builder(store, images, None, None)
            looker.look_up(request)
            builder.missed = looker.missed
        meanwhile()
        result = builder.build(request)
        image = images.get(result.image_id)
        snapshot = images.snapshot(image)
        assert snapshot is not None
        layer = store.snapshots.path(snapshot)
        assert hash_layer(layer).diff_id == image.diff_ids[-1]
        return Path(layer, "app")

    return build


def tar_of(layer: Path) -> bytes:
    out = io.BytesIO()
    write_layer(str(layer.parent), out)
    return out.getvalue()


def same_inode(one: Path, other: Path, name: str) -> bool:
    return os.lstat(one / name).st_ino == os.lstat(other / name).st_ino


@pytest.fixture
def as_if_new(build: Callable[..., Path], tmp_path: Path) -> Callable[..., bytes]:
    """The layer a store makes of the context that never saw it before."""

    def make(**how: bytes) -> bytes:
        with Store.open(str(tmp_path / f"store-{len(list(tmp_path.iterdir()))}")) as store:
            return tar_of(build(store, **how))

    return make


def test_unchanged_files_are_links_and_the_layer_is_that_of_a_new_store(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path
) -> None:
    before = build(store)
    (context / "d1" / "f60").write_text("changed")
    after = build(store)
    assert (after / "d1/f60").read_text() == "changed"
    assert not same_inode(before, after, "d1/f60")
    for name in ("d0/f1", "d1/f61", "d3/f199", "large", "noted"):
        assert same_inode(before, after, name), name
    assert (before / "d1/f60").read_text() == "file 60"
    assert tar_of(after) == as_if_new()


def test_a_context_is_gone_through_once(
    build: Callable[..., Path], store: Store, context: Path, monkeypatch: pytest.MonkeyPatch, looking: bool
) -> None:
    build(store)
    (context / "d1" / "f60").write_text("changed")
    listed: list[str] = []

    def counting(top: str, *rest: object) -> Iterator[Stretch]:
        listed.append(top)
        return original(top, *rest)  # type: ignore[arg-type]

    original = selection.stretches
    monkeypatch.setattr(selection, "stretches", counting)
    build(store, meanwhile=lambda: listed.append("then"))
    assert listed == ([str(context), "then"] if looking else ["then", str(context)])


@pytest.mark.parametrize(
    "copy",
    [
        "--chmod=u+w,go-rwx .",
        "--chown=5:6 --chmod=0755 .",
        "--exclude=d2 --exclude=d0/f1* .",
        "--exclude=* --exclude=!d1/** --exclude=!d3/f19* .",
        "--link .",
        "--parents d1 d3",
        "d1 d3",
        "d1/ d3/f19*",
        "[^x]*",
    ],
)
def test_however_files_are_chosen_the_layer_is_that_of_a_new_store(
    build: Callable[..., Path],
    as_if_new: Callable[..., bytes],
    store: Store,
    context: Path,
    copy: str,
) -> None:
    dockerfile = f"FROM scratch\nCOPY {copy} /app/\n".encode()
    (context / ".dockerignore").write_text("d2\nd0/f2*\n!d0/f21")
    before = build(store, dockerfile=dockerfile)
    (context / "d1" / "f60").write_text("changed")
    after = build(store, dockerfile=dockerfile)
    (kept,) = after.rglob("f199")
    assert os.path.samefile(kept, before / kept.relative_to(after))
    assert tar_of(after) == as_if_new(dockerfile=dockerfile)


@pytest.mark.parametrize("looking", [True], indirect=True, ids=["after a look"])
def test_what_changes_after_the_look_is_in_the_next_image_and_harms_neither(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path
) -> None:
    def change() -> None:
        (context / "d0" / "f1").write_text("changed in a stretch that was known")
        (context / "d2" / "f100").unlink()
        (context / "d1" / "f61").write_text("changed beside the first change")
        (context / "d1" / "f62").unlink()
        (context / "d3" / "late").write_text("new")

    build(store)
    (context / "d1" / "f60").write_text("changed")
    seen = build(store, meanwhile=change)
    assert (seen / "d1/f60").read_text() == "changed"
    assert (seen / "d0/f1").read_text() == "file 1"
    assert (seen / "d2/f100").read_text() == "file 100"
    assert (seen / "d1/f61").read_text() == "changed beside the first change"
    assert not (seen / "d1/f62").exists() and not (seen / "d3/late").exists()
    after = build(store)
    assert (after / "d0/f1").read_text() == "changed in a stretch that was known"
    assert (after / "d3/late").exists() and not (after / "d2/f100").exists()
    assert tar_of(after) == as_if_new()


@pytest.mark.parametrize("looking", [True], indirect=True, ids=["after a look"])
@pytest.mark.parametrize("name", ["d3/large", "d3/link", "d2"])
def test_what_is_looked_at_again_and_is_another_ends_the_build(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path, name: str
) -> None:
    def change() -> None:
        place = context / name
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()

    (context / "d3" / "large").write_bytes(bytes(LARGE))
    (context / "d3" / "link").symlink_to("large")
    build(store)
    (context / "d1" / "f60").write_text("changed")
    with pytest.raises(InvalidInput, match=f"{name} changed while it was read"):
        build(store, meanwhile=change)
    assert os.listdir(store.snapshots.drafts) == []
    assert tar_of(build(store)) == as_if_new()


def test_what_the_snapshot_lacks_is_copied(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path
) -> None:
    before = build(store)
    (before / "d0" / "f1").unlink()
    (before / "d2" / "f100").write_text("of another length")
    (context / "d1" / "f60").write_text("changed")
    after = build(store)
    assert same_inode(before, after, "d3/f199")
    assert tar_of(after) == as_if_new()


def test_a_directory_that_the_snapshot_lacks_is_copied(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path
) -> None:
    before = build(store)
    shutil.rmtree(before / "d2")
    (before / "d3").rename(before / "elsewhere")
    (before / "d3").symlink_to("elsewhere")
    (context / "d1" / "f60").write_text("changed")
    after = build(store)
    assert not same_inode(before / "elsewhere", after / "d3", "f199")
    assert tar_of(after) == as_if_new()


def test_why_names_the_file_that_changed_and_no_other(
    build: Callable[..., Path], store: Store, context: Path
) -> None:
    build(store)
    sizes = []
    for change in ("one", "two", "three"):
        (context / "d1" / "f60").write_text(change)
        build(store)
        newest = store.db.read("SELECT key FROM cache_records ORDER BY rowid DESC LIMIT 1")[0]["key"]
        lines = [line.split("\0") for line in lines_of(store.db, newest)]
        assert {line[-1] for line in lines} == {str(path.relative_to(context)) for path in context.rglob("*")}
        (digest,) = [line[0] for line in lines if line[-1] == "d1/f60"]
        assert digest == hashlib.sha256(change.encode()).hexdigest()
        sizes.append(store.db.read("SELECT count(*) AS n FROM cache_lines")[0]["n"])
    assert sizes == [sizes[0], sizes[0] + 1, sizes[0] + 2]


@pytest.mark.parametrize("name", ["d0/f1", "large", "noted"])
def test_what_has_another_time_mode_or_attribute_is_a_copy(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path, name: str
) -> None:
    changes: list[Callable[[Path], None]] = [
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.chmod(0o705),
        lambda path: os.setxattr(path, "user.note", b"2"),
    ]
    before = build(store)
    for change in changes:
        change(context / name)
        build(store)  # its digest is known from now on
        (context / "d3" / "f150").write_text(repr(change))  # times alone are no reason to copy again
        after = build(store)
        assert not same_inode(before, after, name)
        assert same_inode(before, after, "d2/f100")
        assert tar_of(after) == as_if_new()
        before = after


def test_links_within_the_layer_are_those_of_the_source(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path
) -> None:
    (context / "d0" / "twin").write_text("twins")
    os.link(context / "d0" / "twin", context / "d3" / "twin")
    os.utime(context / "d0" / "twin", (7, 7))
    before = build(store)
    assert same_inode(before / "d0", before / "d3", "twin")
    # One file becomes two of the same content: no copy of the one may serve for both.
    (context / "d3" / "twin").unlink()
    (context / "d3" / "twin").write_text("twins")
    os.utime(context / "d3" / "twin", (7, 7))
    build(store)  # links are no reason to copy, but the digests are known from now on
    (context / "d0" / "f0").write_text("a reason to copy")
    apart = build(store)
    assert not same_inode(apart / "d0", apart / "d3", "twin")
    assert tar_of(apart) == as_if_new()
    # And two become one.
    (context / "d3" / "twin").unlink()
    os.link(context / "d0" / "twin", context / "d3" / "twin")
    (context / "d0" / "f0").write_text("another reason")
    again = build(store)
    assert same_inode(again / "d0", again / "d3", "twin")
    assert tar_of(again) == as_if_new()


@pytest.mark.parametrize("name", ["d0/f1", "large"])
def test_an_earlier_file_that_only_looks_the_same_is_no_model(
    build: Callable[..., Path], as_if_new: Callable[[], bytes], store: Store, context: Path, name: str
) -> None:
    before = build(store)
    status = os.stat(before / name)
    with open(before / name, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(before / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    (context / "d0" / "f2").write_text("a reason to look at the files beside it one by one")
    after = build(store)
    assert (after / name).read_bytes() == (context / name).read_bytes()
    assert tar_of(after) == as_if_new()


def test_a_link_where_a_directory_was_is_not_followed(tmp_path: Path) -> None:
    """It could lead out of the snapshot, to a file that somebody writes to."""
    outside, snapshot = tmp_path / "outside", tmp_path / "snapshot"
    for directory in (outside / "d", snapshot / "a" / "d"):
        directory.mkdir(parents=True)
        (directory / "file").write_text("data")
        (directory / "file").chmod(0o644)
        os.utime(directory / "file", ns=(7, 7))
        (directory / "link").symlink_to("file")
    (snapshot / "b").symlink_to(outside)
    with Earlier(str(snapshot)) as earlier:

        def found(directory: str, name: str = "file") -> bool:
            earlier.enter(directory)
            handle = earlier.open(name, 4, 0o644, 0, 0, 7)
            untouched = earlier.open_untouched(name)
            for each in (handle, untouched):
                if each is not None:
                    os.close(each)
            assert (handle is None) == (untouched is None)
            return handle is not None

        assert found("a/d")
        assert not found("b/d")
        assert not found("missing")
        assert not found("a/d", "link")


def test_no_cache_makes_no_use_of_what_was_built_before(
    build: Callable[..., Path], store: Store, context: Path
) -> None:
    before = build(store)
    (context / "d1" / "f60").write_text("changed")
    after = build(store, no_cache=True)
    assert not any(same_inode(before, after, name) for name in ("d0/f1", "large", "noted"))


def test_the_snapshot_before_may_go(build: Callable[..., Path], store: Store, context: Path) -> None:
    before = build(store)
    (context / "d1" / "f60").write_text("changed")
    after = build(store)
    whole = tar_of(after)
    for path in sorted(before.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert tar_of(after) == whole


def test_an_owner_by_name_is_looked_up_again(build: Callable[..., Path], store: Store, context: Path) -> None:
    dockerfile = b"FROM scratch\nCOPY passwd /etc/passwd\nCOPY --chown=app d0 /app/\n"
    (context / "passwd").write_text("app:x:5:6::/:/bin/sh\n")
    before = build(store, dockerfile=dockerfile)
    (context / "passwd").write_text("app:x:7:8::/:/bin/sh\n")
    after = build(store, dockerfile=dockerfile)
    assert os.stat(before / "f1").st_uid == 5
    assert os.stat(after / "f1").st_uid == 7


def test_a_copy_over_a_copy_is_no_model_for_what_lies_below(
    build: Callable[..., Path], store: Store, context: Path
) -> None:
    """Two directories with a file of the same name: what the step left is not what it copied first."""
    dockerfile = b"FROM scratch\nCOPY one two /app/\n"
    for name in ("one", "two"):
        (context / name).mkdir()
        (context / name / "same").write_text(name)
        (context / name / "other").write_text(name * 2)
        os.utime(context / name / "same", (7, 7))
    build(store, dockerfile=dockerfile)
    (context / "two" / "same").unlink()
    after = build(store, dockerfile=dockerfile)
    assert (after / "same").read_text() == "one"
    assert (after / "other").read_text() == "twotwo"


def test_as_many_names_as_the_file_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a copy has to do, with all that a layer tells of a file."""

    def link(source: str, target: str, *, follow_symlinks: bool = True) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), source)

    source = tmp_path / "source"
    source.write_bytes(b"data" * 1000)
    source.chmod(0o4751)
    os.chown(source, 3, 4)
    source.chmod(0o4751)
    os.setxattr(source, "user.note", b"1")
    os.utime(source, ns=(5, 7))
    monkeypatch.setattr(os, "link", link)
    link_or_copy(str(source), str(tmp_path / "target"))
    before, after = os.stat(source), os.stat(tmp_path / "target")
    assert before.st_ino != after.st_ino
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns) == (
        before.st_mode,
        3,
        4,
        before.st_mtime_ns,
    )
    assert os.getxattr(tmp_path / "target", "user.note") == b"1"


def test_what_steps_share_takes_the_disk_once(
    build: Callable[..., Path], store: Store, context: Path
) -> None:
    first = build(store)
    alone = on_disk(store)
    (context / "d1" / "f60").write_text("changed")
    second = build(store)
    du = subprocess.run(["du", "-s", "-B1", first.parent, second.parent], capture_output=True, check=True)
    assert on_disk(store) == sum(int(line.split()[0]) for line in du.stdout.splitlines())
    assert on_disk(store) < alone + LARGE
    assert sum(entry.size for entry in entries(store)) > 2 * LARGE
    assert sum(each.size for each in usage(store)) < alone + LARGE
