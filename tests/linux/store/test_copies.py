"""Views and trees made by copying: what comes of a program's changes must be what overlayfs makes of them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import HostFault
from runtime.store import Store
from runtime.store.layers import hash_layer
from runtime.store.snapshots import Snapshot
from tests.support.places import in_memory, on_overlay
from tests.support.store import tree

pytestmark = pytest.mark.linux

EPOCH = 1_000_000_000  # what is written now is newer, so its time does not count
Program = Callable[[Path], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with on_overlay(tmp_path_factory.mktemp("place")) as merged:
        yield merged


@pytest.fixture
def plain(place: Path, tmp_path: Path) -> Iterator[Store]:
    """A store on an overlay: its layers are in plain form, its views copied."""
    with Store.open(str(place / tmp_path.name)) as store:
        yield store


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[Store]:
    """A store in overlay form whose views are copied."""
    with Store.open(str(tmp_path / "copying"), snapshots="copy") as store:
        yield store


@pytest.fixture
def mounting(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "mounting"), snapshots="overlay") as store:
        yield store


@pytest.fixture(params=["plain", "copying"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def base(root: Path) -> None:
    """What the programs below begin with."""
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "file").write_text("old")
    (root / "d" / "sub" / "deep").write_text("deep")
    (root / "e").mkdir()
    (root / "f").write_text("f")
    (root / "link").symlink_to("f")
    os.link(root / "f", root / "twin")
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            os.utime(Path(directory, name), (EPOCH - 5, EPOCH - 5), follow_symlinks=False)


def step(store: Store, parent: Snapshot | None, program: Program) -> Snapshot:
    with store.snapshots.prepare(parent.id if parent else None) as draft:
        with draft.merged() as root:
            program(Path(root))
        return draft.commit()


def digests(store: Store, *programs: Program) -> list[str]:
    """The diff_id of each step's layer."""
    found: list[str] = []
    parent: Snapshot | None = None
    for program in programs:
        parent = step(store, parent, program)
        lowers = store.snapshots.lowers(parent.id)
        found.append(hash_layer(lowers[0], epoch=EPOCH, lowers=lowers[1:]).diff_id)
    return found


def move(source: Path, target: Path) -> None:
    """As mv(1): overlayfs refuses to rename a directory of a lower layer, so it is copied there."""
    try:
        os.rename(source, target)
    except OSError:
        shutil.copytree(source, target, symlinks=True)
        shutil.rmtree(source)


def replace_directory(root: Path) -> None:
    shutil.rmtree(root / "d")
    (root / "d").mkdir()
    (root / "d" / "new").write_text("n")


