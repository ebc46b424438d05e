"""Receiving a client's directory: what docker's own client sent, and what none should send."""

from __future__ import annotations

import os
import socket
import stat as modes
import threading
from pathlib import Path

import pytest

from builder.control.filesend import _send_directory
from builder.control.filesync import Receiver, go_mode, metadata, receive_files, unix_mode
from builder.control.messages import files
from builder.control.messages.files import Packet, PacketType, Stat
from runtime.errors import InvalidInput
from runtime.grpc.client import open_stream
from runtime.grpc.connection import Connection
from runtime.grpc.server import serve
from runtime.grpc.stream import Stream
from tests.support.packets import Played, played, recorded

WHEN = 1_612_325_106_123_456_789


def receive(stream: Played, root: Path) -> Played:
    Receiver(stream, str(root)).run()  # type: ignore[arg-type]  # all it needs of a Stream
    assert stream.ended
    return stream


def seen(root: Path) -> dict[str, tuple[str, int, object]]:
    """Of every entry its mode as `ls` writes it, and its content."""
    found: dict[str, tuple[str, int, object]] = {}
    for directory, below, names in os.walk(root):
        for name in (*below, *names):
            path = Path(directory, name)
            status = path.lstat()
            content: object = None
            if modes.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif modes.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[str(path.relative_to(root))] = (modes.filemode(status.st_mode), status.st_mtime_ns, content)
    return found


def file(path: str, data: bytes = b"", mode: int = 0o644, **more: object) -> tuple[Stat, bytes]:
    return Stat(path, mode, size=len(data), modified=WHEN, **more), data  # type: ignore[arg-type]


def directory(path: str, mode: int = 0o755) -> tuple[Stat, bytes]:
    return Stat(path, files.DIRECTORY | mode, modified=WHEN), b""


def link(path: str, text: str) -> tuple[Stat, bytes]:
    return Stat(path, files.SYMLINK | 0o777, modified=WHEN, link=text), b""


def test_what_docker_sends_becomes_what_it_had(tmp_path: Path) -> None:
    receive(recorded(), tmp_path)
    found = seen(tmp_path)
    assert {name: entry[0] for name, entry in found.items()} == {
        ".dockerignore": "-rw-r--r--",
        "Dockerfile": "-rw-r--r--",
        "a.txt": "-rw-r--r--",
        "dangling": "lrwxrwxrwx",
        "empty": "drwxrwxrwt",
        "link": "lrwxrwxrwx",
        "pipe": "prw-r--r--",
        "sub": "drwxr-xr-x",
        "sub/big": "-rw-r--r--",
        "sub/deep": "drwxr-xr-x",
        "sub/deep/run.sh": "-rwxr-xr-x",
        "sub/hard": "-rw-r--r--",
        "zero": "-rws--x--x",
        "ü name": "-rw-r--r--",
    }
    assert found["a.txt"][1:] == (WHEN, b"hello\n")
    assert found["sub/deep"][1] == WHEN and found["sub/big"][1:] == (WHEN, b"x" * 70000)
    assert (found["link"][2], found["dangling"][2]) == ("a.txt", "nowhere")
    assert os.path.samefile(tmp_path / "a.txt", tmp_path / "sub" / "hard")


def test_the_second_time_nothing_is_asked_for(tmp_path: Path) -> None:
    assert receive(recorded(), tmp_path).asked
    before = seen(tmp_path)
    inodes = {name: os.lstat(tmp_path / name).st_ino for name in before}
    assert receive(recorded(), tmp_path).asked == []
    assert seen(tmp_path) == before
    assert {name: os.lstat(tmp_path / name).st_ino for name in before} == inodes


@pytest.mark.parametrize("change", ["content", "mode", "time", "gone", "directory", "link"])
def test_what_is_not_as_the_client_has_it_comes_again_and_nothing_else(tmp_path: Path, change: str) -> None:
    receive(recorded(), tmp_path)
    before = seen(tmp_path)
    place = tmp_path / "ü name"
    match change:
        case "content":
            place.write_bytes(b"longer than before")
        case "mode":
            place.chmod(0o600)
        case "time":
            os.utime(place, ns=(WHEN + 1, WHEN + 1))
        case _:
            place.unlink()
    if change == "directory":
        (place / "in" / "it").mkdir(parents=True)
    elif change == "link":
        place.symlink_to("/etc/passwd")
    stream = receive(recorded(), tmp_path)
    assert [stream.contents[number] for number in stream.asked] == [["ü\n".encode()]]
    assert seen(tmp_path) == before


def test_what_the_client_has_no_more_goes(tmp_path: Path) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    (tmp_path / "old" / "deep" / "file").write_text("x")
    (tmp_path / "old.txt").symlink_to("old")
    receive(played(file("new", b"1")), tmp_path)
    assert set(seen(tmp_path)) == {"new"}


def test_a_file_becomes_a_directory_and_the_other_way_round(tmp_path: Path) -> None:
    receive(played(directory("a"), file("a/x", b"1"), file("b", b"2"), link("c", "a")), tmp_path)
    receive(
        played(file("a", b"3"), directory("b"), file("b/y", b"4"), directory("c"), file("c/z", b"5")),
        tmp_path,
    )
    found = {name: entry[2] for name, entry in seen(tmp_path).items()}
    assert found == {"a": b"3", "b": None, "b/y": b"4", "c": None, "c/z": b"5"}


