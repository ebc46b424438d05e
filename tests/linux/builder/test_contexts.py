"""Where a build's files come from: standard input, URLs, git, named contexts (FEATURES A-76, A-77, A-92, A-93)."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builder import build_text, contents_of, run_pipe, tree_of, write_files
from tests.support.store import Entry, make_tar

pytestmark = pytest.mark.linux
COPY_ALL = "FROM scratch\nCOPY . /x/\n"


def tar_of(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


class Server:
    """A web server on the loopback that counts what it is asked for, and knows ETags."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.headers: dict[str, str] = {}
        self.dated = True
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = owner.files.get(self.path)
                owner.headers = dict(self.headers.items())
                tag = None if data is None else hashlib.sha256(data).hexdigest()
                status = 404 if data is None else 304 if self.headers.get("If-None-Match") == tag else 200
                owner.asked.append((self.path, status))
                self.send_response(status)
                if data is not None and tag is not None:
                    self.send_header("ETag", tag)
                    if owner.dated:
                        self.send_header("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")
                self.send_header(
                    "Content-Length", str(len(data) if data is not None and status == 200 else 0)
                )
                self.end_headers()
                if data is not None and status == 200:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return write_files(tmp_path / "empty", {})


def test_a_tar_on_standard_input_is_the_context(root: Path) -> None:
    context = tar_of({"Dockerfile": COPY_ALL, "a": "1", "d/b": "2"})
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", "-", stdin=context)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert {"x/a", "x/d/b"} <= set(archive.getnames())


def test_an_archive_as_context_is_taken_whole_whatever_its_ignore_file_says(root: Path) -> None:
    context = tar_of({"Dockerfile": COPY_ALL, ".dockerignore": "b\n", "b": "2"})
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", "-", stdin=context)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "x/b" in archive.getnames()


def test_an_archive_that_was_cut_off_is_neither_a_context_nor_a_dockerfile(root: Path) -> None:
    whole = tar_of({"Dockerfile": COPY_ALL, "a": os.urandom(4000).hex()})
    assert b"ends too early" in run_pipe(root, "build", "-", stdin=whole[:-900], code=2).stderr
    assert b"holds no tar archive" in run_pipe(root, "build", "-", stdin=whole[:30], code=2).stderr


def test_a_directory_is_no_dockerfile(root: Path, tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"sub/x": ""})
    failed = run_pipe(root, "build", "-f", "sub", ".", cwd=tmp_path / "c", code=2)
    assert b"sub is a directory" in failed.stderr


def test_a_dockerfile_on_standard_input_has_an_empty_context(root: Path) -> None:
    run_pipe(root, "build", "-q", "-", stdin=b"FROM base:1\nRUN true\n")
    failed = run_pipe(root, "build", "-", stdin=b"FROM base:1\nCOPY a /\n", code=2)
    assert b'"/a": not found' in failed.stderr
    assert b"is empty" in run_pipe(root, "build", "-", stdin=b"", code=2).stderr


def test_a_named_directory_replaces_a_stage_or_an_image(root: Path, empty: Path, tmp_path: Path) -> None:
    other = write_files(
        tmp_path / "other", {"file": "from the named context", ".dockerignore": "hidden", "hidden": ""}
    )
    dockerfile = "FROM base:1 AS lib\nRUN false\nFROM base:1\nCOPY --from=lib / /x/\n"
    found = tree_of(root, empty, "-f", "-", "--build-context", f"lib={other}", stdin=dockerfile.encode())
    assert "x/file" in found
    assert "x/hidden" not in found
    aliased = "FROM nowhere.invalid/x:1\nRUN true\n"
    build_text(root, empty, aliased, "--build-context", "nowhere.invalid/x:1=docker-image://base:1")


