"""The embedded registry judged by podman and buildah."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded_registry import Served, embedded_registry
from tests.support.registry_images import BUSYBOX, small_image

pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="Debian's package busybox-static is not installed"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with embedded_registry(tmp_path) as running:
        yield running


@pytest.fixture
def storage() -> Iterator[Path]:
    """Where a tool keeps its images: podman wants a path of at most fifty characters."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        yield Path(directory)


class Tool:
    """podman or buildah with storage of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        if shutil.which(name) is None:
            pytest.skip(f"Debian's package {name} is not installed")
        storage = ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs"]
        own = ["--cgroup-manager", "cgroupfs", "--tmpdir", f"{directory}/tmp"] if name == "podman" else []
        self._command = [name, *storage, *own]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def test_podman_pulls_what_we_serve_and_pushes_it_back(served: Served, storage: Path) -> None:
    podman = Tool("podman", storage)
    served.push("shop/app", "1", small_image(busybox=True))
    image = served.images.get("shop/app:1")
    assert podman(
        "pull", "--quiet", "--tls-verify=false", f"{served.host}/shop/app:1"
    ) == image.id.removeprefix("sha256:")
    podman(
        "push", "--quiet", "--tls-verify=false", f"{served.host}/shop/app:1", f"{served.host}/from/podman:2"
    )
    assert served.images.get("from/podman:2").id == image.id


def test_buildah_builds_on_what_we_serve_and_pushes_the_result(
    served: Served, storage: Path, tmp_path: Path
) -> None:
    buildah = Tool("buildah", storage)
    served.push("shop/app", "1", small_image(busybox=True))
    container = buildah("from", "--quiet", "--tls-verify=false", f"{served.host}/shop/app:1")
    try:
        (tmp_path / "added").write_text("by buildah\n")
        buildah("copy", "--quiet", container, str(tmp_path / "added"), "/added")
        buildah("config", "--label", "made.by=buildah", container)
        buildah(
            "commit", "--quiet", "--tls-verify=false", container, f"docker://{served.host}/from/buildah:3"
        )
    finally:
        buildah("rm", container)
    image = served.images.get("from/buildah:3")
    assert image.config.config.labels["made.by"] == "buildah"
    snapshot = served.images.snapshot(image)
    assert snapshot is not None
    with served.store.snapshots.mounted(snapshot) as root:
        assert Path(root, "added").read_text() == "by buildah\n"
        assert Path(root, "hello").read_text() == "hello\n"