def test_a_directory_has_the_clients_time_whatever_happened_in_it(tmp_path: Path) -> None:
    receive(played(directory("a"), file("a/x", b"1")), tmp_path)
    receive(played(directory("a"), file("a/x", b"22"), file("a/y", b"1")), tmp_path)
    receive(played(directory("a"), file("a/y", b"1")), tmp_path)
    assert (tmp_path / "a").stat().st_mtime_ns == WHEN


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/x",
        "a/../../x",
        "a//x",
        "a/./x",
        ".",
        "..",
        "",
        "a/..",
        "link/x",
        "file/x",
        "none/x",
        "a\0b",
        "a/",
        "n" * 5000,
    ],
)
def test_no_path_leads_out_of_the_directory(tmp_path: Path, path: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    entries = [directory("a"), file("file"), link("link", str(outside)), file(path, b"bad")]
    with pytest.raises(InvalidInput):
        receive(played(*entries), root)
    assert list(outside.iterdir()) == [] and {each.name for each in tmp_path.iterdir()} == {"root", "outside"}


def test_a_directory_that_was_a_link_here_is_none_any_more(tmp_path: Path) -> None:
    """What an earlier transfer left cannot lead the next one out."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    receive(played(link("a", str(outside))), root)
    receive(played(directory("a"), file("a/x", b"1")), root)
    assert list(outside.iterdir()) == [] and (root / "a" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "none", "d", "l"])
def test_a_hard_link_is_to_a_file_that_was_sent(tmp_path: Path, target: str) -> None:
    entries = [directory("d"), link("l", "/etc/passwd"), file("x", link=target)]
    with pytest.raises(InvalidInput):
        receive(played(*entries), tmp_path)
    assert not (tmp_path / "x").exists()


def test_an_entry_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        receive(played(file("a", b"1"), file("a", b"2")), tmp_path)


def test_content_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    stream = played(file("a", b"1"))
    stream.coming.appendleft(Packet(PacketType.DATA, id=7, data=b"x"))
    with pytest.raises(InvalidInput):
        receive(stream, tmp_path)


def test_a_transfer_that_is_cut_leaves_nothing_that_counts_as_complete(tmp_path: Path) -> None:
    data = b"x" * 100
    cut = Played([file("a", data * 2)[0]], {0: [data, data]}, cut_at=1)
    with pytest.raises(InvalidInput, match="middle"):
        receive(cut, tmp_path)
    (tmp_path / "a").write_bytes(data + b"y" * 100)  # of the right size, as a kernel may leave it
    assert receive(played(file("a", data * 2)), tmp_path).asked == [0]
    assert (tmp_path / "a").read_bytes() == data * 2


def test_what_the_client_cannot_read_is_told(tmp_path: Path) -> None:
    stream = played()
    stream.coming.appendleft(Packet(PacketType.ERROR, data=b"open secret: permission denied"))
    with pytest.raises(InvalidInput, match="permission denied"):
        receive(stream, tmp_path)


def test_no_more_is_asked_for_than_the_client_takes_in(tmp_path: Path) -> None:
    """fsutil stops reading when 128 questions wait."""
    stream = receive(played(*(file(f"f{number:04}", b"data") for number in range(1000))), tmp_path)
    assert len(stream.asked) == 1000 and stream.most_on_the_way <= 128
    assert all((tmp_path / f"f{number:04}").read_bytes() == b"data" for number in range(1000))


def test_a_few_files_come_into_memory(tmp_path: Path) -> None:
    stream = played(
        file("Dockerfile", b"FROM scratch\n"), link("x", "Dockerfile"), directory("d"), file("empty")
    )
    found = receive_files(stream)  # type: ignore[arg-type]
    assert found == {"Dockerfile": b"FROM scratch\n", "x": "Dockerfile", "empty": b""}


def test_a_directory_without_the_file_is_no_hang() -> None:
    assert receive_files(played()) == {}  # type: ignore[arg-type]


def test_names_that_are_not_ascii_are_asked_for_in_their_own_way() -> None:
    plain = metadata("context", exclude=["a b", "!c"])
    assert plain == [("dir-name", "context"), ("exclude-patterns", "a b"), ("exclude-patterns", "!c")]
    assert metadata("c", follow=["ü x"]) == [
        ("dir-name", "c"),
        ("followpaths-encoded", "1"),
        ("followpaths", "%C3%BC+x"),
    ]


@pytest.mark.parametrize("mode", [0o100644, 0o104711, 0o41777, 0o120777, 0o10600, 0o140755, 0o20666, 0o60660])
def test_modes_are_the_same_there_and_back(mode: int) -> None:
    assert unix_mode(go_mode(mode)) == mode


def test_a_directory_we_send_arrives_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    receive(recorded(), source)
    (source / "a.d").mkdir()
    (source / "a").write_bytes(os.urandom(200_000))
    os.setxattr(source / "a", "user.note", b"kept")
    ours, theirs = socket.socketpair()

    def method(stream: Stream) -> None:
        Receiver(stream, str(target)).run()

    connection = Connection(ours)
    threads = [
        threading.Thread(target=serve, args=(theirs, {"/t.T/Take": method})),
        threading.Thread(target=connection.run),
    ]
    connection.start()
    for thread in threads:
        thread.start()
    try:
        _send_directory(open_stream(connection, "/t.T/Take"), str(source))
    finally:
        connection.close()
        for thread in threads:
            thread.join(20)
        ours.close()
        theirs.close()
    assert seen(target) == seen(source)
    assert os.getxattr(target / "a", "user.note") == b"kept"
    assert os.path.samefile(target / "a.txt", target / "sub" / "hard")
