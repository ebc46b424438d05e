"""`POST /build` of the classic builder: parameters, bodies, the stream, mistakes. Steps that run are in test_build_steps."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest

from runtime.registry.access import Access
from runtime.registry.service import ServiceOptions
from tests.support.build_api import build, context, image_of, refusal, text_of
from tests.support.daemon import Daemon
from tests.support.embedded_registry import embedded_registry
from tests.support.registry_images import layered_image
from tests.support.store import Entry, make_tar, symlink

SCRATCH = "FROM scratch\nCOPY a /a\n"
WHOLE = """FROM scratch AS one
ARG A=1
ENV X=$A
COPY a /a
FROM scratch AS unused
COPY a /unused
FROM scratch
COPY --from=one /a /b
LABEL x=y
CMD ["sh"]
"""


def test_the_text_is_the_classic_builders(daemon: Daemon) -> None:
    records = build(daemon, context({"Dockerfile": WHOLE, "a": "1"}), t=["x:1", "y"])
    image = image_of(records)
    assert text_of(records) == (
        "Step 1/8 : FROM scratch AS one\nStep 2/8 : ARG A=1\nStep 3/8 : ENV X=$A\nStep 4/8 : COPY a /a\n"
        'Step 5/8 : FROM scratch\nStep 6/8 : COPY --from=one /a /b\nStep 7/8 : LABEL x=y\nStep 8/8 : CMD ["sh"]\n'
        f" ---> {image[7:19]}\nSuccessfully built {image[7:19]}\nSuccessfully tagged x:1\nSuccessfully tagged y:latest\n"
    )
    assert daemon.images.get("x:1").id == daemon.images.get("y").id == image
    assert daemon.images.get(image).config.config.cmd == ("sh",)
    again = text_of(build(daemon, context({"Dockerfile": WHOLE, "a": "1"})))
    assert again.count(" ---> Using cache\n") == 2
    assert "Step 6/8 : COPY --from=one /a /b\n ---> Using cache\n" in again


def test_a_quiet_build_tells_the_id_only(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    image = image_of(build(daemon, body))
    assert build(daemon, body, q="1") == [{"stream": f"{image}\n"}]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_contexts_come_compressed_or_not(daemon: Daemon, compress: Any) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    assert image_of(build(daemon, compress(body))) == image_of(build(daemon, body))


def test_a_body_in_chunks_leaves_nothing_behind(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": os.urandom(3 << 20)})

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    answer = daemon.http.post("/build", content=pieces())
    assert "Successfully built" in answer.text
    assert os.listdir(daemon.root / "drafts") == []


def test_parameters_reach_the_image(daemon: Daemon) -> None:
    text = "FROM scratch AS one\nARG A\nARG B=unset\nARG C=kept\nENV A=$A B=$B C=$C\nCOPY a /a\nFROM one\nENV D=1\n"
    records = build(
        daemon,
        context({"sub/My.Dockerfile": text, "a": "1"}),
        dockerfile="sub/My.Dockerfile",
        buildargs=json.dumps({"A": "given", "B": "", "C": None, "E": "nobody"}),
        labels=json.dumps({"l": "v"}),
        target="one",
        platform="linux/arm64",
    )
    found = daemon.images.get(image_of(records))
    assert list(found.config.config.env)[1:] == ["A=given", "B=", "C=kept"]
    assert dict(found.config.config.labels) == {"l": "v"}
    assert str(found.config.platform) == "linux/arm64"
    assert "Step 7/7 : LABEL l=v\n" in text_of(records)
    assert "[Warning] One or more build-args [E] were not consumed\n" in text_of(records)


def test_an_image_that_is_here_is_not_looked_for_elsewhere_to_cache_from(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    build(daemon, body, t="127.0.0.1:1/here")
    told = build(daemon, body, cachefrom='["127.0.0.1:1/here"]')
    assert "Using cache" in text_of(told)
    elsewhere = build(daemon, body, cachefrom='["127.0.0.1:1/there"]', nocache="1")
    assert image_of(elsewhere), "a cache that cannot be had is no error"


def test_nocache_does_a_step_again(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    build(daemon, body)
    assert "Using cache" in text_of(build(daemon, body))
    assert "Using cache" not in text_of(build(daemon, body, nocache="1"))


def test_files_that_are_ignored_but_had_to_be_sent_are_not_copied(daemon: Daemon, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "Dockerfile\n", "a": "1"}
    assert names_of(daemon, image_of(build(daemon, context(files)))) == {".dockerignore", "a"}
    files[".dockerignore"] = ".dockerignore\n"
    assert names_of(daemon, image_of(build(daemon, context(files)))) == {"Dockerfile", "a"}


def names_of(daemon: Daemon, image: str) -> set[str]:
    """The files of an image of one layer."""
    top = daemon.images.snapshot(daemon.images.get(image))
    assert top is not None
    return set(os.listdir(daemon.services.store.snapshots.path(top)))  # type: ignore[union-attr]


# --- docker-py ------------------------------------------------------------------------------------------------------


def test_docker_py_builds(daemon: Daemon, tmp_path: Path) -> None:
    for name, content in {"Dockerfile": WHOLE, "a": "1", ".dockerignore": "b\n", "b": "2"}.items():
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / name).write_text(content)
    told = list(
        daemon.docker.api.build(
            path=str(tmp_path / "c"), tag="py:1", rm=True, decode=True, buildargs={"A": "7"}
        )
    )
    assert told[-1] == {"stream": "Successfully tagged py:1\n"}
    assert daemon.images.get("py:1").id == image_of(told)


def test_docker_py_builds_a_text(daemon: Daemon) -> None:
    told = list(daemon.docker.api.build(fileobj=io.BytesIO(b"FROM scratch\nENV A=1\n"), decode=True))
    assert "Successfully built" in text_of(told)


# --- where the context is -------------------------------------------------------------------------------------------


@contextmanager
def web(pages: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path.partition("?")[0])
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_context_is_fetched_from_a_url(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    with web({"/c.tar.gz": gzip.compress(body), "/Dockerfile": b"FROM scratch\nENV B=2\n"}) as url:
        fetched = image_of(build(daemon, b"", remote=f"{url}/c.tar.gz"))
        assert fetched == image_of(build(daemon, body))
        alone = image_of(build(daemon, b"", remote=f"{url}/Dockerfile"))
        assert daemon.images.get(alone).config.config.env[-1] == "B=2"
        status, said = refusal(daemon, b"", remote=f"{url}/nope.tar")
    assert status >= 400 and "404" in said


def test_a_context_is_fetched_from_git(daemon: Daemon, tmp_path: Path) -> None:
    repository = tmp_path / "repo.git"
    repository.mkdir()
    (repository / "Dockerfile").write_text(SCRATCH)
    (repository / "a").write_text("from git")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "m"],
    ):
        subprocess.run(["git", *command], cwd=repository, check=True)
    # The server below serves files as they lie: git's dumb protocol.
    subprocess.run(["git", "update-server-info"], cwd=repository, check=True)
    pages = {
        f"/repo.git/{path.relative_to(repository / '.git')}": path.read_bytes()
        for path in (repository / ".git").rglob("*")
        if path.is_file()
    }
    with web(pages) as url:
        image = image_of(build(daemon, b"", remote=f"{url}/repo.git#main"))
    assert names_of(daemon, image) == {"a"}


# --- mistakes -------------------------------------------------------------------------------------------------------

GOOD = context({"Dockerfile": SCRATCH, "a": "1"})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"buildargs": "x"}, "error reading build args"),
        ({"labels": "x"}, "error reading labels"),
        ({"cachefrom": "x"}, "error reading cache-from"),
        ({"ulimits": "x"}, "error reading ulimit settings"),
        ({"outputs": "x"}, "invalid outputs specified"),
        ({"version": "9"}, 'invalid version "9"'),
        ({"version": "2"}, "needs a session"),
        ({"squash": "1"}, "squash is only supported with experimental mode"),
        ({"platform": "foo/bar/x/y"}, "foo/bar/x/y"),
        ({"t": "UPPER"}, "invalid reference format"),
        ({"t": "x@sha256:" + "0" * 64}, "digest"),
        ({"networkmode": "container:x"}, "container:x"),
        ({"extrahosts": "nothing"}, "invalid extra host"),
        ({"isolation": "hyperv"}, "hyperv"),
        ({"securityopt": '["x"]'}, "security options"),
        ({"target": "nope"}, "nope"),
    ],
)
def test_parameters_that_cannot_be_are_refused(daemon: Daemon, query: dict[str, str], said: str) -> None:
    status, message = refusal(daemon, GOOD, **query)
    assert status == 400
    assert said in message


def test_numbers_that_are_none_count_as_not_given(daemon: Daemon) -> None:
    assert image_of(build(daemon, GOOD, memory="x", shmsize="-1")) == image_of(build(daemon, GOOD))


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_told(daemon: Daemon) -> None:
    assert refusal(daemon, context({"Dockerfile": "FROM scratch\nRUUN x\n"}))[0] == 400
    assert "RUUN" in refusal(daemon, context({"Dockerfile": "FROM scratch\nRUUN x\n"}))[1]
    assert refusal(daemon, context({"Dockerfile": "# nothing\n"}))[0] == 400
    assert refusal(daemon, context({"x": ""})) == (404, "no Dockerfile in the context")
    assert refusal(daemon, GOOD, dockerfile="nope") == (404, "no nope in the context")
    assert refusal(daemon, b"")[0] == 400
    assert refusal(daemon, b"\x1f\x8bnothing of the kind")[0] == 400
    assert refusal(daemon, GOOD[:700])[0] == 400
    assert os.listdir(daemon.root / "drafts") == []


def test_a_step_that_fails_is_told_in_the_stream(daemon: Daemon) -> None:
    records = build(daemon, context({"Dockerfile": "FROM scratch\nCOPY a /a\nCOPY nope /x\n", "a": "1"}))
    assert "Step 3/3 : COPY nope /x\n" in text_of(records)
    assert "nope" in records[-1]["error"]
    assert records[-1]["errorDetail"]["message"] == records[-1]["error"]
    with pytest.raises(docker.errors.BuildError, match="nope"):
        daemon.docker.images.build(fileobj=io.BytesIO(b"FROM scratch\nCOPY nope /x\n"))


def test_a_base_that_cannot_be_had_is_told_in_the_stream(daemon: Daemon) -> None:
    records = build(daemon, context({"Dockerfile": "FROM 127.0.0.1:1/nope\n"}))
    assert text_of(records) == "FROM 127.0.0.1:1/nope\n"
    assert "127.0.0.1:1" in records[-1]["error"]


def test_an_archive_reaches_no_file_of_the_host(daemon: Daemon, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("FROM scratch\nLABEL stolen=1\n")
    linked = make_tar(symlink("Dockerfile", str(secret)))
    assert refusal(daemon, linked) == (404, "no Dockerfile in the context")
    through = make_tar(
        symlink("d", str(tmp_path)), Entry("d/evil", b"x"), Entry("Dockerfile", SCRATCH.encode())
    )
    daemon.http.post("/build", content=through)
    outside = make_tar(Entry("../../evil", b"x"), Entry("Dockerfile", b"FROM scratch\nCOPY . /\n"))
    daemon.http.post("/build", content=outside)
    assert [path for path in tmp_path.rglob("evil") if daemon.root not in path.parents] == []
    ignored = make_tar(
        symlink(".dockerignore", str(secret)), Entry("Dockerfile", SCRATCH.encode()), Entry("a", b"1")
    )
    assert image_of(build(daemon, ignored))
    assert secret.exists()


def test_what_a_cut_connection_sent_is_removed(daemon: Daemon) -> None:
    with daemon.connect() as line:
        line.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        until(lambda: os.listdir(daemon.root / "drafts") != [])
    until(lambda: os.listdir(daemon.root / "drafts") == [])


def until(holds: Any) -> None:
    """Wait for something another thread does; the suite's time limit is the end of patience."""
    pause = threading.Event()
    while not holds():
        pause.wait(0.01)