def write_behind_the_times(root: Path) -> None:
    before = os.stat(root / "d" / "file")
    (root / "d" / "file").write_text("NEW")
    os.utime(root / "d" / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(root: Path) -> None:
    for one, other in (("d/file", "t"), ("f", "d/file"), ("t", "f")):
        os.rename(root / one, root / other)


def make_everything(root: Path) -> None:
    (root / "x").mkdir(mode=0o2750)
    os.mkfifo(root / "x" / "fifo")
    os.mknod(root / "x" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "x" / "setuid").write_text("s")
    (root / "x" / "setuid").chmod(0o4755)
    os.chown(root / "x" / "setuid", 5, 6)
    (root / "x" / "setuid").chmod(0o4755)
    os.setxattr(root / "x" / "setuid", "user.note", b"n")
    os.setxattr(root / "x" / "setuid", "security.capability", b"\x01\0\0\x02" + bytes(16))
    os.setxattr(root / "x", "user.note", b"d")
    os.link(root / "x" / "setuid", root / "x" / "again")
    (root / "x" / "dangling").symlink_to("/nowhere")


PROGRAMS: dict[str, tuple[Program, ...]] = {
    "nothing": (lambda root: None,),
    "a file in place": (lambda root: (root / "d" / "file").write_text("changed"),),
    "a file, its time put back": (write_behind_the_times,),
    "a mode": (lambda root: (root / "d" / "file").chmod(0o600),),
    "the mode it had": (lambda root: (root / "d" / "file").chmod((root / "d" / "file").stat().st_mode),),
    "a directory's mode": (lambda root: (root / "d").chmod(0o700),),
    "a directory's time": (lambda root: os.utime(root / "d"),),
    "an attribute": (lambda root: os.setxattr(root / "d", "user.a", b"1"),),
    "an owner": (lambda root: os.chown(root / "d" / "sub" / "deep", 3, 4),),
    "a link's owner": (lambda root: os.lchown(root / "link", 3, 4),),
    "a file opened for writing": (lambda root: (root / "d" / "file").open("a").close(),),
    "one name of two opened for writing": (lambda root: (root / "twin").open("a").close(),),
    "one name of two replaced after it was opened": (
        lambda root: (
            (root / "f").open("a").close(),
            (root / "new").touch(),
            os.rename(root / "new", root / "f"),
        ),
    ),
    "a deleted file": (lambda root: (root / "d" / "file").unlink(),),
    "a deleted directory": (lambda root: shutil.rmtree(root / "d"),),
    "one made and deleted": (lambda root: ((root / "e" / "x").mkdir(), (root / "e" / "x").rmdir()),),
    "a replaced directory": (replace_directory,),
    "a replaced directory, twice": (replace_directory, replace_directory),
    "a directory in place of a file": (lambda root: ((root / "f").unlink(), (root / "f").mkdir()),),
    "a file in place of a directory": (
        lambda root: (shutil.rmtree(root / "d"), (root / "d").write_text("")),
    ),
    "deleted, then made again": (
        lambda root: shutil.rmtree(root / "d"),
        lambda root: (root / "d" / "sub").mkdir(parents=True),
        lambda root: (root / "d" / "sub" / "x").write_text("x"),
    ),
    "a moved directory": (lambda root: move(root / "d", root / "e" / "d"),),
    "a new directory moved": (
        lambda root: (root / "n" / "m").mkdir(parents=True),
        lambda root: move(root / "n", root / "o"),
    ),
    "files that changed places": (swap,),
    "a file over itself": (
        lambda root: ((root / "new").write_text("old"), os.rename(root / "new", root / "d" / "file")),
    ),
    "one name of two deleted": (lambda root: (root / "twin").unlink(),),
    "a new directory renamed into place": (
        lambda root: ((root / "e" / "new").mkdir(), os.rename(root / "e" / "new", root / "e" / "name")),
    ),
    "a new directory renamed into the place of another": (
        lambda root: (shutil.rmtree(root / "d"), (root / "new").mkdir(), os.rename(root / "new", root / "d")),
    ),
    "a third name": (lambda root: os.link(root / "d" / "file", root / "third"),),
    "every kind": (make_everything, lambda root: (root / "x" / "setuid").unlink(), replace_directory),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_copied_root_gives_the_layers_a_mounted_one_does(store: Store, mounting: Store, name: str) -> None:
    programs = (base, *PROGRAMS[name])
    assert digests(store, *programs) == digests(mounting, *programs)


# --- whatever a program does ------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ACTIONS = st.tuples(
    st.sampled_from(["write", "append", "mkdir", "remove", "chmod", "chown", "symlink", "move", "xattr"]),
    PATHS,
    PATHS,
)
STEPS = st.lists(st.lists(ACTIONS, min_size=1, max_size=6), min_size=1, max_size=4)


def act(root: Path, kind: str, path: str, other: str) -> None:
    place = root / path
    try:
        match kind:
            case "write":
                place.write_text(other)
            case "append" if place.is_file() and not place.is_symlink():
                with place.open("a") as file:
                    file.write(other)
            case "mkdir":
                place.mkdir()
            case "remove" if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            case "remove":
                place.unlink()
            case "chmod" if not place.is_symlink():
                place.chmod(0o700 if len(other) % 2 else 0o755)
            case "chown":
                os.lchown(place, len(other), 0)
            case "symlink":
                place.symlink_to(f"/nowhere/{other}")
            case "move" if not f"{other}/".startswith(f"{path}/") and not os.path.lexists(root / other):
                move(place, root / other)
            case "xattr" if not place.is_symlink():
                os.setxattr(place, "user.x", other.encode())
    except OSError:
        pass  # it cannot be done in either kind of store


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_program_gives_the_layers_it_gives_on_an_overlay(
    plain: Store, copying: Store, mounting: Store, steps: list[list[tuple[str, str, str]]]
) -> None:
    def program(actions: list[tuple[str, str, str]]) -> Program:
        return lambda root: [act(root, *action) for action in actions]

    programs = [program(actions) for actions in steps]
    expected = digests(mounting, *programs)
    assert digests(copying, *programs) == expected
    assert digests(plain, *programs) == expected


# --- trees ------------------------------------------------------------------------------------------------------------


def test_a_tree_goes_from_step_to_step_and_is_copied_once(store: Store) -> None:
    inodes: list[int] = []

    def look(root: Path) -> None:
        inodes.append(os.stat(root / "d" / "file").st_ino)
        (root / f"step-{len(inodes)}").write_text("")

    at = step(store, None, base)
    for _ in range(3):
        at = step(store, at, look)
    assert len(set(inodes)) == 1
    with store.snapshots.mounted(at.id) as root:
        assert {"step-1", "step-2", "step-3", "d", "f"} <= set(os.listdir(root))


def test_a_layer_between_two_steps_is_in_the_tree_of_the_second(store: Store) -> None:
    first = step(store, None, base)
    second = step(store, first, lambda root: (root / "d" / "file").unlink())
    with store.snapshots.prepare(second.id) as draft:
        Path(draft.upper, "copied").write_text("c")
        third = draft.commit()
    seen: list[set[str]] = []
    step(store, third, lambda root: seen.append({*os.listdir(root), *os.listdir(root / "d")}))
    assert seen == [{"d", "e", "f", "link", "twin", "copied", "sub"}]


def test_two_steps_on_one_parent_do_not_see_each_other(store: Store) -> None:
    parent = step(store, None, base)
    meeting = threading.Barrier(2)
    found: dict[str, set[str]] = {}

    def work(name: str) -> None:
        def program(root: Path) -> None:
            (root / name).write_text(name)
            meeting.wait(60)
            found[name] = set(os.listdir(root)) & {"one", "two"}

        step(store, parent, program)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": {"one"}, "two": {"two"}}


def test_what_was_written_to_a_draft_before_stays_in_its_layer(store: Store, mounting: Store) -> None:
    def layer(each: Store) -> dict[str, object]:
        parent = step(each, None, base)
        with each.snapshots.prepare(parent.id) as draft:
            Path(draft.upper, "early").write_text("e")
            with draft.merged() as root:
                assert Path(root, "early").read_text() == "e"
                Path(root, "late").write_text("l")
            made = draft.commit()
        return tree(each.snapshots.path(made.id), times=False)

    assert layer(store) == layer(mounting)


def test_sockets_are_no_part_of_a_layer(store: Store) -> None:
    def listen(root: Path) -> None:
        here = os.open(root, os.O_PATH)
        try:
            with closing(socket.socket(socket.AF_UNIX)) as listener:
                listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
        (root / "file").write_text("f")

    parent = step(store, None, base)
    top = step(store, parent, listen)
    with store.snapshots.mounted(top.id) as root:
        assert "file" in os.listdir(root)
        assert "socket" not in os.listdir(root)


def test_holes_stay_holes(store: Store) -> None:
    def make(root: Path) -> None:
        with (root / "sparse").open("wb") as file:
            file.truncate(1 << 30)
            file.seek(1 << 29)
            file.write(b"middle")

    parent = step(store, None, make)
    status: list[os.stat_result] = []

    def look(root: Path) -> None:
        status.append(os.stat(root / "sparse"))
        with (root / "sparse").open("rb") as file:
            file.seek(1 << 29)
            assert file.read(8) == b"middle\0\0"

    step(store, parent, look)
    assert status[0].st_size == 1 << 30
    assert status[0].st_blocks * 512 < 1 << 20


def test_a_view_is_the_layers_whatever_the_mode_and_shares_their_files(store: Store, mounting: Store) -> None:
    views = []
    for each in (store, mounting):
        parent = step(each, None, base)
        top = step(each, parent, make_everything)
        again = step(each, top, replace_directory)
        with each.snapshots.mounted(again.id) as root:
            found = tree(root, times=False)
            views.append({name: (*entry[:4], *entry[5:]) for name, entry in found.items()})
            if each is store:
                path = Path(each.snapshots.path(parent.id), "f")
                assert os.stat(path).st_ino == os.stat(Path(root, "f")).st_ino
    assert views[0] == views[1]


def test_nothing_is_kept_after_the_store_is_left(place: Path, tmp_path: Path) -> None:
    root = str(place / tmp_path.name)
    with Store.open(root) as store:
        top = step(store, step(store, None, base), replace_directory)
        with store.snapshots.mounted(top.id):
            pass
        assert os.listdir(store.snapshots.drafts) != []
    assert os.listdir(os.path.join(root, "drafts")) == []


def test_what_a_killed_copier_left_is_collected(plain: Store) -> None:
    code = """
import os, signal, sys
from runtime.store import Store
store = Store.open(sys.argv[1])
first = store.snapshots.prepare().commit()
with store.snapshots.prepare(first.id) as draft, draft.merged() as root:
    open(os.path.join(root, "x"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, plain.root]).returncode == -9
    assert len(os.listdir(plain.snapshots.drafts)) == 2
    plain.collect()
    assert os.listdir(plain.snapshots.drafts) == []


def test_no_room_for_a_copy_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with in_memory(tmp_path / "small", "24m") as small:
        with Store.open(str(small / "store"), snapshots="copy") as store:
            parent = step(store, None, lambda root: (root / "big").write_bytes(os.urandom(9 << 20)))
            store.snapshots.close()
            (small / "ballast").write_bytes(bytes(8 << 20))
            with pytest.raises(HostFault, match=r"cannot copy the layers to .*: No space left") as caught:
                step(store, parent, lambda root: None)
            assert "free some space" in caught.value.hint
            assert os.listdir(store.snapshots.drafts) == []
            (small / "ballast").unlink()
            step(store, parent, lambda root: (root / "small").write_text(""))
