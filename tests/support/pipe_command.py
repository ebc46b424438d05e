"""The `pipe` command as a user calls it, in a project of its own and with a store of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 180.0
BUSYBOX = "/bin/busybox"
DOCKERFILE = """\
FROM scratch AS box
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /reports && chmod 1777 /tmp /reports && echo root:x:0:0::/:/bin/sh > /etc/passwd
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Project:
    """A directory with a Dockerfile (target `box`) and whatever pipe.yaml a test writes."""

    def __init__(self, directory: Path, store: Path) -> None:
        self.directory, self.store = directory, store
        self.name = f"t{os.urandom(3).hex()}"
        directory.mkdir(parents=True)
        shutil.copy(BUSYBOX, directory / "busybox")
        (directory / "Dockerfile").write_text(DOCKERFILE)
        self.variables: dict[str, str] = {}
        self._started: list[subprocess.Popen[str]] = []

    def write(self, text: str, name: str = "pipe.yaml") -> None:
        """A pipe.yaml with this project's name and the image `box`."""
        head = f"name: {self.name}\nimages:\n  box: {{target: box}}\n"
        (self.directory / name).write_text(head + textwrap.dedent(text))

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"PIPE_ROOT": str(self.store), "PIPE_PROGRESS": "plain", "GIT_CONFIG_GLOBAL": "/dev/null"}
        return {**kept, **own, **self.variables}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`pipe …` in the background, in a process group of its own; ended with the test at the latest."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli.main", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate(timeout=PATIENCE)

    def pipe(self, *arguments: str, code: int | None = 0) -> Done:
        """`pipe …` to its end; it must exit with `code`."""
        ran = subprocess.run(
            [sys.executable, "-m", "pipeline.cli.main", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        done = Done(ran.returncode, ran.stdout, ran.stderr)
        assert code is None or done.code == code, f"exit {done.code}, wanted {code}\n{done.out}\n{done.err}"
        return done

    def containers(self) -> list[str]:
        """Names of all containers of the store, also of those that ended."""
        return self.pipe("ps", "-a", "--format", "{{.Names}}").out.split()

    def left(self) -> list[str]:
        """Networks and volumes that belong to stages."""
        from pipeline.leftovers import KIND
        from runtime.networks.networks import Networks
        from runtime.store import Store
        from runtime.volumes import Volumes

        with Store.open(str(self.store)) as store:
            things = (*Networks(store).list(), *Volumes(store).list())
            return [thing.name for thing in things if KIND in thing.labels]


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> str:
    """Read its output up to a line that contains `wanted`; what was read."""
    assert process.stdout is not None
    seen = []
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            seen.append(line)
            if wanted in line:
                return "".join(seen)
    finally:
        watchdog.cancel()
        watchdog.join()
    raise AssertionError(f"it ended without {wanted!r}:\n{''.join(seen)}")


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> tuple[int, str]:
    """Send a signal and wait; exit code and what it still said."""
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out


def clear_store(root: Path) -> None:
    """Remove containers, networks and rules of a store; its directory is pytest's to remove."""
    if not root.exists():
        return
    from runtime.containers.containers import Containers
    from runtime.images.images import Images
    from runtime.networks.networks import Networks
    from runtime.store import Store
    from runtime.volumes import Volumes

    with Store.open(str(root)) as store:
        networks = Networks(store)
        containers = Containers(store, Images(store), networks, Volumes(store))
        containers.sweep()
        for container in containers.list(everything=True):
            containers.remove(container.id, force=True, volumes=True)
        networks.teardown()