# --- logins ---------------------------------------------------------------------------------------------------------


def test_logins_are_used_for_the_pull_and_kept_nowhere(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(
        subprocess.run(
            ["htpasswd", "-nbB", "me", "geheim!"], capture_output=True, text=True, check=True
        ).stdout
    )
    with embedded_registry(tmp_path / "open") as source:
        source.push("base", "1", layered_image({"f": b"1"}))
    options = ServiceOptions(address="127.0.0.1:0", access=Access(str(tmp_path / "users")))
    with embedded_registry(tmp_path / "open", options) as registry:
        body = context({"Dockerfile": f"FROM {registry.host}/base:1\nENV A=1\n"})
        assert "error" in build(daemon, body)[-1]
        login = {registry.host: {"username": "me", "password": "geheim!"}}
        header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        assert (
            "error"
            in build(daemon, body, headers={"X-Registry-Config": base64.b64encode(b"{}").decode()})[-1]
        )
        records = build(daemon, body, headers={"X-Registry-Config": header})
        assert image_of(records)
        assert "error" in build(daemon, body, pull="1")[-1], "the next client has to show its own"
    for path in daemon.root.rglob("*"):
        if path.is_file():
            assert b"geheim!" not in path.read_bytes()


# --- cancelling -----------------------------------------------------------------------------------------------------


def test_cancelling_needs_an_id_and_an_unknown_one_is_no_error(daemon: Daemon) -> None:
    answer = daemon.http.post("/build/cancel")
    assert (answer.status_code, answer.json()) == (400, {"message": "build ID not provided"})
    assert daemon.http.post("/build/cancel", params={"id": "x"}).status_code == 200


# --- the cache ------------------------------------------------------------------------------------------------------


def test_the_build_cache_is_pruned(daemon: Daemon) -> None:
    body = context({"Dockerfile": SCRATCH, "a": "1"})
    build(daemon, body)
    assert daemon.docker.api.prune_builds()["CachesDeleted"] is None, "what an image shares stays"
    found = daemon.docker.api.prune_builds(all=True)
    assert len(found["CachesDeleted"]) == 1
    assert "Using cache" not in text_of(build(daemon, body))
    assert daemon.docker.api.prune_builds(all=True, filters={"until": "24h"})["CachesDeleted"] is None
    answer = daemon.http.post("/build/prune", params={"filters": '{"nope":["x"]}'})
    assert (answer.status_code, answer.json()) == (400, {"message": "invalid filter 'nope'"})


def test_tar_is_what_python_writes_too(daemon: Daemon) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for name, data in (("./Dockerfile", SCRATCH.encode()), ("./a", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert image_of(build(daemon, out.getvalue()))


@pytest.mark.parametrize("remote", ["/etc", ".", "file:///etc", "etc", "-"])
def test_no_directory_of_the_host_is_a_remote_context(daemon: Daemon, remote: str) -> None:
    assert refusal(daemon, b"", remote=remote) == (
        400, f"build context {remote!r} is no URL (send files as an archive, or with buildx)"
    )  # fmt: skip


def test_a_nul_byte_in_a_parameter_is_refused(daemon: Daemon) -> None:
    assert refusal(daemon, GOOD, dockerfile="a\0b") == (400, "a NUL byte in dockerfile")
    assert refusal(daemon, GOOD, buildargs='{"A": "\\u0000"}') == (400, "a NUL byte in buildargs")
