"""Containers over the API, by docker-py and docker's command line; networks and volumes as compose needs them."""

from __future__ import annotations

import gc
import io
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.builder import make_base
from tests.support.daemon import WAIT, Daemon, daemon_process
from tests.support.engine_schema import conforms

pytestmark = [
    pytest.mark.linux,
    # docker-py leaves the sockets of upgraded connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DOCKER = shutil.which("docker")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the module: its store has `base:1`, a busybox userland."""
    place = tmp_path_factory.mktemp("containers")
    make_base(place / "store", place / "base")
    with daemon_process(place / "store") as found:
        yield found


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    yield shared
    for container in shared.docker.containers.list(all=True):
        container.remove(force=True, v=True)
    shared.docker.networks.prune()
    shared.docker.volumes.prune(filters={"all": True})
    gc.collect()


def start(daemon: Daemon, script: str, **more: Any) -> Any:
    return daemon.docker.containers.run("base:1", ["sh", "-c", script], detach=True, **more)


def attached(daemon: Daemon, container: Any, *streams: str) -> socket.socket:
    """A connection that is attached; the answer's head has been read."""
    query = "&".join(f"{name}=1" for name in (*streams, "stream"))
    line = daemon.connect()
    head = f"POST /containers/{container.id}/attach?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    line.sendall(head.encode())
    assert read_head(line).startswith(b"HTTP/1.1 101 ")
    return line


def read_head(line: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    return head


def read_all(line: socket.socket) -> bytes:
    told = b""
    while data := line.recv(65536):
        told += data
    return told


# --- running --------------------------------------------------------------------------------------------------------


def test_a_container_runs_and_tells_its_output_and_its_end(daemon: Daemon) -> None:
    assert daemon.docker.containers.run("base:1", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        daemon.docker.containers.run("base:1", ["sh", "-c", "echo bad >&2; exit 4"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (4, b"bad\n")
    assert daemon.docker.containers.list(all=True) == []


def test_an_image_that_is_not_here_is_told_so_that_clients_pull_it(daemon: Daemon) -> None:
    answer = daemon.http.post("/containers/create", json={"Image": "nope"})
    assert (answer.status_code, answer.json()) == (404, {"message": "No such image: nope:latest"})
    with pytest.raises(docker.errors.ImageNotFound):
        daemon.docker.containers.create("nope:2")


@pytest.mark.parametrize(
    "record",
    ['{"Image":"base:1","HostConfig":"x"}', '{"Image":"base:1","HostConfig":{"Memory":"much"}}', "[]", "{"],
)
def test_json_that_is_none_of_a_container_is_refused(daemon: Daemon, record: str) -> None:
    assert daemon.http.post("/containers/create", content=record).status_code == 400


def test_a_containers_life(daemon: Daemon) -> None:
    made = daemon.docker.containers.create("base:1", ["sleep", "1000"], name="one", labels={"a": "b"})
    assert made.status == "created"
    assert (
        daemon.http.post("/containers/create", params={"name": "one"}, json={"Image": "base:1"}).status_code
        == 409
    )
    made.start()
    assert daemon.http.post("/containers/one/start").status_code == 304
    made.reload()
    assert (made.status, made.name, made.labels["a"]) == ("running", "one", "b")
    made.pause()
    made.reload()
    assert made.status == "paused"
    made.unpause()
    made.rename("two")
    assert daemon.docker.containers.get("two").id == made.id
    assert daemon.http.delete("/containers/two").status_code == 409, "it runs"
    made.restart(timeout=0)
    made.kill()
    assert made.wait() == {"StatusCode": 137}
    assert daemon.http.post("/containers/two/kill").status_code == 409
    assert daemon.http.post("/containers/two/stop").status_code == 304
    made.remove()
    answer = daemon.http.get("/containers/two/json")
    assert (answer.status_code, answer.json()) == (404, {"message": "No such container: two"})


def test_lists_and_inspect_are_as_docker_describes_them(daemon: Daemon) -> None:
    running = start(daemon, "sleep 1000", name="up", ports={"80/tcp": ("127.0.0.1", None)})
    daemon.docker.containers.create("base:1", name="down")
    records = daemon.http.get("/containers/json", params={"all": "1", "size": "1"}).json()
    for record in records:
        conforms("ContainerSummary", record)
    assert [each["Names"] for each in records] == [["/down"], ["/up"]]
    assert records[0]["Status"] == "Created" and records[1]["Status"].startswith("Up ")
    (port,) = records[1]["Ports"]
    assert (port["PrivatePort"], port["IP"], port["Type"]) == (80, "127.0.0.1", "tcp") and port["PublicPort"]
    assert [each.name for each in daemon.docker.containers.list()] == ["up"]
    assert [each.name for each in daemon.docker.containers.list(all=True, filters={"status": "created"})] == [
        "down"
    ]
    assert [each.name for each in daemon.docker.containers.list(limit=1)] == ["down"]
    inspected = daemon.http.get(f"/containers/{running.short_id}/json").json()
    conforms("ContainerInspectResponse", inspected)
    assert inspected["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == str(port["PublicPort"])


def test_what_is_asked_for_is_what_the_process_sees(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("bound\n")
    tmp_path.chmod(0o755)
    told = daemon.docker.containers.run(
        "base:1",
        [
            "sh",
            "-c",
            "cat /b/f; echo $A; pwd; id -u; hostname; ulimit -n; touch /b/x 2>/dev/null || echo read-only; grep -c ' /t tmpfs' /proc/mounts",
        ],
        volumes={str(tmp_path): {"bind": "/b", "mode": "ro"}},
        environment={"A": "given"},
        working_dir="/tmp",
        user="1000",
        hostname="called",
        ulimits=[docker.types.Ulimit(name="nofile", soft=99, hard=99)],
        tmpfs={"/t": ""},
        remove=True,
    )
    assert told.decode().split() == ["bound", "given", "/tmp", "1000", "called", "99", "read-only", "1"]


# --- streams --------------------------------------------------------------------------------------------------------


def test_logs_are_read_and_followed(daemon: Daemon) -> None:
    made = start(daemon, "echo one; echo wrong >&2; read x; echo three", stdin_open=True)
    following = made.logs(stream=True, follow=True, stdout=True, stderr=False)
    assert next(following) == b"one\n"
    with attached(daemon, made, "stdin") as line:
        line.sendall(b"go\n")
        assert next(following) == b"three\n"
        assert list(following) == [], "it ends with the container"
    made.wait()
    assert made.logs(stdout=False, stderr=True) == b"wrong\n"
    assert made.logs(tail=1, stderr=False) == b"three\n"
    stamped = made.logs(timestamps=True, stderr=False).splitlines()
    assert [each.split(b" ", 1)[1] for each in stamped] == [b"one", b"three"]
    assert made.logs(since=int(time.time()) + 100) == b""
    assert daemon.http.get(f"/containers/{made.id}/logs").status_code == 400


def test_following_a_log_ends_with_the_client(daemon: Daemon) -> None:
    made = start(daemon, "echo one; sleep 1000")
    assert daemon.process is not None
    tasks = f"/proc/{daemon.process.pid}/task"
    with daemon.http.stream(
        "GET", f"/containers/{made.id}/logs", params={"follow": "1", "stdout": "1"}
    ) as answer:
        assert next(answer.iter_raw()).endswith(b"one\n")
        before = len(os.listdir(tasks))
    pause = threading.Event()
    while len(os.listdir(tasks)) >= before:
        pause.wait(0.02)


def test_output_comes_in_dockers_frames_and_input_can_be_half_closed(daemon: Daemon) -> None:
    made = daemon.docker.containers.create("base:1", ["sh", "-c", "cat; echo end >&2"], stdin_open=True)
    with attached(daemon, made, "stdin", "stdout", "stderr") as line:
        made.start()
        line.sendall(b"input")
        line.shutdown(socket.SHUT_WR)
        told = read_all(line)
    assert told == b"\x01\0\0\0\0\0\0\x05input" + b"\x02\0\0\0\0\0\0\x04end\n"
    assert made.wait()["StatusCode"] == 0


def test_a_client_that_leaves_before_the_start_is_forgotten(daemon: Daemon) -> None:
    made = daemon.docker.containers.create("base:1", ["echo", "hi"])
    attached(daemon, made, "stdout").close()
    made.start()
    assert made.wait()["StatusCode"] == 0
    assert made.logs() == b"hi\n"


@pytest.mark.parametrize("condition", ["next-exit", "removed"])
def test_waiting_begins_before_the_start_and_knows_an_end_that_comes_at_once(
    daemon: Daemon, condition: str
) -> None:
    for code in range(5):
        made = daemon.docker.containers.create(
            "base:1", ["sh", "-c", f"exit {code}"], auto_remove=condition == "removed"
        )
        found: list[Any] = []
        with daemon.connect() as line:
            line.sendall(
                f"POST /containers/{made.id}/wait?condition={condition} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            assert read_head(line).startswith(b"HTTP/1.1 200 "), "at once, though nothing runs yet"
            made.start()
            while data := line.recv(65536):
                found.append(data)
        assert f'{{"StatusCode":{code}}}'.encode() in b"".join(found)


def test_a_terminal_is_a_raw_stream(daemon: Daemon) -> None:
    made = daemon.docker.containers.create(
        "base:1", ["sh", "-c", "tty; read x; stty size"], tty=True, stdin_open=True
    )
    with attached(daemon, made, "stdin", "stdout") as line:
        made.start()
        assert line.recv(100).startswith(b"/dev/pts/")
        made.resize(33, 77)
        line.sendall(b"\n")
        told = read_all(line)
    assert b"33 77" in told


# --- exec and files -------------------------------------------------------------------------------------------------


def test_further_processes(daemon: Daemon) -> None:
    made = start(daemon, "sleep 1000")
    assert made.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True) == (
        3,
        (b"out\n", b"err\n"),
    )
    code, output = made.exec_run(
        ["sh", "-c", "echo $A; pwd; id -u"], environment=["A=1"], workdir="/tmp", user="1000"
    )
    assert (code, output) == (0, b"1\n/tmp\n1000\n")
    api = daemon.docker.api
    asked = api.exec_create(made.id, ["sh", "-c", "exit 7"])["Id"]
    before = api.exec_inspect(asked)
    assert (before["Running"], before["ExitCode"]) == (False, None)
    api.exec_start(asked, detach=True)
    pause = threading.Event()
    while api.exec_inspect(asked)["Running"]:
        pause.wait(0.02)
    assert api.exec_inspect(asked)["ExitCode"] == 7
    assert daemon.http.post(f"/exec/{asked}/start", json={}).status_code == 409
    assert daemon.http.get("/exec/nope/json").status_code == 404
    made.kill()
    assert daemon.http.post(f"/containers/{made.id}/exec", json={"Cmd": ["x"]}).status_code == 409


def test_a_process_with_a_terminal_can_be_left(daemon: Daemon) -> None:
    made = start(daemon, "sleep 1000")
    api = daemon.docker.api
    asked = api.exec_create(made.id, ["cat"], stdin=True, tty=True, detach_keys="ctrl-x,q")["Id"]
    line = api.exec_start(asked, tty=True, socket=True)._sock
    line.settimeout(WAIT)
    line.sendall(b"typed\n")
    told = b""
    while told.count(b"typed") < 2:  # the terminal's echo, and what cat says
        told += line.recv(100)
    line.sendall(b"\x18q")
    while line.recv(100):
        pass
    line.close()
    assert api.exec_inspect(asked)["Running"] is True
    made.kill()


def test_the_start_of_a_process_says_how_its_output_is_framed(daemon: Daemon) -> None:
    made = start(daemon, "sleep 1000")
    asked = daemon.docker.api.exec_create(made.id, ["echo", "hi"], tty=True)["Id"]
    assert daemon.docker.api.exec_start(asked, tty=False, demux=True) == (b"hi\r\n", None)


def test_files_are_copied_in_and_out(daemon: Daemon) -> None:
    made = start(daemon, "sleep 1000")
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        info = tarfile.TarInfo("new")
        info.size, info.uid = 4, 1000
        archive.addfile(info, io.BytesIO(b"text"))
    assert made.put_archive("/tmp", body.getvalue())
    assert made.exec_run(["sh", "-c", "cat /tmp/new; stat -c %u /tmp/new"]).output == b"text1000\n"
    chunks, about = made.get_archive("/tmp/new")
    assert (about["name"], about["size"], about["mode"] & 0o777) == ("new", 4, 0o644)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert archive.getnames() == ["new"]
    assert daemon.http.head(f"/containers/{made.id}/archive", params={"path": "/nope"}).status_code == 404
    assert {"Path": "/tmp/new", "Kind": 1} in made.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.export()))) as archive:
        names = set(archive.getnames())
    assert {"tmp/new", "bin/busybox", "proc"} <= names
    assert not any(name.startswith("proc/") for name in names)
    assert made.top()["Processes"][0][-1].endswith("sleep 1000")


def test_events_of_a_life(daemon: Daemon) -> None:
    begun = int(time.time())
    made = start(daemon, "exit 5")
    made.wait()
    made.remove()
    pause = threading.Event()
    while True:
        told = list(
            daemon.docker.events(
                since=begun, until=int(time.time()) + 1, filters={"container": made.id}, decode=True
            )
        )
        if len(told) >= 4:
            break
        pause.wait(0.05)
    assert sorted(each["Action"] for each in told) == ["create", "destroy", "die", "start"]
    assert [each["Actor"]["Attributes"]["exitCode"] for each in told if each["Action"] == "die"] == ["5"]


def test_what_a_container_uses(daemon: Daemon) -> None:
    made = start(daemon, "while true; do :; done", mem_limit="64m", nano_cpus=500_000_000)
    found = made.stats(stream=False)
    conforms("ContainerStatsResponse", found)
    assert (found["name"], found["memory_stats"]["limit"]) == (f"/{made.name}", 64 << 20)
    assert 0 < found["memory_stats"]["usage"] < 64 << 20
    assert found["pids_stats"]["current"] >= 1
    assert set(found["networks"]) == {"eth0"}
    busy = found["cpu_stats"]["cpu_usage"]["total_usage"] - found["precpu_stats"]["cpu_usage"]["total_usage"]
    all_of_it = found["cpu_stats"]["system_cpu_usage"] - found["precpu_stats"]["system_cpu_usage"]
    assert 0 < busy <= all_of_it
    several = made.stats(stream=True, decode=True)
    assert next(several)["read"] < next(several)["read"]
    several.close()
    made.kill()
    assert made.stats(stream=False)["memory_stats"] == {}


def test_prune_removes_what_does_not_run(daemon: Daemon) -> None:
    running = start(daemon, "sleep 1000")
    ended = daemon.docker.containers.create("base:1")
    assert daemon.docker.containers.prune()["ContainersDeleted"] == [ended.id]
    assert [each.id for each in daemon.docker.containers.list(all=True)] == [running.id]


def test_containers_outlive_the_daemon(tmp_path: Path) -> None:
    make_base(tmp_path / "store", tmp_path / "base")
    with daemon_process(tmp_path / "store") as first:
        made = first.docker.containers.run("base:1", ["sleep", "1000"], detach=True)
    with daemon_process(tmp_path / "store") as second:
        again = second.docker.containers.get(made.id)
        try:
            assert again.status == "running"
            assert again.exec_run(["echo", "still"]).output == b"still\n"
        finally:
            again.remove(force=True)


# --- networks and volumes -------------------------------------------------------------------------------------------


def test_containers_find_each_other_on_a_network(daemon: Daemon) -> None:
    network = daemon.docker.networks.create("mine", labels={"a": "b"}, driver="bridge")
    for record in daemon.http.get("/networks").json():
        conforms("NetworkSummary", record)
    conforms("NetworkInspect", daemon.http.get(f"/networks/{network.short_id}").json())
    one = start(daemon, "sleep 1000", name="one", network="mine")
    told = daemon.docker.containers.run("base:1", ["nslookup", "one"], network="mine", remove=True)
    one.reload()
    assert one.attrs["NetworkSettings"]["Networks"]["mine"]["IPAddress"] in told.decode()
    network.reload()
    assert [each.name for each in network.containers] == ["one"]
    assert daemon.http.delete("/networks/mine").status_code == 403
    assert daemon.http.post("/networks/create", json={"Name": "mine"}).status_code == 409
    other = daemon.docker.networks.create("other")
    other.connect(one, aliases=["again"])
    one.reload()
    assert set(one.attrs["NetworkSettings"]["Networks"]) == {"mine", "other"}
    other.disconnect(one)
    other.remove()
    assert [each.name for each in daemon.docker.networks.list(filters={"label": "a=b"})] == ["mine"]
    assert daemon.http.get("/networks/nope").status_code == 404


def test_volumes_keep_their_files(daemon: Daemon) -> None:
    volume = daemon.docker.volumes.create("kept", labels={"a": "b"})
    conforms("Volume", daemon.http.get("/volumes/kept").json())
    daemon.docker.containers.run(
        "base:1", ["sh", "-c", "echo x > /v/f"], volumes={"kept": {"bind": "/v"}}, remove=True
    )
    holder = start(daemon, "cat /v/f; sleep 1000", volumes={"kept": {"bind": "/v", "mode": "ro"}})
    assert next(holder.logs(stream=True)) == b"x\n"
    assert daemon.http.delete("/volumes/kept").status_code == 409
    assert [each.name for each in daemon.docker.volumes.list(filters={"label": "a", "dangling": False})] == [
        "kept"
    ]
    holder.remove(force=True)
    assert daemon.docker.volumes.prune()["VolumesDeleted"] is None, "named ones stay"
    volume.remove()
    assert daemon.http.get("/volumes/kept").status_code == 404


# --- docker's command line ------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    DOCKER is None, reason="Debian 12 packages docker's client only with its daemon; docker-py judges there"
)
def test_the_command_line_runs_containers(daemon: Daemon) -> None:
    def client(*arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        assert DOCKER
        done = subprocess.run(
            [DOCKER, "-H", f"unix://{daemon.path}", *arguments],
            input=stdin,
            capture_output=True,
            timeout=WAIT,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return (done.stdout + done.stderr).decode()

    assert client("run", "--rm", "base:1", "echo", "hi") == "hi\n"
    for code in (0, 3, 42):
        client("run", "--rm", "base:1", "sh", "-c", f"exit {code}", code=code)
    assert "/nope" in client("run", "--rm", "base:1", "/nope", code=127)
    assert client("run", "--rm", "-i", "base:1", "cat", stdin=b"through\n") == "through\n"
    client("run", "-d", "--name", "one", "base:1", "sh", "-c", "echo begun; sleep 1000")
    assert "one" in client("ps")
    assert client("exec", "-i", "one", "cat", stdin=b"in\n") == "in\n"
    client("exec", "one", "sh", "-c", "exit 9", code=9)
    assert client("logs", "one") == "begun\n"
    client("stop", "-t", "0", "one")
    assert client("wait", "one") == "137\n"
    client("rm", "one")
