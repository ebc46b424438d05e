"""OpenSSH's own tools: agents, keys, and what of a host a container needs to run them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_key(directory: Path, kind: str = "ed25519", *, passphrase: str = "", form: str = "") -> Path:
    """A private key; `KEY.pub` lies beside it. `form` is PEM or PKCS8 instead of OpenSSH's own."""
    path = directory / f"key-{kind}{form}{'-locked' if passphrase else ''}"
    more = ["-m", form] if form else []
    run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path), *more)
    return path


def run(*words: str, agent: str = "", **settings: object) -> str:
    """What a tool says; it must succeed."""
    env = {"PATH": "/usr/bin:/bin", "SSH_AUTH_SOCK": agent}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return str(done.stdout)


def fingerprint(key: Path) -> str:
    return run("ssh-keygen", "-lf", str(key)).split()[1]


@contextmanager
def agent_with(*keys: Path) -> Iterator[str]:
    """The socket of a running ssh-agent; its path is short, whatever pytest's are."""
    with tempfile.TemporaryDirectory(prefix="pipe-agent-") as directory:
        path = f"{directory}/agent"
        command = ("ssh-agent", "-D", "-a", path)
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()  # said once it listens
                for key in keys:
                    run("ssh-add", "-q", str(key), agent=path)
                yield path
            finally:
                process.terminate()


def copy_programs(directory: Path, *names: str) -> None:
    """Programs of this host with their libraries, as a tree to be copied to the root of an image."""
    for name in names:
        program = shutil.which(name)
        assert program, f"{name} is not installed"
        linked = re.findall(r"(/\S+) \(0x", run("ldd", program))
        for path in (program, *linked):
            place = directory / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(path, place)