def test_a_layout_on_disk_can_be_a_base(root: Path, empty: Path, tmp_path: Path) -> None:
    build_text(
        root,
        empty,
        "FROM base:1\nRUN echo layout > /made\n",
        "-o",
        f"type=oci,tar=false,dest={tmp_path / 'l'}",
        "-t",
        "in-layout:7",
    )
    for reference in (str(tmp_path / "l"), f"{tmp_path / 'l'}:7"):
        found = contents_of(
            tmp_path / "other-store", empty, ["made"], "-f", "-", "--build-context", f"base=oci-layout://{reference}",
            stdin=b"FROM base\nRUN true\n",
        )  # fmt: skip
        assert found == {"made": b"layout\n"}


def test_a_layout_gives_the_image_that_was_named_and_no_other(
    root: Path, empty: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "l"
    ids = [
        build_text(root, empty, f"FROM base:1\nRUN echo {name} > /made\n", "-t", name)
        for name in ("a:1", "b:2")
    ]
    run_pipe(root, "save", "-o", str(tmp_path / "l.tar"), "a:1", "b:2")
    with tarfile.open(tmp_path / "l.tar") as archive:
        archive.extractall(layout)
    entries = json.loads((layout / "index.json").read_text())["manifests"]

    def build_on(reference: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        context = f"base=oci-layout://{layout}{reference}"
        return run_pipe(
            tmp_path / "other", "build", "-q", "-f", "-", "--build-context", context, str(empty),
            stdin=b"FROM base\n", code=code,
        )  # fmt: skip

    made = [
        build_on(reference).stdout
        for reference in (":1", ":2", f"@{entries[0]['digest']}", f"@{entries[1]['digest']}")
    ]
    assert made[:2] == made[2:] and made[0] != made[1] and len(set(ids)) == 2
    assert b"holds several images" in build_on("", code=2).stderr
    assert b"no image sha256:0000" in build_on(f"@sha256:{'0' * 64}", code=2).stderr
    config = json.loads((layout / "blobs" / entries[0]["digest"].replace(":", "/")).read_text())["config"][
        "digest"
    ]
    with (layout / "blobs" / config.replace(":", "/")).open("ab") as file:
        file.write(b" ")
    assert run_pipe(
        tmp_path / "third", "build", "-f", "-", "--build-context", f"base=oci-layout://{layout}:1", str(empty),
        stdin=b"FROM base\n", code=2,
    ).stderr  # fmt: skip


def test_add_of_a_url_keeps_the_servers_time_and_is_fetched_once(
    root: Path, empty: Path, server: Server
) -> None:
    server.files = {"/pkg/file.txt": b"downloaded"}
    dockerfile = f"FROM base:1\nADD {server.url}/pkg/file.txt /x/\nADD {server.url}/pkg/file.txt /y\n"
    found = tree_of(root, empty, "-f", "-", stdin=dockerfile.encode())
    assert (found["x/file.txt"].mode, found["x/file.txt"].mtime) == (0o600, 1420070400)
    assert found["y"].isfile()
    assert [status for _, status in server.asked] == [200]
    build_text(root, empty, dockerfile)
    assert server.asked[-1] == ("/pkg/file.txt", 304)
    server.files["/pkg/file.txt"] = b"changed"
    changed = contents_of(root, empty, ["y"], "-f", "-", stdin=dockerfile.encode())
    assert changed == {"y": b"changed"}


def test_a_download_without_a_date_is_the_same_file_whenever_it_is_fetched(
    root: Path, empty: Path, server: Server, tmp_path: Path
) -> None:
    server.files, server.dated = {"/f": b"data"}, False
    dockerfile = f"FROM scratch\nADD {server.url}/f /\n".encode()
    here = tree_of(root, empty, "-f", "-", stdin=dockerfile)
    assert here["f"].mtime == 0
    elsewhere = tree_of(
        tmp_path / "other", empty, "-f", "-", stdin=dockerfile, env={"SOURCE_DATE_EPOCH": "1700000000"}
    )
    assert elsewhere["f"].mtime == 0


def test_a_checksum_is_checked_and_saves_asking(root: Path, empty: Path, server: Server) -> None:
    server.files = {"/f": b"data"}
    digest = "sha256:" + hashlib.sha256(b"data").hexdigest()
    good = f"FROM base:1\nADD --checksum={digest} {server.url}/f /f\n"
    build_text(root, empty, good)
    asked = len(server.asked)
    build_text(root, empty, good)
    assert len(server.asked) == asked
    bad = good.replace(digest, "sha256:" + "0" * 64)
    done = run_pipe(root, "build", "-f", "-", str(empty), stdin=bad.encode(), code=2)
    assert digest.encode() in done.stderr


def test_an_answer_of_404_names_the_url_and_a_secret_can_authorize(
    root: Path, empty: Path, server: Server
) -> None:
    dockerfile = f"FROM base:1\nADD {server.url}/none /f\n"
    done = run_pipe(
        root, "build", "-f", "-", "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN", str(empty),
        stdin=dockerfile.encode(), env={"TOKEN": "t0ken"}, code=3,
    )  # fmt: skip
    assert b"404" in done.stderr
    assert server.url.encode() in done.stderr
    assert server.headers["Authorization"] == "Bearer t0ken"
    assert b"t0ken" not in done.stderr + done.stdout


def test_a_url_can_be_the_context(root: Path, server: Server) -> None:
    server.files = {"/c.tgz": tar_of({"Dockerfile": COPY_ALL, "a": "1"}), "/D": b"FROM base:1\nRUN true\n"}
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", f"{server.url}/c.tgz")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "x/a" in archive.getnames()
    run_pipe(root, "build", "-q", f"{server.url}/D")


@pytest.fixture
def repository(tmp_path: Path, server: Server) -> str:
    """A repository served over dumb http, with a tag and a subdirectory."""
    work = write_files(tmp_path / "work", {"sub/Dockerfile": COPY_ALL, "sub/a": "1", "run.sh": "#!/bin/sh\n"})
    (work / "run.sh").chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    env["GIT_COMMITTER_DATE"] = "@1000000000 +0000"
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]

    def git(*arguments: str, cwd: Path = work) -> None:
        subprocess.run(
            ["git", *author, *arguments], cwd=cwd, env=env, check=True, capture_output=True, timeout=60
        )

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "-a", "v1", "-m", "v1")
    write_files(work, {"sub/a": "2"})
    git("commit", "-q", "-am", "two")
    git("clone", "-q", "--bare", str(work), str(tmp_path / "bare.git"))
    git("update-server-info", cwd=tmp_path / "bare.git")
    for directory, _, files in os.walk(tmp_path / "bare.git"):
        for name in files:
            place = Path(directory, name)
            server.files[f"/bare.git/{place.relative_to(tmp_path / 'bare.git')}"] = place.read_bytes()
    # git asks for the smart protocol first, with a query.
    server.files["/bare.git/info/refs?service=git-upload-pack"] = server.files["/bare.git/info/refs"]
    return f"{server.url}/bare.git"


