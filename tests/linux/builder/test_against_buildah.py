"""The same Dockerfiles built by buildah (Debian's package): equal trees, file by file, and equal configs.

Known differences are taken out here, each with its reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builder import BASE, busybox_context, config_of, run_pipe, write_files

pytestmark = [pytest.mark.linux, pytest.mark.peer]
# Mount points that buildah's chroot isolation leaves in the layer; ours are not in it (B-26).
STUBS = ("dev", "proc", "sys", "run", "etc/hosts", "etc/resolv.conf", "etc/hostname", "run/.containerenv")
FILES = {
    "a.txt": "a",
    "b.txt": "b",
    "dir/one": "1",
    "dir/sub/two": "2",
    "dir/sub/three.txt": "3",
    "skip.log": "5",
    "run.sh": "#!/bin/sh\necho run\n",
}
CASES = {
    "names, directories and modes": (
        "COPY a.txt /x\n"
        "COPY a.txt b.txt /y/\n"
        "COPY *.txt /z/\n"
        "COPY dir /d\n"
        "COPY dir/sub/ /e/f\n"
        "RUN mkdir -p /w/dir\n"
        "COPY dir /w/dir\n"
        "COPY a.txt /w/dir\n"
        "COPY a.txt /tmp/\n"
        "COPY --chmod=600 a.txt /x\n"
        "COPY run.sh /run.sh\n"
    ),
    "owners and archives": (
        "COPY --chown=5:6 a.txt /x/\n"
        "COPY --chown=app:web dir /d\n"
        "COPY --chown=7 b.txt /y\n"
        "ADD plain.tar /t\n"
        "ADD packed.tar.gz /g/\n"
        "ADD a.txt /n/\n"
    ),
    "deleting, links and special files": (
        "RUN mkdir -p /d/s && touch /d/s/f /d/g\n"
        "RUN rm -r /d/s && mkdir /d/s && rm /d/g && ln -s nowhere /d/g\n"
        "RUN rm /etc/group\n"
        "RUN mkdir /l && echo x > /l/a && ln /l/a /l/b && ln -s a /l/c && ln -s /l /m && chown 5:5 /l/b\n"
        "COPY a.txt /m/d\n"
        "RUN mkfifo /pipe && touch /s && chmod 4755 /s && mkdir /t && chmod 1777 /t && chmod 2755 /l 2>/dev/null || true\n"
    ),
    "variables, work directories and users": (
        "ARG A=1\n"
        'ENV B=$A C="two words" D=${A:+set} E=${X:-none}\n'
        'RUN echo "$A-$B-$C-$D-$E" > /out\n'
        "WORKDIR /w\n"
        "WORKDIR rel\n"
        "COPY a.txt .\n"
        "RUN pwd > /where\n"
        "USER app\n"
        "RUN id -u > /tmp/who && id -g >> /tmp/who\n"
    ),
    "stages": (
        "RUN mkdir -p /out/s && echo made > /out/s/f && chown -R 8:9 /out && chmod 750 /out/s\n"
        "FROM base:1 AS two\n"
        "COPY --from=0 /out /copied\n"
        "COPY --from=0 /out/s/f /f\n"
    ),
    "configuration": (
        'LABEL a=1 b="two words"\n'
        "EXPOSE 80 53/udp\n"
        "VOLUME /data\n"
        "STOPSIGNAL SIGINT\n"
        'ENTRYPOINT ["/bin/sh", "-c"]\n'
        'CMD ["echo"]\n'
        "USER 5:6\n"
        "WORKDIR /tmp\n"
    ),
    "shell forms": (
        "CMD echo hello\nENTRYPOINT exec top\nHEALTHCHECK --interval=5s --retries=2 CMD test -e /x\n"
    ),
    "ignored files": ("COPY . /all/\n"),
}


def archive(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE), ("d/l", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mtime = kind, 3, 4, 1000
            member.mode = 0o750 if kind == tarfile.DIRTYPE else 0o640
            member.linkname = "f" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member)
    return out.getvalue()


class Buildah:
    """A storage of its own, under a short path (its run root must not have more than 50 characters)."""

    def __init__(self, directory: str) -> None:
        self._command = [
            "buildah",
            "--root",
            f"{directory}/root",
            "--runroot",
            f"{directory}/run",
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def build(self, context: Path, dockerfile: str, tag: str) -> None:
        path = context.parent / "Dockerfile"
        path.write_text(dockerfile)
        self("bud", "--isolation", "chroot", "--pull-never", "-q", "-t", tag, "-f", str(path), str(context))

    def look(self, tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tree and the config of an image."""
        container = self("from", "--pull-never", tag)
        tree = tree_on_disk(Path(self("mount", container)))
        config = json.loads(self("inspect", "--type", "image", tag))["OCIv1"]
        self("rm", container)
        return tree, config


