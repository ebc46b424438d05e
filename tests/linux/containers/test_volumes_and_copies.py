"""Volumes and binds as a container sees them, and files copied in and out (D-32 to D-34, K19)."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from registry_client.oci.config import ContainerConfig
from runtime.containers.spec import Mount
from runtime.errors import Conflict, InvalidInput, NotFound
from tests.support.containers import World, alive

pytestmark = pytest.mark.linux


def volume(target: str, source: str = "", **fields: object) -> Mount:
    return Mount(type="volume", target=target, source=source, **fields)  # type: ignore[arg-type]


def test_a_new_volume_gets_what_the_image_has_there(world: World) -> None:
    script = "cat /data/file; stat -c '%u %g %a' /data; test /data/file -ef /data/twin && echo linked"
    assert (
        world.run("sh", "-c", script, mounts=(volume("/data", "filled"),)).text
        == "from the image\n70 71 750\nlinked\n"
    )
    world.run("sh", "-c", "rm /data/file; echo mine >/data/own", mounts=(volume("/data", "filled"),))
    assert world.run("ls", "/data", mounts=(volume("/data", "filled"),)).text == "own\ntwin\n"
    world.volumes.remove("filled")


def test_nocopy_leaves_it_empty_and_a_link_in_the_image_does_not_lead_out(world: World) -> None:
    assert world.run("ls", "/data", mounts=(volume("/data", "bare", copy_up=False),)).text == ""
    copied = world.run("ls", "/away", mounts=(volume("/away", "linked"),)).text
    assert "passwd" in copied  # the image's own /etc, never the host's
    assert "alice" in world.run("cat", "/v/passwd", mounts=(volume("/v", "linked"),)).text
    for name in ("bare", "linked"):
        world.volumes.remove(name)


def test_volumes_outlive_containers_and_are_shared_and_read_only(world: World) -> None:
    world.run("sh", "-c", "echo kept >/v/file", mounts=(volume("/v", "shared"),))
    ran = world.run(
        "sh",
        "-c",
        "cat /v/file; echo x 2>/dev/null >/v/file || echo refused",
        mounts=(volume("/v", "shared", readonly=True),),
    )
    assert ran.text == "kept\nrefused\n"
    holder = world.create("true", mounts=(volume("/v", "shared"),))
    with pytest.raises(Conflict, match="in use"):
        world.volumes.remove("shared")
    world.containers.remove(holder.id)
    world.volumes.remove("shared")


def test_a_subpath_is_mounted_and_cannot_lead_out(world: World) -> None:
    world.run(
        "sh",
        "-c",
        "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s /etc /v/out",
        mounts=(volume("/v", "tree"),),
    )
    assert world.run("cat", "/s/file", mounts=(volume("/s", "tree", subpath="a/b"),)).text == "deep\n"
    for bad, kind in (("out", InvalidInput), ("../..", InvalidInput), ("missing", NotFound)):
        with pytest.raises(kind):
            world.create("true", mounts=(volume("/s", "tree", subpath=bad),))
    world.volumes.remove("tree")


def test_the_images_own_volumes_are_anonymous_and_go_with_the_container(
    world: World, busybox_tar: bytes
) -> None:
    world.image("with-volume", ContainerConfig(volumes=("/data",), cmd=("cat", "/data/file")), busybox_tar)
    before = {one.name for one in world.volumes.list()}
    container = world.create(image="with-volume")
    (made,) = {one.name for one in world.volumes.list()} - before
    assert world.volumes.get(made).anonymous
    assert Path(world.volumes.path(made), "file").read_text() == "from the image\n"
    world.containers.remove(container.id, volumes=True)
    assert {one.name for one in world.volumes.list()} == before


def test_volumes_from_another_container(world: World) -> None:
    first = world.create("true", mounts=(volume("/v", "lent"),), name="lender")
    world.run("sh", "-c", "echo hello >/v/x", volumes_from=("lender",))
    ran = world.run(
        "sh", "-c", "cat /v/x; touch /v/y 2>/dev/null || echo refused", volumes_from=("lender:ro",)
    )
    assert ran.text == "hello\nrefused\n"
    world.containers.remove(first.id)
    world.volumes.remove("lent")


def test_a_volume_of_a_file_system_of_its_own(world: World) -> None:
    world.volumes.create("memory", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=700"})
    assert " tmpfs " in world.run("grep", " /v ", "/proc/mounts", mounts=(volume("/v", "memory"),)).text
    world.volumes.remove("memory")


def test_binds_show_the_host_and_keep_it_safe(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    bind = Mount(type="bind", source=str(tmp_path), target="/b")
    assert world.run("sh", "-c", "cat /b/file; echo inside >/b/new", mounts=(bind,)).text == "host\n"
    assert (tmp_path / "new").read_text() == "inside\n"
    readonly = Mount(type="bind", source=str(tmp_path), target="/b", readonly=True)
    assert (
        world.run("sh", "-c", "touch /b/x 2>/dev/null || echo refused", mounts=(readonly,)).text
        == "refused\n"
    )
    single = Mount(type="bind", source=str(tmp_path / "file"), target="/etc/motd")
    assert world.run("cat", "/etc/motd", mounts=(single,)).text == "host\n"


def test_a_missing_source_is_made_by_v_and_refused_by_mount(world: World, tmp_path: Path) -> None:
    source = str(tmp_path / "new" / "place")
    with pytest.raises(InvalidInput, match="does not exist"):
        world.create("true", mounts=(Mount(type="bind", source=source, target="/b"),))
    world.run("touch", "/b/x", mounts=(Mount(type="bind", source=source, target="/b", create_source=True),))
    assert os.listdir(source) == ["x"]


def test_a_copy_on_write_bind_never_changes_the_host(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host\n")
    bind = Mount(type="bind", source=str(tmp_path), target="/b", copy_on_write=True)
    assert (
        world.run("sh", "-c", "cat /b/file; echo mine >/b/file; rm -r /b/* ; ls /b", mounts=(bind,)).text
        == "host\n"
    )
    assert (tmp_path / "file").read_text() == "host\n"


# --- cp ---------------------------------------------------------------------------------------------------------------


def archive(entries: dict[str, bytes | None], links: dict[str, str] | None = None) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as stream:
        for name, link in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            stream.addfile(entry)
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            if data is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                stream.addfile(entry)
            else:
                entry.size, entry.mode, entry.uid = len(data), 0o640, 1234
                stream.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def names(data: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    data.seek(0)
    with tarfile.open(fileobj=data) as stream:
        return {entry.name: entry for entry in stream}


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_files_go_in_and_come_out(world: World, running: bool, tmp_path: Path) -> None:
    mounts = (volume("/v", f"copied-{running}"),)
    container = world.up("sleep", "1000", mounts=mounts) if running else world.create("true", mounts=mounts)
    copies = world.containers
    copies.copy_in(container.id, "/tmp", archive({"d": None, "d/one": b"1", "d/two": b"22"}))
    copies.copy_in(container.id, "/v", archive({"in-volume": b"v"}), keep_owners=True)
    out = io.BytesIO()
    copies.copy_out(container.id, "/tmp/d", out)
    assert {name: entry.size for name, entry in names(out).items()} == {"d": 0, "d/one": 1, "d/two": 2}
    assert names(out)["d/one"].uid == 0
    # GNU tar reads what we wrote.
    (tmp_path / "out.tar").write_bytes(out.getvalue())
    listed = subprocess.run(["tar", "-tf", tmp_path / "out.tar"], capture_output=True, text=True, check=True)
    assert listed.stdout == "d/\nd/one\nd/two\n"
    assert Path(world.volumes.path(f"copied-{running}"), "in-volume").stat().st_uid == 1234
    out = io.BytesIO()
    copies.copy_out(container.id, "/v/in-volume", out)
    assert list(names(out)) == ["in-volume"]
    with pytest.raises(NotFound):
        copies.copy_out(container.id, "/nowhere", io.BytesIO())
    with pytest.raises(NotFound):
        copies.copy_in(container.id, "/nowhere", archive({"x": b""}))
    copies.remove(container.id, force=True)
    world.volumes.remove(f"copied-{running}")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_links_of_a_container_lead_nowhere_but_into_it(world: World, running: bool) -> None:
    container = world.up("sleep", "1000") if running else world.create("true")
    copies = world.containers
    # /away is a link to /etc: the container's own.
    copies.copy_in(container.id, "/away", archive({"planted": b"x"}))
    assert not os.path.exists("/etc/planted")
    out = io.BytesIO()
    copies.copy_out(container.id, "/away/planted", out)
    assert list(names(out)) == ["planted"]
    out = io.BytesIO()
    copies.copy_out(container.id, "/away", out)
    assert names(out)["away"].issym()
    out = io.BytesIO()
    copies.copy_out(container.id, "/away", out, follow=True)
    assert "away/planted" in names(out)
    # A tar cannot write through the links it brings, nor above its directory.
    copies.copy_in(container.id, "/tmp", archive({"out/file": b"x"}, {"out": "/root"}))
    out = io.BytesIO()
    copies.copy_out(container.id, "/root", out)
    assert list(names(out)) == ["root"]
    with pytest.raises(InvalidInput, match="leads out"):
        copies.copy_in(container.id, "/tmp", archive({"../escaped": b"x"}))
    copies.remove(container.id, force=True)


def test_a_container_starts_after_something_was_copied_into_it(world: World) -> None:
    container = world.create("cat", "/tmp/given")
    world.containers.copy_in(container.id, "/tmp", archive({"given": b"hello\n"}))
    world.containers.start(container.id)
    assert world.ended(container.id).code == 0
    assert world.log(container.id) == "hello\n"
    assert ("A", "/tmp/given") in world.containers.changes(container.id)
    assert ("C", "/tmp") in world.containers.changes(container.id)
    world.containers.remove(container.id)


# --- exec -------------------------------------------------------------------------------------------------------------


def test_exec_joins_the_container(world: World) -> None:
    container = world.up("sleep", "1000", env=("A=own",), hostname="inside")
    ran = world.exec(
        container.id,
        "sh",
        "-c",
        "hostname; echo $A $B; id -un; pwd; ls /proc | grep -c '^1$'",
        env=("B=given",),
        user="alice",
        working_dir="/tmp",
    )
    assert ran.text == "inside\nown given\nalice\n/tmp\n1\n"
    assert world.exec(container.id, "sh", "-c", "cat; exit 5", stdin=b"data").stdout == b"data"
    assert world.exec(container.id, "sh", "-c", "exit 5").code == 5
    assert world.exec(container.id, "nosuchcommand").code == 127
    assert world.exec(container.id, "/etc").code == 126
    assert (
        world.exec(container.id, "grep", "CapEff", "/proc/self/status").text.split()[1] == "00000000a80425fb"
    )
    assert world.exec(container.id, "grep", "Seccomp:", "/proc/self/status").text.split()[1] == "2"
    assert (
        world.exec(container.id, "grep", "Seccomp:", "/proc/self/status", privileged=True).text.split()[1]
        == "0"
    )
    assert b"yes" in world.exec(container.id, "sh", "-c", "test -t 0 && echo yes", tty=True, stdin=b"").stdout
    world.containers.remove(container.id, force=True)
    with pytest.raises(NotFound):
        world.exec(container.id, "true")


def test_what_was_executed_ends_with_its_container(world: World) -> None:
    container = world.up("sleep", "1000")
    from runtime.containers.spec import ExecSpec

    connection = world.containers.exec(container.id, ExecSpec(argv=("sleep", "1000")))
    pids = [int(row["PID"]) for row in world.containers.top(container.id)]
    assert len(pids) == 2
    world.containers.remove(container.id, force=True)
    connection.pump(lambda kind, data: None)
    connection.close()
    assert not any(alive(pid) for pid in pids)
