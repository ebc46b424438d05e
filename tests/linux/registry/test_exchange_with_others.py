"""Images go both ways through Debian's docker-registry: podman runs what we built, we run what buildah built."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import BASE, BUSYBOX, run_pipe
from tests.support.registry import docker_registry

pytestmark = [pytest.mark.linux, pytest.mark.peer]


@pytest.fixture
def storage() -> Iterator[Path]:
    """Where a tool keeps its images: podman wants a path of at most fifty characters."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        yield Path(directory)


def tool(storage: Path, command: str) -> str:
    """Run shell text with `$S` as the options for a storage of its own; crun refuses a v1 host that shows it a v2 tree too."""
    options = f"--root {storage}/root --runroot {storage}/run --storage-driver vfs"
    script = f"umount /sys/fs/cgroup/unified 2>/dev/null || true; S='{options}'; set -e; {command}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=180, cwd=storage
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"Debian's package {name} is not installed")


def test_podman_runs_what_we_built_and_pushed(tmp_path: Path, storage: Path) -> None:
    need("podman")
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(BUSYBOX, context)
    (context / "Dockerfile").write_text(BASE + "ENV GREET=hello\nCMD echo $GREET from $(id -u)\n")
    with docker_registry(tmp_path) as registry:
        name = f"{registry.host}/t/app:1"
        run_pipe(tmp_path / "store", "build", "-t", name, str(context))
        run_pipe(tmp_path / "store", "push", name)
        limits = "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000"
        run = f"podman $S --cgroup-manager cgroupfs run --quiet --rm --network none {limits} --tls-verify=false {name}"
        assert tool(storage, run) == "hello from 0\n"


def test_we_run_what_buildah_built_and_pushed(tmp_path: Path, storage: Path) -> None:
    need("buildah")
    with docker_registry(tmp_path) as registry:
        name = f"{registry.host}/b/app:1"
        tool(
            storage,
            f"""c=$(buildah $S from scratch); buildah $S copy -q $c {BUSYBOX} /bin/busybox
            buildah $S config --cmd '["/bin/busybox", "echo", "made by buildah"]' $c
            buildah $S commit -q $c b/app:1; buildah $S push -q --tls-verify=false b/app:1 docker://{name}""",
        )
        done = run_pipe(tmp_path / "store", "run", "--rm", "--network", "none", name, code=None)
        assert (done.returncode, done.stdout) == (0, b"made by buildah\n"), done.stderr
