"""Where a store lies decides how its layers are kept and put together: found out once, said clearly, never half."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import HostFault, Unsupported
from runtime.store import Store, probing
from runtime.store.hiding import OVERLAY, PLAIN
from runtime.store.layers import apply_layer, hash_layer, write_layer
from runtime.store.layers.lowers import Lowers
from runtime.store.place import Places
from tests.support.places import mounted, on_overlay, without_attributes
from tests.support.store import Entry, directory, make_tar, tree

pytestmark = pytest.mark.linux

LOWER = make_tar(
    directory("d"),
    Entry("d/a", b"a"),
    Entry("d/b", b"b"),
    directory("o"),
    Entry("o/x", b"x"),
    Entry("f", b"f"),
)
UPPER = make_tar(directory("d"), Entry("d/.wh.a"), directory("o"), Entry("o/.wh..wh..opq"), Entry("o/y", b"y"), Entry(".wh.f"))  # fmt: skip


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    with on_overlay(tmp_path / "place") as place:
        yield place


def record(store: Store) -> str:
    return Path(store.root, "filesystem").read_text()


def unpack(store: Store, *tars: bytes) -> str:
    """The layers as snapshots on top of each other; the top one."""
    at: str | None = None
    for tar in tars:
        with store.snapshots.prepare(at) as draft:
            apply_layer(io.BytesIO(tar), draft.upper, lowers=draft.lowers)
            at = draft.commit().id
    assert at is not None
    return at


def shown(store: Store, snapshot: str) -> list[str]:
    with store.snapshots.mounted(snapshot) as root:
        return sorted(tree(root))


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [OVERLAY, PLAIN], ids=lambda form: form.directory)
def test_a_layer_is_the_same_tar_whatever_its_form(tmp_path: Path, form: type(OVERLAY)) -> None:  # type: ignore[valid-type]
    lower, upper = tmp_path / "1" / form.directory, tmp_path / "2" / form.directory
    for place, tar in ((lower, LOWER), (upper, UPPER)):
        place.mkdir(parents=True)
        apply_layer(io.BytesIO(tar), str(place), lowers=[str(lower)] if place is upper else [])
    out = io.BytesIO()
    write_layer(str(upper), out, lowers=[str(lower)])
    listed = subprocess.run(["tar", "-t"], input=out.getvalue(), capture_output=True, check=True).stdout
    assert listed.decode().split() == [".wh.f", "d/", "d/.wh.a", "o/", "o/.wh..wh..opq", "o/y"]
    stack = Lowers([str(upper), str(lower)])
    assert stack.names(b"") == {b"d", b"o"}
    assert stack.names(b"d") == {b"b"}
    assert stack.names(b"o") == {b"y"}
    assert stack.find(b"f") is stack.find(b"o/x") is stack.find(b"d/a") is None


def test_the_longest_name_can_be_hidden_in_plain_form(tmp_path: Path) -> None:
    name = "n" * 255
    lower, upper = tmp_path / "1" / PLAIN.directory, tmp_path / "2" / PLAIN.directory
    for place in (lower, upper):
        place.mkdir(parents=True)
    (lower / name).touch()
    PLAIN.hide(str(upper / name))
    assert Lowers([str(upper), str(lower)]).names(b"") == set()
    assert hash_layer(str(upper)).entries == 1


def test_an_opaque_mark_leaves_the_time_of_its_directory(tmp_path: Path) -> None:
    for form in (OVERLAY, PLAIN):
        place = tmp_path / form.directory
        place.mkdir()
        os.utime(place, (5, 5))
        form.set_opaque(str(place))
        form.set_opaque(str(place))
        assert form.is_opaque(str(place))
        assert form.is_opaque(os.fsencode(place))
        assert os.stat(place).st_mtime == 5


# --- finding out ------------------------------------------------------------------------------------------------------


def test_where_overlay_serves_that_is_noted_and_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "store")
    with Store.open(root) as store:
        assert not os.path.exists(os.path.join(root, "filesystem"))
        unpack(store, LOWER, UPPER)
        assert record(store).startswith("fs:")
        assert store.snapshots.copied_because == ""
        assert os.listdir(store.snapshots.drafts) == []
    monkeypatch.delattr(probing, "probe")
    with Store.open(root) as store:
        top = unpack(store, LOWER, UPPER)
        assert shown(store, top) == ["d", "d/b", "o", "o/y"]


def test_on_an_overlay_layers_are_plain_and_views_are_copied(merged: Path) -> None:
    with Store.open(str(merged / "store")) as store:
        top = unpack(store, LOWER, UPPER)
        assert record(store).startswith("fs-plain:")
        assert "overlay" in store.snapshots.copied_because
        assert shown(store, top) == ["d", "d/b", "o", "o/y"]
        assert store.root not in "".join(
            line for line in Path("/proc/self/mounts").read_text().splitlines() if "drafts" in line
        )


def test_whoever_opened_the_store_before_it_had_a_form_finds_what_others_made(merged: Path) -> None:
    root = str(merged / "store")
    with Store.open(root) as early, Store.open(root) as store:
        top = unpack(store, LOWER, UPPER)
        assert early.snapshots.find(top) is not None
        assert shown(early, top) == ["d", "d/b", "o", "o/y"]


def test_a_plain_store_stays_plain_on_a_better_file_system(merged: Path, tmp_path: Path) -> None:
    with Store.open(str(merged / "store")) as store:
        top = unpack(store, LOWER, UPPER)
    subprocess.run(["cp", "-a", str(merged / "store"), str(tmp_path / "moved")], check=True)
    with Store.open(str(tmp_path / "moved")) as store:
        again = unpack(store, LOWER, UPPER)
        assert store.snapshots.path(again).endswith("/fs-plain")
        assert store.snapshots.copied_because != ""
        assert shown(store, top) == shown(store, again) == ["d", "d/b", "o", "o/y"]
    os.unlink(tmp_path / "moved" / "filesystem")
    with Store.open(str(tmp_path / "moved")) as store:
        unpack(store, LOWER)
        assert shown(store, top) == ["d", "d/b", "o", "o/y"]  # what lies there says it too


def test_an_overlay_store_goes_on_by_copying_where_overlay_cannot_be_mounted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "store")
    with Store.open(root) as store:
        top = unpack(store, LOWER, UPPER)
        known = record(store)
    Path(root, "filesystem").write_text(known.replace(known.split(":")[1], "anotherboot"))

    def refused(*directories: str) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(probing, "_mount", refused)
    with Store.open(root) as store:
        assert "is refused: Invalid argument" in store.snapshots.copied_because
        assert shown(store, top) == ["d", "d/b", "o", "o/y"]
        with store.snapshots.prepare(top) as draft:
            with draft.merged() as view:
                os.unlink(os.path.join(view, "d", "b"))
            made = draft.commit()
        assert OVERLAY.is_whiteout(os.lstat(os.path.join(store.snapshots.path(made.id), "d", "b")))


def test_an_overlay_store_that_came_to_where_its_marks_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "store")
    with Store.open(root) as store:
        unpack(store, LOWER)
        known = record(store)
    Path(root, "filesystem").write_text(known.replace(known.split(":")[1], "anotherboot"))
    monkeypatch.setattr(probing, "_holds", lambda place: False)
    with Store.open(root) as store, pytest.raises(Unsupported, match="in overlay form, which") as caught:
        store.snapshots.prepare()
    assert "PIPE_ROOT" in caught.value.hint


def test_layers_an_older_pipe_unpacked_on_an_overlay_are_found_again(merged: Path) -> None:
    with Store.open(str(merged / "store")) as store:
        old = unpack(store, LOWER)
        os.rename(store.snapshots.path(old), os.path.dirname(store.snapshots.path(old)) + "/fs")
        os.unlink(os.path.join(store.root, "filesystem"))
    with Store.open(str(merged / "store")) as store:
        assert store.snapshots.find(old) is not None
        unpack(store, LOWER, UPPER)
        assert store.snapshots.find(old) is not None
        assert store.snapshots.path(old).endswith("/fs-plain")


def test_lack_of_privileges_is_not_noted_as_a_property_of_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*directories: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(probing, "_mount", forbidden)
    with Store.open(str(tmp_path / "store")) as store:
        assert "not permitted" in store.snapshots.copied_because
        assert not os.path.exists(os.path.join(store.root, "filesystem"))


def test_who_is_not_root_has_a_store_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delattr(probing, "_holds")
    with Store.open(str(tmp_path / "store")) as store:
        store.snapshots.prepare().discard()
        assert not os.path.exists(os.path.join(store.root, "filesystem"))


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_copying_can_be_asked_for_and_mounting_insisted_on(tmp_path: Path, merged: Path) -> None:
    with Store.open(str(tmp_path / "store"), snapshots="copy") as store:
        assert "PIPE_SNAPSHOTS=copy" in store.snapshots.copied_because
        assert shown(store, unpack(store, LOWER, UPPER)) == ["d", "d/b", "o", "o/y"]
    with Store.open(str(merged / "store"), snapshots="overlay") as store:
        top = unpack(store, LOWER, LOWER)
        assert store.snapshots.copied_because == ""
        with pytest.raises(HostFault, match="cannot mount an overlay"), store.snapshots.prepare(top) as draft:
            with draft.merged():
                pass
    with Store.open(str(merged / "plain")) as store:
        top = unpack(store, LOWER, UPPER)
    with Store.open(str(merged / "plain"), snapshots="overlay") as store:
        with pytest.raises(Unsupported, match="in plain form") as caught, store.snapshots.mounted(top):
            pass
        assert "PIPE_SNAPSHOTS=overlay" in caught.value.hint


# --- what cannot be done ----------------------------------------------------------------------------------------------


def test_what_a_file_system_without_attributes_cannot_keep_is_named(tmp_path: Path) -> None:
    noted = make_tar(Entry("f", b"f", pax={"SCHILY.xattr.user.note": "n"}))
    with without_attributes(tmp_path / "ram") as place, Store.open(str(place / "store")) as store:
        assert shown(store, unpack(store, LOWER, UPPER)) == ["d", "d/b", "o", "o/y"]
        store.snapshots.close()
        before = sorted(os.listdir(store.snapshots.directory))
        with pytest.raises(HostFault, match=r"no extended attribute user\.note, .* 'f' has") as caught:
            unpack(store, noted)
        assert "PIPE_ROOT" in caught.value.hint
        assert sorted(os.listdir(store.snapshots.directory)) == before
        assert os.listdir(store.snapshots.drafts) == []


def test_a_file_system_without_owners_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT refuses them."""

    def refused(*arguments: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with Store.open(str(tmp_path / "store")) as store:
        with monkeypatch.context() as patched:
            for name in ("chown", "symlink"):
                patched.setattr(os, name, refused)
            with pytest.raises(Unsupported, match="cannot keep owners, symbolic links of files") as caught:
                store.snapshots.prepare()
            assert "PIPE_ROOT" in caught.value.hint
        assert os.listdir(store.snapshots.drafts) == []


def test_a_read_only_file_system_says_so(tmp_path: Path) -> None:
    from runtime.linux import mounts

    (tmp_path / "place").mkdir()
    with mounted("tmpfs", tmp_path / "place", "tmpfs") as place:
        Store.open(str(place / "store")).close()
        mounts.mount("", str(place), "", mounts.MS_REMOUNT | mounts.MS_RDONLY)
        with pytest.raises(HostFault, match="Read-only file system"):
            Places(str(place / "store"), 0).settled_form()


def test_a_full_disk_is_not_taken_for_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with mounted("tmpfs", tmp_path / "place", "tmpfs", options="nr_inodes=200") as place:
        with Store.open(str(place / "store")) as store:
            left = 0
            with pytest.raises(OSError, match="No space"):
                for left in range(1000):
                    (place / str(left)).touch()
            (place / "0").unlink()
            with pytest.raises(HostFault, match="No space left"):
                store.snapshots.prepare()
            assert not os.path.exists(os.path.join(store.root, "filesystem"))
            for number in range(1, left):
                (place / str(number)).unlink()
            store.snapshots.prepare().discard()
            assert record(store).startswith("fs:")


def test_probing_leaves_nothing_behind(tmp_path: Path) -> None:
    assert probing.probe(str(tmp_path)).holds
    assert os.listdir(tmp_path) == []
    shutil.rmtree(tmp_path)
