"""The command line as its users know it from docker: what it prints and how it exits (D-14, D-23)."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import run
from tests.support import REPOSITORY
from tests.support.containers import PATIENCE, World

pytestmark = pytest.mark.linux

Pipe = Callable[..., tuple[int, str, str]]
RUN = "import sys; from pipeline.cli.main import run; sys.exit(run(['--root', sys.argv[1], *sys.argv[2:]]))"


@pytest.fixture
def pipe(world: World, capfd: pytest.CaptureFixture[str]) -> Pipe:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["--root", str(world.root), *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_run_prints_what_the_process_prints_and_exits_as_it_does(pipe: Pipe) -> None:
    assert pipe("run", "--rm", "--network", "none", "busybox", "echo", "hello") == (0, "hello\n", "")
    code, out, err = pipe(
        "run", "--rm", "--network=none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (code, out, err) == (7, "out\n", "err\n")
    code, _, err = pipe("run", "--rm", "--network", "none", "busybox", "nosuchcommand")
    assert code == 127
    assert 'exec: "nosuchcommand": executable file not found in $PATH' in err
    assert pipe("ps", "-aq") == (0, "", "")


def test_mistakes_are_told_and_exit_2(pipe: Pipe) -> None:
    code, _, err = pipe("run", "--volum", "/a:/b", "busybox")
    assert code == 2
    assert "did you mean `--volume`?" in err
    code, _, err = pipe("stop", "nosuchcontainer")
    assert code == 1
    assert "no such container: nosuchcontainer" in err
    assert pipe("run", "--help")[1].startswith("Usage: pipe run")


def test_the_life_of_a_detached_container(pipe: Pipe, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    script = "trap 'exit 3' TERM; echo started; while true; do sleep 0.05; done"
    code, out, _ = pipe(
        "run", "-d", "--name", "web", "--network", "none", "-l", "a=b", "--cidfile", str(cidfile), "busybox", "sh", "-c", script
    )  # fmt: skip
    identifier = out.strip()
    assert code == 0
    assert cidfile.read_text() == identifier
    code, out, _ = pipe("ps", "--filter", "label=a=b", "--format", "{{.Names}} {{.State}} {{.Image}}")
    assert out == "web running busybox\n"
    assert "CONTAINER ID" in pipe("ps")[1]
    assert pipe("exec", "web", "sh", "-c", "echo inside; exit 5") == (5, "inside\n", "")
    deadline = time.monotonic() + PATIENCE
    while pipe("container", "logs", "web")[1] != "started\n":
        assert time.monotonic() < deadline
    assert "sh -c" in pipe("top", "web")[1]
    assert json.loads(pipe("stats", "--no-stream", "--format", "json", "web")[1])["Name"] == "web"
    assert pipe("pause", "web")[1] == "web\n"
    assert pipe("inspect", "-f", "{{.State.Status}}", "web")[1] == "paused\n"
    assert pipe("unpause", "web")[0] == 0
    assert pipe("rename", "web", "site")[0] == 0
    assert pipe("stop", "-t", "60", "site") == (0, "site\n", "")
    assert pipe("wait", "site")[1] == "3\n"
    (record,) = json.loads(pipe("inspect", "site")[1])
    assert (record["Id"], record["State"]["ExitCode"], record["Name"]) == (identifier, 3, "/site")
    assert pipe("start", "site")[0] == 0
    assert pipe("rm", "site")[0] == 1
    assert pipe("rm", "-f", "site") == (0, "site\n", "")
    code, _, err = pipe("run", "-d", "--cidfile", str(cidfile), "busybox", "true")
    assert code == 125
    assert "exists" in err


def test_create_start_attach(pipe: Pipe) -> None:
    code, _, _ = pipe(
        "create", "--network", "none", "--name", "made", "busybox", "sh", "-c", "echo hi; exit 4"
    )
    assert code == 0
    assert pipe("ps", "-a", "--format", "{{.Names}} {{.Status}}")[1] == "made Created\n"
    assert pipe("start", "-a", "made") == (4, "hi\n", "")
    assert "Exited (4)" in pipe("ps", "-a")[1]
    assert pipe("container", "prune", "-f")[0] == 0
    assert pipe("ps", "-aq")[1] == ""


def test_cp_follows_the_rules_of_cp(pipe: Pipe, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("content\n")
    pipe("create", "--network", "none", "--name", "copied", "busybox", "cat", "/tmp/new/file", "/tmp/file")
    assert pipe("cp", str(tmp_path / "dir"), "copied:/tmp/new")[0] == 0
    assert pipe("cp", str(tmp_path / "dir" / "file"), "copied:/tmp")[0] == 0
    assert pipe("start", "-a", "copied")[1] == "content\ncontent\n"
    assert pipe("cp", "copied:/tmp/new", str(tmp_path / "back"))[0] == 0
    assert (tmp_path / "back" / "file").read_text() == "content\n"
    assert pipe("cp", "copied:/tmp/file", str(tmp_path))[0] == 0
    assert (tmp_path / "file").read_text() == "content\n"
    assert pipe("cp", "copied:/nowhere", str(tmp_path))[0] == 2
    assert pipe("cp", "a", "b")[0] == 2
    assert pipe("rm", "copied")[0] == 0


def test_volumes_have_their_commands(pipe: Pipe) -> None:
    assert pipe("volume", "create", "--label", "x=y", "kept") == (0, "kept\n", "")
    assert (
        pipe(
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "kept:/v",
            "-v",
            "/anonymous",
            "busybox",
            "touch",
            "/v/x",
        )[0]
        == 0
    )
    assert pipe("volume", "ls", "-q")[1] == "kept\n"
    (record,) = json.loads(pipe("volume", "inspect", "kept")[1])
    assert os.listdir(record["Mountpoint"]) == ["x"]
    assert pipe("volume", "rm", "kept") == (0, "kept\n", "")
    assert pipe("volume", "rm", "kept")[0] == 1


@pytest.fixture
def terminal(world: World) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def start(*words: str) -> Screen:
        screens.append(Screen(world, words))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, world: World, words: tuple[str, ...]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(world.root), *words],
            cwd=REPOSITORY, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.text = b""

    def until(self, word: bytes) -> None:
        """Read until `word` was seen."""
        import select

        while word not in self.text:
            assert select.select([self.master], [], [], PATIENCE)[0], f"no {word!r} in {self.text!r}"
            try:
                self.text += os.read(self.master, 4096)
            except OSError as error:  # EIO: everybody has gone
                raise AssertionError(f"no {word!r} in {self.text!r}") from error

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_an_interactive_shell_on_a_terminal(terminal: Callable[..., Screen]) -> None:
    screen = terminal("run", "--rm", "-it", "--network", "none", "busybox", "sh")
    screen.until(b"# ")
    screen.type(b"echo $((40+2)); tty; exit 6\n")
    screen.until(b"42")
    screen.until(b"/dev/")
    assert screen.process.wait(PATIENCE) == 6


def test_detaching_leaves_the_container_and_attaching_comes_back(
    world: World, terminal: Callable[..., Screen]
) -> None:
    screen = terminal("run", "-it", "--name", "detached", "--network", "none", "busybox", "sh")
    screen.until(b"# ")
    screen.type(b"X=kept\n\x10\x11")
    assert screen.process.wait(PATIENCE) == 0
    assert world.containers.get("detached").running
    again = terminal("attach", "detached")
    again.type(b"echo got $X\n")
    again.until(b"got kept")
    again.type(b"exit\n")
    assert again.process.wait(PATIENCE) == 0
    world.containers.remove("detached", force=True)


def test_ctrl_c_reaches_the_process_and_ends_the_command_with_its_code(
    terminal: Callable[..., Screen],
) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while true; do sleep 0.05; done"
    screen = terminal("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    screen.until(b"ready")
    os.kill(screen.process.pid, 2)
    screen.until(b"caught")
    assert screen.process.wait(PATIENCE) == 9


def test_a_reader_that_goes_away_ends_a_container_that_is_to_be_removed(world: World) -> None:
    words = [
        sys.executable,
        "-c",
        RUN,
        str(world.root),
        "run",
        "--rm",
        "--network",
        "none",
        "--name",
        "endless",
        "busybox",
        "yes",
    ]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        process.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while world.containers.find("endless") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
