"""Builds as a user runs them, and a look at what they left: configs, layers, file trees."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
BUSYBOX = "/bin/busybox"
BASE = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
RUN mkdir -p /etc /tmp && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd && echo 'app:x:1000:2000::/home/app:/bin/sh' >> /etc/passwd && echo 'root:x:0:' > /etc/group && echo 'web:x:3000:app' >> /etc/group && chmod 1777 /tmp
CMD ["sh"]
"""


def write_files(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make the files of a context; a name that ends in a slash is a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        place = directory / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


def run_pipe(
    root: Path,
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] = {},
    stdin: bytes = b"",
    code: int | None = 0,
) -> subprocess.CompletedProcess[bytes]:
    """Run `pipe` on the store `root`; `code` is the exit code it must have (None: any)."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--root", str(root), "--progress", "plain", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": _python_path(), **kept, **env},
        input=stdin,
        capture_output=True,
        timeout=240,
    )
    assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return done


def _python_path() -> str:
    """Ours, and where the packages are in a machine without a virtual environment (tools/vm)."""
    return os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))


def build(root: Path, context: Path, *arguments: str, **settings: Any) -> str:
    """Build a directory; the image id."""
    done = run_pipe(root, "build", "-q", *arguments, str(context), **settings)
    return done.stdout.decode().strip()


def build_text(root: Path, context: Path, dockerfile: str, *arguments: str, **settings: Any) -> str:
    """Build a Dockerfile given as text, with `context` as it is."""
    return build(root, context, "-f", "-", *arguments, stdin=dockerfile.encode(), **settings)


def log_of(root: Path, context: Path, *arguments: str, **settings: Any) -> str:
    """What a build says, its plain progress."""
    done = run_pipe(root, "build", *arguments, str(context), **settings)
    return (done.stdout + done.stderr).decode()


def config_of(root: Path, image: str) -> dict[str, Any]:
    """The image's config, straight from the store."""
    from runtime.images.images import Images
    from runtime.store import Store

    with Store.open(str(root)) as store:
        found = Images(store).find(image)
        assert found is not None, image
        config: dict[str, Any] = json.loads(found.raw_config)
        return config


def layers_of(root: Path, image: str) -> list[dict[str, tarfile.TarInfo]]:
    """The members of each layer, by name, as GNU tar's rules read them."""
    from runtime.images.images import Images
    from runtime.store import Store
    from runtime.store.layers import write_layer

    layers = []
    with Store.open(str(root)) as store:
        images = Images(store)
        found = images.find(image)
        assert found is not None, image
        top = images.snapshot(found)
        for snapshot in reversed(store.snapshots.ancestry(top) if top else ()):
            out = io.BytesIO()
            parent = store.snapshots.get(snapshot).parent
            lowers = store.snapshots.lowers(parent) if parent else ()
            write_layer(store.snapshots.path(snapshot), out, lowers=lowers)
            out.seek(0)
            with tarfile.open(fileobj=out) as archive:
                layers.append({member.name: member for member in archive})
    return layers


def tree_of(root: Path, context: Path, *arguments: str, **settings: Any) -> dict[str, tarfile.TarInfo]:
    """The members of the built image's root file system."""
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", *arguments, str(context), **settings)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {member.name: member for member in archive}


def contents_of(
    root: Path, context: Path, names: Sequence[str], *arguments: str, **settings: Any
) -> dict[str, bytes]:
    """What some files of the built root hold."""
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", *arguments, str(context), **settings)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {name: archive.extractfile(name) for name in names}
        return {name: file.read() for name, file in found.items() if file is not None}


def busybox_context(directory: Path, files: Mapping[str, str | bytes] = {}) -> Path:
    """A context with the host's static busybox in it."""
    return write_files(directory, {"busybox": Path(BUSYBOX).read_bytes(), **files}) and _executable(directory)


def _executable(directory: Path) -> Path:
    (directory / "busybox").chmod(0o755)
    return directory


def make_base(root: Path, directory: Path, name: str = "base:1") -> str:
    """An image with a busybox userland, an /etc/passwd with `app` (1000:2000) and a group `web` (3000)."""
    busybox_context(directory)
    return build_text(root, directory, BASE, "-t", name)