def entry(mode: int, uid: int, gid: int, link: str, data: bytes | None) -> tuple[Any, ...]:
    content = "" if data is None else hashlib.sha256(data).hexdigest()[:12]
    return (oct(mode), uid, gid, link, content)


def tree_on_disk(top: Path) -> dict[str, Any]:
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            place = Path(directory, name)
            status = os.lstat(place)
            link = os.readlink(place) if place.is_symlink() else ""
            data = place.read_bytes() if stat.S_ISREG(status.st_mode) else None
            mode = 0o120777 if link else status.st_mode
            found[str(place.relative_to(top))] = entry(mode, status.st_uid, status.st_gid, link, data)
    return found


KINDS = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}


def tree_in_tar(data: bytes) -> dict[str, Any]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() or member.islnk() else None
            kind = KINDS.get(member.type, stat.S_IFREG)
            link = member.linkname if member.issym() else ""
            mode = 0o120777 if link else kind | member.mode
            found[member.name] = entry(mode, member.uid, member.gid, link, file.read() if file else None)
    return found


def without_stubs(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in STUBS}


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """What a container is started by. An empty value and none are the same."""
    kept = dict(config.get("config", {}))
    kept.pop("ArgsEscaped", None)
    labels = dict(kept.get("Labels") or {})
    labels.pop("io.buildah.version", None)  # buildah signs its images
    kept["Labels"] = labels
    # Ours, as BuildKit, leave the health check's default values out; buildah's OCI config has no health check at all.
    kept.pop("Healthcheck", None)
    kept.pop("Shell", None)
    if kept.get("WorkingDir") == "/":  # BuildKit writes the default, buildah does not
        kept.pop("WorkingDir")
    kept["Env"] = sorted(kept.get("Env") or ())
    return {name: value for name, value in kept.items() if value}


@pytest.fixture(scope="module")
def peers(host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Buildah, Path, Path]]:
    """buildah, our store and the context, with `base:1` in both."""
    directory = tmp_path_factory.mktemp("peers")
    short = tempfile.mkdtemp(prefix="pipe-buildah-")
    buildah = Buildah(short)
    try:
        context = busybox_context(directory / "base" / "c")
        buildah.build(context, BASE, "base:1")
        run_pipe(
            directory / "store", "build", "-q", "-f", "-", "-t", "base:1", str(context), stdin=BASE.encode()
        )
        files = {
            **FILES,
            "plain.tar": archive("w"),
            "packed.tar.gz": archive("w:gz"),
            ".dockerignore": "*.log\ndir\n!dir/sub\n",
        }
        context = write_files(directory / "case" / "c", files)
        (context / "run.sh").chmod(0o755)
        yield buildah, directory / "store", context
    finally:
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.parametrize("name", CASES)
def test_trees_and_configs_are_buildahs(peers: tuple[Buildah, Path, Path], name: str) -> None:
    buildah, root, context = peers
    ignoring = name == "ignored files"
    ignore = context / ".dockerignore"
    ignore.write_text("*.log\ndir\n!dir/sub\n" if ignoring else "")
    dockerfile = f"FROM base:1\n{CASES[name]}"
    buildah.build(context, dockerfile, "case:1")
    their_tree, their_config = buildah.look("case:1")
    arguments = ("-f", "-", "-t", "case:1", str(context))
    done = run_pipe(root, "build", "-o", "type=tar,dest=-", *arguments, stdin=dockerfile.encode())
    our_tree = tree_in_tar(done.stdout)
    assert without_stubs(our_tree) == without_stubs(their_tree)
    assert compared(config_of(root, "case:1")) == compared(their_config)