def test_a_repository_as_context_keeps_its_history_if_asked(root: Path, repository: str) -> None:
    for value in ("0", "1"):
        argument = f"BUILDKIT_CONTEXT_KEEP_GIT_DIR={value}"
        done = run_pipe(
            root,
            "build",
            "-o",
            "type=tar,dest=-",
            "-f",
            "sub/Dockerfile",
            "--build-arg",
            argument,
            repository,
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            assert ("x/.git/HEAD" in archive.getnames()) == (value == "1")


def test_a_history_that_is_kept_is_the_same_whoever_fetched_it_and_when(
    root: Path, fresh_root: Path, empty: Path, repository: str, tmp_path: Path
) -> None:
    dockerfile = f"FROM scratch\nADD --keep-git-dir=true {repository}#v1 /src\n".encode()
    kept: list[dict[str, bytes]] = []
    for number, store in enumerate((root, fresh_root)):
        place, who = tmp_path / str(number), {"GIT_COMMITTER_NAME": f"n{number}", "GIT_COMMITTER_EMAIL": "x"}
        run_pipe(
            store, "build", "-o", f"type=local,dest={place}", "-f", "-", str(empty), stdin=dockerfile, env=who
        )
        files = (path for path in place.rglob("*") if path.is_file())
        kept.append({str(path.relative_to(place)): path.read_bytes() for path in files})
    assert kept[0] == kept[1]
    assert "src/.git/HEAD" in kept[0]
    git = ["git", "-c", "safe.directory=*", "-C", str(tmp_path / "0/src")]
    told = [
        subprocess.run([*git, *arguments.split()], check=True, capture_output=True, text=True).stdout.strip()
        for arguments in ("describe --tags", "status --porcelain", "remote get-url origin")
    ]
    assert told == ["v1", "", repository]


def test_what_git_says_first_is_the_reason(root: Path) -> None:
    # Port 1 of the loopback of these tests' own network namespace: nobody listens.
    failed = run_pipe(root, "build", "ssh://git@127.0.0.1:1/x.git", code=3)
    assert b"Connection refused" in failed.stderr or b"cannot run ssh" in failed.stderr


def test_checks_look_at_a_repository_too(root: Path, repository: str) -> None:
    done = run_pipe(root, "build", "--call=targets", f"{repository}#v1:sub")
    assert b"scratch" in done.stdout


def test_a_git_repository_can_be_added_and_be_the_context(root: Path, empty: Path, repository: str) -> None:
    dockerfile = f"FROM base:1\nADD {repository} /src\nADD {repository}#v1:sub /old\n"
    found = tree_of(root, empty, "-f", "-", stdin=dockerfile.encode())
    assert found["src/run.sh"].mode == 0o755
    assert "src/.git" not in found
    assert "old/a" in found
    old = contents_of(root, empty, ["old/a", "src/sub/a"], "-f", "-", stdin=dockerfile.encode())
    assert old == {"old/a": b"1", "src/sub/a": b"2"}
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", f"{repository}#main:sub")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "x/a" in archive.getnames()


def test_a_ref_that_is_not_there_is_said(root: Path, empty: Path, repository: str) -> None:
    done = run_pipe(
        root,
        "build",
        "-f",
        "-",
        str(empty),
        stdin=f"FROM base:1\nADD {repository}#nope /x\n".encode(),
        code=2,
    )
    assert b"no ref 'nope'" in done.stderr


def test_provenance_names_the_commit_of_a_context_and_the_digest_of_a_download(
    root: Path, server: Server, repository: str, tmp_path: Path
) -> None:
    server.files["/tool.bin"] = b"a tool"
    text = f"FROM scratch\nADD {server.url}/tool.bin /\nCOPY . /\n"
    address = repository.replace("http://", "http://user:token@")
    out = ("-o", f"type=local,dest={tmp_path / 'out'}", "--provenance=mode=max")
    run_pipe(root, "build", *out, "-f", "-", f"{address}#v1", stdin=text.encode())
    raw = (tmp_path / "out/provenance.json").read_text()
    definition = json.loads(raw)["predicate"]["buildDefinition"]
    source = definition["externalParameters"]["configSource"]
    assert source["uri"] == f"{repository}#v1"
    assert len(source["digest"]["sha1"]) == 40
    assert definition["resolvedDependencies"] == [
        {"uri": f"{server.url}/tool.bin", "digest": {"sha256": hashlib.sha256(b"a tool").hexdigest()}},
        {"uri": source["uri"], "digest": source["digest"]},
    ]
    assert "token" not in raw


def test_a_dockerfile_comes_from_a_url_or_is_our_own_beside_a_remote_context(
    root: Path, empty: Path, server: Server, tmp_path: Path
) -> None:
    own = tmp_path / "Own"
    own.write_text("FROM scratch\nCOPY a /own\n")
    (empty / "a").write_text("here")
    server.files = {"/df": b"FROM scratch\nCOPY a /fetched\n", "/c.tar": make_tar(Entry("a", b"there"))}
    assert list(tree_of(root, empty, "-f", f"{server.url}/df")) == ["fetched"]
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", "-f", str(own), f"{server.url}/c.tar")
    assert b"own" in done.stdout and b"there" in done.stdout
    done = run_pipe(root, "build", "-f", "Own", f"{server.url}/c.tar", cwd=tmp_path, code=2)
    assert b"no Own in the context" in done.stderr
    assert b"404" in run_pipe(root, "build", "-f", f"{server.url}/no", str(empty), code=3).stderr
