"""The unmodified `docker buildx` on `pipe daemon`, where buildx is: its plugin in one of docker's directories, or where
`PIPE_BUILDX` says. Debian 12 has none; there the same calls are made by `test_buildkit` and `test_buildkit_steps`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import make_base, write_files
from tests.support.buildkit_client import until
from tests.support.daemon import Daemon, daemon_process
from tests.support.networks import own_host
from tests.support.openssh import agent_with, copy_programs, fingerprint, make_key

PLUGINS = (
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
)
PLACES = (os.environ.get("PIPE_BUILDX", ""), *(f"{directory}/docker-buildx" for directory in PLUGINS))
BUILDX = next((place for place in PLACES if place and os.path.exists(place)), "")
pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.skipif(not BUILDX, reason="no buildx here: PIPE_BUILDX does not say where it is"),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("d")
    with own_host():
        make_base(directory / "store", directory / "base")
        with daemon_process(directory / "store") as found:
            yield found


def command(daemon: Daemon, home: Path, *arguments: str, **env: str) -> dict[str, Any]:
    own = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "DOCKER_HOST": f"unix://{daemon.path}",
        "NO_COLOR": "1",
    }
    return {"args": [BUILDX, *arguments], "env": {**own, **env}, "cwd": home}


def buildx(daemon: Daemon, home: Path, *arguments: str, code: int = 0, stdin: bytes = b"", **env: str) -> str:
    """What it prints, both streams."""
    done = subprocess.run(
        **command(daemon, home, *arguments, **env),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    text = done.stdout.decode()
    assert done.returncode == code, text
    return text


def test_a_build_is_told_cached_and_named(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nCOPY a /a\nRUN cat /a\n", "a": "hello"})
    told = buildx(daemon, tmp_path, "build", "--progress", "plain", "-t", "bx:1", "c")
    assert "[3/3] RUN cat /a" in told and " hello" in told and "naming to docker.io/library/bx:1" in told
    again = buildx(daemon, tmp_path, "build", "--progress", "plain", "-t", "bx:1", "c")
    assert again.count("CACHED") == 2
    assert "bx:1" in [tag for image in daemon.docker.images.list() for tag in image.tags]


def test_only_what_steps_use_comes_over_links_too(daemon: Daemon, tmp_path: Path) -> None:
    text = "FROM base:1\nCOPY link/x /\nRUN --mount=source=m,target=/m cat /x /m/y\n"
    write_files(
        tmp_path / "c",
        {"Dockerfile": text, "real/x": "via-link", "real/z": "", "m/y": "mounted", "big": "b" * 9999},
    )
    (tmp_path / "c" / "link").symlink_to("real")
    told = buildx(daemon, tmp_path, "build", "--progress", "plain", "--no-cache", "c")
    assert "via-link" in told and "mounted" in told
    (size,) = {
        line.split()[3] for line in told.splitlines() if "transferring context:" in line and "done" in line
    }
    assert size.endswith("B") and not size.endswith(("kB", "MB"))


def test_a_mistake_shows_its_lines(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN exit 7\n"})
    told = buildx(daemon, tmp_path, "build", "--progress", "plain", "c", code=1)
    assert "   2 | >>> RUN exit 7" in told and "ERROR: failed to build: failed to solve:" in told
    assert " > [2/2] RUN exit 7:" in told


def test_warnings_and_checks_are_shown(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1 as x\nRUN true\n"})
    assert "1 warning found" in buildx(daemon, tmp_path, "build", "--progress", "plain", "c")
    told = buildx(daemon, tmp_path, "build", "--check", "c", code=1)
    assert "WARNING: FromAsCasing" in told and "   1 | >>> FROM base:1 as x" in told
    assert "x (default)" in buildx(daemon, tmp_path, "build", "--call", "targets", "c")


def test_outputs_come_to_the_client(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM scratch\nCOPY a b /d/\n", "a": "1", "b": "2"})
    outputs = (
        "-o",
        "type=local,dest=out",
        "-o",
        "type=tar,dest=x.tar",
        "-o",
        "type=oci,dest=i.tar",
        "-o",
        "type=docker,dest=d.tar",
    )
    buildx(daemon, tmp_path, "build", "-t", "o:1", *outputs, "c")
    assert (tmp_path / "out" / "d" / "b").read_text() == "2"
    for archive, names in (
        ("x.tar", {"d/a", "d/b"}),
        ("i.tar", {"index.json"}),
        ("d.tar", {"manifest.json"}),
    ):
        with tarfile.open(tmp_path / archive) as tar:
            assert names <= set(tar.getnames())


def test_what_is_known_of_a_build_is_written_to_files(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nLABEL a=1\n"})
    quiet = buildx(
        daemon, tmp_path, "build", "-q", "-t", "m:1", "--iidfile", "iid", "--metadata-file", "md", "c"
    )
    image = daemon.docker.images.get("m:1").id
    metadata = json.loads((tmp_path / "md").read_text())
    assert (
        quiet.strip() == (tmp_path / "iid").read_text() == metadata["containerimage.config.digest"] == image
    )
    assert metadata["image.name"] == "docker.io/library/m:1"
    (material,) = metadata["buildx.build.provenance"]["materials"]
    assert material["uri"].startswith("pkg:docker/base@1")
    ref = metadata["buildx.build.ref"].rpartition("/")[2]
    assert ref in buildx(daemon, tmp_path, "history", "ls")
    assert "pkg:docker/base@1" in buildx(daemon, tmp_path, "history", "inspect", ref)
    buildx(daemon, tmp_path, "history", "rm", ref)
    assert ref not in buildx(daemon, tmp_path, "history", "ls")


def test_secrets_and_agents_of_the_client(daemon: Daemon, tmp_path: Path) -> None:
    copy_programs(tmp_path / "c" / "root", "ssh-add")
    key = make_key(tmp_path)
    text = (
        "FROM base:1\nCOPY root /\nENV PATH=/usr/bin:/bin\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s\n"
        "RUN --mount=type=ssh ssh-add -l\nRUN --mount=type=ssh,id=k ssh-add -l\n"
    )
    write_files(tmp_path / "c", {"Dockerfile": text})
    with agent_with(key) as agent:
        given = ("--secret", "id=s,env=SECRET", "--ssh", f"default={agent}", "--ssh", f"k={key}")
        told = buildx(
            daemon, tmp_path, "build", "--no-cache", "--progress", "plain", *given, "c", SECRET="0123456789"
        )
    assert " 10\n" in told and told.count(fingerprint(key)) == 2 and "0123456789" not in told


def test_contexts_from_elsewhere(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "more", {"x": "from-more", "Dockerfile": "FROM base:1\nCOPY x /\nRUN cat /x\n"})
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nCOPY --from=m x /\nRUN cat /x\n"})
    assert " from-more" in buildx(
        daemon, tmp_path, "build", "--progress", "plain", "--build-context", "m=more", "c"
    )
    plain = ("build", "--progress", "plain", "--no-cache")
    assert " typed" in buildx(daemon, tmp_path, *plain, "-", stdin=b"FROM base:1\nRUN echo typed\n")
    archive = subprocess.run(
        ["tar", "-C", "more", "-c", "."], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert " from-more" in buildx(daemon, tmp_path, *plain, "-", stdin=archive)
    assert " from-more" in buildx(
        daemon, tmp_path, *plain, "-f", "-", "more", stdin=b"FROM base:1\nCOPY x /\nRUN cat /x\n"
    )


def test_directories_of_the_client_hold_caches_and_layouts(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN head -c 9 /dev/urandom > /random\n"})
    plain = ("build", "--progress", "plain")
    told = buildx(daemon, tmp_path, *plain, "--cache-to", "type=local,dest=cache,mode=max", "-t", "dirs", "c")
    assert "export cache to local cache" in told
    first = daemon.docker.images.get("dirs").id
    buildx(daemon, tmp_path, "prune", "--force", "--all")
    again = buildx(daemon, tmp_path, *plain, "--cache-from", "type=local,src=cache", "-t", "dirs", "c")
    assert "CACHED" in again and daemon.docker.images.get("dirs").id == first
    buildx(daemon, tmp_path, "build", "-o", "type=oci,tar=false,dest=layout", "c")
    write_files(
        tmp_path / "d", {"Dockerfile": "FROM base:1\nRUN --mount=from=lay,target=/l wc -c < /l/random\n"}
    )
    assert " 9\n" in buildx(daemon, tmp_path, *plain, "--build-context", "lay=oci-layout://layout", "d")


def test_bake_builds_targets_that_stand_on_each_other(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path, {"c/Dockerfile": "FROM base:1\nRUN echo one > /one\n"})
    record = {
        "group": {"default": {"targets": ["one", "two"]}},
        "target": {
            "one": {"context": "c", "tags": ["bake-one"]},
            "two": {
                "context": "c",
                "contexts": {"first": "target:one"},
                "dockerfile-inline": "FROM first\nRUN cat /one; echo two\n",
                "tags": ["bake-two"],
            },
        },
    }
    write_files(tmp_path, {"docker-bake.json": json.dumps(record)})
    told = buildx(daemon, tmp_path, "bake", "--progress", "plain")
    assert " one\n" in told and " two\n" in told
    one, two = (daemon.docker.images.get(f"bake-{name}") for name in ("one", "two"))
    layers = [image.attrs["RootFS"]["Layers"] for image in (one, two)]
    assert layers[1][: len(layers[0])] == layers[0]


def test_an_interrupted_build_is_over_here_too(daemon: Daemon, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN echo begun; sleep 3079\n"})
    given = command(daemon, tmp_path, "build", "--progress", "plain", "c")
    with subprocess.Popen(**given, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b" begun" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert b"context canceled" in process.stderr.read()
    assert process.returncode
    assert until(lambda: not subprocess.run(["pgrep", "-fx", "sleep 3079"], capture_output=True).stdout)


def test_the_builder_says_what_it_is_and_holds(daemon: Daemon, tmp_path: Path) -> None:
    assert "linux/" in buildx(daemon, tmp_path, "inspect")
    write_files(tmp_path / "c", {"Dockerfile": "FROM base:1\nRUN echo kept > /k\n"})
    buildx(daemon, tmp_path, "build", "-q", "c")
    assert "Reclaimable" in buildx(daemon, tmp_path, "du")
    assert "Total" in buildx(daemon, tmp_path, "prune", "--force", "--all")
