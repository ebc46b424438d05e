"""`POST /build` with steps that run, on `pipe daemon` as a process: docker-py always, docker's command line where there is one."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.build_api import build, context, image_of, text_of
from tests.support.builder import make_base, run_pipe, write_files
from tests.support.daemon import WAIT, Daemon, daemon_process

pytestmark = pytest.mark.linux
DOCKER = shutil.which("docker")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose store has `base:1`, a busybox userland."""
    make_base(tmp_path / "store", tmp_path / "base")
    with daemon_process(tmp_path / "store") as found:
        yield found


def client(daemon: Daemon, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    """Docker's command line, without its plugins: the classic builder's client."""
    assert DOCKER
    home = daemon.root.parent / "home"
    done = subprocess.run(
        [DOCKER, "--host", f"unix://{daemon.path}", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_BUILDKIT": "0"},
        input=stdin,
        capture_output=True,
        timeout=WAIT,
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return (done.stdout + done.stderr).decode()


with_docker = pytest.mark.skipif(
    DOCKER is None, reason="Debian 12 packages docker's client only with its daemon; docker-py judges there"
)


def test_what_a_step_prints_is_told_in_the_files_order(daemon: Daemon) -> None:
    text = "FROM base:1 AS slow\nRUN sleep 1; echo slow\nFROM base:1 AS quick\nRUN echo quick; echo wrong >&2\nFROM base:1\nCOPY --from=slow /etc /a\nCOPY --from=quick /etc /b\n"
    told = text_of(build(daemon, context({"Dockerfile": text})))
    lines = told.splitlines()
    places = [
        lines.index(line)
        for line in ("Step 2/7 : RUN sleep 1; echo slow", "slow", "Step 3/7 : FROM base:1 AS quick", "quick")
    ]
    assert places == sorted(places)
    assert "\x1b[91mwrong\n\x1b[0m" in told


def test_a_step_that_fails_has_its_exit_code_and_output(daemon: Daemon) -> None:
    body = context({"Dockerfile": "FROM base:1\nRUN echo fine\nRUN echo out && exit 3\n"})
    records = build(daemon, body)
    message = "The command '/bin/sh -c echo out && exit 3' returned a non-zero code: 3"
    assert records[-1] == {"errorDetail": {"code": 3, "message": message}, "error": message}
    assert text_of(records).endswith("Step 3/3 : RUN echo out && exit 3\nout\n")
    quiet = build(daemon, body, q="1")
    assert quiet[-1]["errorDetail"]["code"] == 3
    assert "out\n" in text_of(quiet), "what a quiet build held back is told when it fails"


def test_parameters_reach_the_step(daemon: Daemon) -> None:
    text = "FROM base:1\nRUN ulimit -n; df -k /dev/shm | tail -1; cat /etc/hosts; ls /sys/class/net; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true\n"
    records = build(
        daemon,
        context({"Dockerfile": text}),
        ulimits=json.dumps([{"Name": "nofile", "Soft": 77, "Hard": 78}]),
        shmsize=str(8 << 20),
        extrahosts="somewhere:10.1.2.3",
        networkmode="none",
        memory=str(128 << 20),
    )
    told = text_of(records)
    assert "77\n" in told
    assert " 8192 " in told
    assert "10.1.2.3\tsomewhere" in told or "10.1.2.3 somewhere" in told
    assert "eth0" not in told
    assert f"{128 << 20}\n" in told


def processes(marker: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", marker.encode()]:
            found.append(pid)
    return found


def wait_until(holds: Any) -> None:
    pause = threading.Event()
    while not holds():
        pause.wait(0.02)


def started(daemon: Daemon, body: bytes, query: str = "") -> Any:
    """A connection whose build has printed `started`."""
    line = daemon.connect()
    head = f"POST /build?nocache=1&{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    line.sendall(head.encode() + body)
    told = b""
    while b"started\\n" not in told:
        data = line.recv(65536)
        assert data, told
        told += data
    return line


def test_a_client_that_goes_away_ends_its_build(daemon: Daemon) -> None:
    marker = f"98{os.getpid()}.5"
    line = started(daemon, context({"Dockerfile": f"FROM base:1\nRUN echo started; sleep {marker}\n"}))
    wait_until(lambda: processes(marker))
    line.close()
    wait_until(lambda: not processes(marker))
    wait_until(lambda: os.listdir(daemon.root / "drafts") == [])
    assert image_of(build(daemon, context({"Dockerfile": "FROM base:1\nRUN true\n"}))), "and others can build"


def test_a_build_is_cancelled_by_its_id(daemon: Daemon) -> None:
    marker = f"97{os.getpid()}.5"
    with started(
        daemon, context({"Dockerfile": f"FROM base:1\nRUN echo started; sleep {marker}\n"}), "buildid=mine"
    ) as line:
        wait_until(lambda: processes(marker))
        assert daemon.http.post("/build/cancel", params={"id": "other"}).status_code == 200
        assert processes(marker)
        assert daemon.http.post("/build/cancel", params={"id": "mine"}).status_code == 200
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += line.recv(65536)
        assert b'the build was cancelled"' in rest
    assert not processes(marker)


def test_a_daemon_that_is_told_to_end_ends_its_builds(daemon: Daemon) -> None:
    marker = f"96{os.getpid()}.5"
    with started(daemon, context({"Dockerfile": f"FROM base:1\nRUN echo started; sleep {marker}\n"})):
        wait_until(lambda: processes(marker))
        assert daemon.process is not None
        daemon.process.terminate()
        assert daemon.process.wait(WAIT) == 0
    assert not processes(marker)
    assert os.listdir(daemon.root / "drafts") == []


def test_a_killed_daemon_leaves_nothing_that_lasts(daemon: Daemon) -> None:
    marker = f"95{os.getpid()}.5"
    assert daemon.process is not None
    with started(daemon, context({"Dockerfile": f"FROM base:1\nRUN echo started; sleep {marker}\n"})):
        wait_until(lambda: processes(marker))
        daemon.process.kill()
        daemon.process.wait(WAIT)
    wait_until(lambda: not processes(marker))
    with daemon_process(daemon.root) as second:
        assert image_of(build(second, context({"Dockerfile": "FROM base:1\nRUN true\n"})))
        assert os.listdir(daemon.root / "drafts") == [], "the next build cleared up"


def test_what_is_built_over_the_api_is_what_pipe_builds(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM base:1\nARG A\nRUN echo $A > /made\nCOPY . /all/\nWORKDIR /w\nENV X=1\n",
        "a/b": "1",
        "c": "2",
    }
    place = write_files(tmp_path / "context", files)
    own = (
        run_pipe(daemon.root, "build", "-q", "--build-arg", "A=7", "--label", "l=v", str(place))
        .stdout.decode()
        .strip()
    )
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.add(place, ".")
    told = build(daemon, body.getvalue(), buildargs='{"A":"7"}', labels='{"l":"v"}')
    assert image_of(told) == own
    assert text_of(told).count("Using cache") == 3, "and its steps are found"


def test_a_refusal_reaches_a_client_that_is_still_sending(daemon: Daemon) -> None:
    with daemon.connect() as line:
        line.sendall(b"POST /build?version=9 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        answer = b""
        while b'{"message":"invalid version' not in answer:
            line.sendall(bytes(65536))
            answer += line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_builds_at_once_do_a_common_step_once(daemon: Daemon) -> None:
    body = context(
        {"Dockerfile": "FROM base:1\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /made\nRUN cat /made\n"}
    )
    answers: list[list[dict[str, Any]]] = [[] for _ in range(3)]

    def one(number: int) -> None:
        with docker.APIClient(base_url=f"unix://{daemon.path}", timeout=WAIT) as api:
            answers[number] = list(api.build(fileobj=io.BytesIO(body), custom_context=True, decode=True))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({image_of(told) for told in answers}) == 1
    found = sum(text_of(told).count("Using cache") for told in answers)
    assert found == 3 * 2 - 2, "each of the two steps was done once, by whoever came to it first"


def test_nothing_of_a_build_stays_in_the_daemon(daemon: Daemon) -> None:
    assert daemon.process is not None
    own = Path(f"/proc/{daemon.process.pid}")

    def state() -> tuple[int, int, str]:
        mounts = (own / "mountinfo").read_text().count(str(daemon.root))
        return len(os.listdir(own / "fd")), mounts, " ".join(sorted(os.listdir(daemon.root / "locks")))

    def one(number: int) -> None:
        build(daemon, context({"Dockerfile": f"FROM base:1\nRUN echo {number}\n"}))
        answer = daemon.http.post(
            "/build", content=context({"Dockerfile": f"FROM base:1\nRUN exit {number + 1}\n"})
        )
        assert "non-zero" in answer.text

    one(0)
    before = state()
    for number in range(1, 6):
        one(number)
    wait_until(lambda: state() <= before)
    with sqlite3.connect(daemon.root / "pipe.db") as database:
        leases = database.execute("SELECT kind, thing FROM leases").fetchall()
    database.close()
    assert leases == []


def test_a_large_context_is_not_held_in_memory(daemon: Daemon) -> None:
    assert daemon.process is not None

    def pieces() -> Iterator[bytes]:
        yield context({"Dockerfile": "FROM scratch\nCOPY big /big\n"})[:1024]
        info = tarfile.TarInfo("big")
        info.size = 256 << 20
        yield info.tobuf()
        block = os.urandom(1 << 20)
        for _ in range(256):
            yield block
        yield bytes(1024)

    answer = daemon.http.post("/build", content=pieces())
    assert "Successfully built" in answer.text, answer.text
    peak = next(
        line
        for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert int(peak.split()[1]) < 120 << 10, "kB of the daemon's memory"


# --- docker's command line ------------------------------------------------------------------------------------------


@with_docker
def test_the_command_line_builds(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM base:1\nARG A=1\nCOPY . /all/\nRUN ls /all; echo $A\nLABEL x=y\n",
        "a": "1",
        "secret": "2",
        ".dockerignore": "secret\nDockerfile\n",
    }
    place = write_files(tmp_path / "context", files)
    told = client(daemon, "build", "-t", "cli:1", "--build-arg", "A=seven", str(place))
    assert "Step 4/5 : RUN ls /all; echo $A\na\nseven\n" in told
    assert "Successfully tagged cli:1" in told
    image = client(daemon, "build", "-q", "--build-arg", "A=seven", str(place)).splitlines()[0]
    assert daemon.docker.images.get("cli:1").id == image


@with_docker
def test_the_command_line_fails_with_the_steps_code(daemon: Daemon) -> None:
    told = client(daemon, "build", "-", stdin=b"FROM base:1\nRUN exit 7\n", code=7)
    assert "returned a non-zero code: 7" in told
    assert "unknown instruction" in client(daemon, "build", "-", stdin=b"FROM base:1\nRUUN x\n", code=1)


@with_docker
def test_the_command_line_handles_what_it_built(daemon: Daemon, tmp_path: Path) -> None:
    client(daemon, "build", "-t", "cli:2", "-", stdin=b'FROM base:1\nRUN echo x > /x\nCMD ["x"]\n')
    assert "cli" in client(daemon, "images", "cli")
    assert client(daemon, "inspect", "-f", "{{.Config.Cmd}}", "cli:2") == "[x]\n"
    assert "RUN /bin/sh -c echo x" in client(daemon, "history", "--no-trunc", "cli:2")
    client(daemon, "save", "-o", str(tmp_path / "saved.tar"), "cli:2")
    client(daemon, "tag", "cli:2", "cli:3")
    assert "Untagged: cli:2" in client(daemon, "rmi", "cli:2")
    assert "Deleted: sha256" in client(daemon, "rmi", "cli:3")
    assert "Loaded image: cli:2" in client(daemon, "load", "-i", str(tmp_path / "saved.tar"))
    assert "Build Cache" in client(daemon, "system", "df")
    assert "Total" in client(daemon, "builder", "prune", "-af")
