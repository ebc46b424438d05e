"""Files that stages leave: taken out of the container as a tar, kept by digest, given out again by name.

The objects lie under `runs/objects/<hex>` of the store, each once however many runs have it. Which files there were, with
modes and links, is in the node's result. A tar from a container is hostile: names are only ever compared and stored
as text here; `write_out` creates files beneath a directory of ours and never follows a link of theirs.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from pipeline.conditions import path_matches
from pipeline.config.container import Pairs
from registry_client.values import frozen
from runtime.errors import InvalidInput, NotFound
from runtime.store.durable import faults_of_the_host

if TYPE_CHECKING:
    import tarfile

_PIECE = 1 << 20
_COUNT_LIMIT = 100_000


@frozen
class Artifact:
    """`path` is absolute in the container; `digest` is empty for links and directories, `link` is a symlink's target."""

    path: str
    mode: int
    size: int = 0
    digest: str = ""
    link: str = ""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def to_json(self) -> list[Any]:
        return [self.path, self.mode, self.size, self.digest, self.link]

    @classmethod
    def from_json(cls, row: list[Any]) -> Artifact:
        return cls(*row)


class ArtifactStore:
    """The objects of one store."""

    def __init__(self, root: str) -> None:
        self.directory = os.path.join(root, "runs", "objects")
        os.makedirs(self.directory, exist_ok=True)

    def prune(self, kept: set[str], older_than: float) -> int:
        """Remove objects nobody names; younger ones may be on their way into a result. The bytes freed."""
        freed = 0
        for name in set(os.listdir(self.directory)) - kept:
            path = self.path(name)
            with suppress(FileNotFoundError):  # another process prunes as well
                info = os.stat(path)
                if info.st_mtime < older_than:
                    os.unlink(path)
                    freed += info.st_size
        return freed

    def path(self, digest: str) -> str:
        return os.path.join(self.directory, digest)

    def complete(self, artifacts: tuple[Artifact, ...]) -> bool:
        """Whether every object is still there."""
        return all(os.path.exists(self.path(artifact.digest)) for artifact in artifacts if artifact.digest)

    def put(self, source: IO[bytes]) -> tuple[str, int]:
        """Keep the bytes; their digest and size."""
        temporary = os.path.join(self.directory, f".{os.getpid()}-{os.urandom(6).hex()}")
        hasher, size = hashlib.sha256(), 0
        with faults_of_the_host(f"cannot keep an artifact below {self.directory}"):
            try:
                with open(temporary, "xb") as file:
                    while chunk := source.read(_PIECE):
                        hasher.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
                os.rename(temporary, self.path(hasher.hexdigest()))
            except BaseException:
                if os.path.exists(temporary):
                    os.unlink(temporary)
                raise
        return hasher.hexdigest(), size

    def read(self, artifact: Artifact) -> bytes:
        with self.open(artifact) as file:
            return file.read()

    def open(self, artifact: Artifact) -> BinaryIO:
        try:
            return open(self.path(artifact.digest), "rb")
        except FileNotFoundError:
            raise NotFound(
                f"artifact {artifact.path} is gone from the store", hint="run the stage again"
            ) from None

    def collect(
        self, archive: IO[bytes], parent: str, patterns: tuple[str, ...], exclude: tuple[str, ...]
    ) -> Iterator[Artifact]:
        """The files of a container's tar that match; `parent` is the directory its names are relative to."""
        import tarfile  # with the compressors it brings along, 4 ms

        digests: dict[str, Artifact] = {}
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for number, member in enumerate(tar):
                if number > _COUNT_LIMIT:
                    raise InvalidInput(
                        f"more than {_COUNT_LIMIT} files below {parent}", hint="name fewer artifacts"
                    )
                path = os.path.normpath(os.path.join(parent, member.name))
                if not _wanted(path, patterns, exclude):
                    continue
                artifact = self._take(tar, member, path, digests)
                if artifact is not None:
                    digests[path] = artifact
                    yield artifact

    def _take(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, seen: dict[str, Artifact]
    ) -> Artifact | None:
        if member.isreg():
            source = tar.extractfile(member)
            assert source is not None
            digest, size = self.put(source)
            return Artifact(path, stat.S_IFREG | (member.mode & 0o777), size, digest)
        if member.isdir():
            return Artifact(path, stat.S_IFDIR | (member.mode & 0o777))
        if member.issym():
            return Artifact(path, stat.S_IFLNK | 0o777, link=member.linkname)
        if member.islnk():
            # A hard link to something we took: the same object under a second name.
            first = seen.get(
                os.path.normpath(os.path.join(os.path.dirname(path), os.path.basename(member.linkname)))
            )
            first = first or next(
                (a for p, a in seen.items() if p.endswith("/" + member.linkname.lstrip("/"))), None
            )
            return Artifact(path, first.mode, first.size, first.digest) if first else None
        return None  # devices, pipes and sockets are nothing to keep


def _wanted(path: str, patterns: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    kept = any(path_matches(path, pattern) for pattern in patterns)
    return kept and not any(
        path_matches(path, rule) or path_matches(os.path.basename(path), rule) for rule in exclude
    )


def fixed_parent(pattern: str) -> str:
    """The longest path before the first glob character: what has to be fetched to find what matches."""
    parts = []
    for part in pattern.strip("/").split("/"):
        if any(mark in part for mark in "*?["):
            break
        parts.append(part)
    return "/" + "/".join(parts)


def write_out(store: ArtifactStore, artifacts: tuple[Artifact, ...], target: str) -> list[str]:
    """Create the files below `target`, under their paths in the container; what was written."""
    written = []
    for artifact in sorted(artifacts, key=lambda a: a.path):
        relative = artifact.path.lstrip("/")
        place = os.path.join(target, relative)
        with faults_of_the_host(f"cannot write {place}"):
            _make_parents(target, os.path.dirname(relative))
            if artifact.is_directory:
                _make_parents(target, relative)
                continue
            if os.path.lexists(place):
                os.unlink(place)
            if artifact.link:
                os.symlink(artifact.link, place)
            else:
                _copy(store, artifact, place)
        written.append(place)
    return written


def _make_parents(root: str, relative: str) -> None:
    """Directories one by one; a link in the way (an earlier artifact of theirs) is never followed."""
    os.makedirs(root, exist_ok=True)
    place = root
    for part in filter(None, relative.split("/")):
        if part == "..":
            raise InvalidInput(f"artifact path {relative!r} leaves its directory")
        place = os.path.join(place, part)
        if os.path.islink(place):
            raise InvalidInput(f"{place} is a link", hint="choose an empty directory")
        if not os.path.isdir(place):
            os.mkdir(place)


def _copy(store: ArtifactStore, artifact: Artifact, place: str) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, artifact.mode & 0o777)
    with store.open(artifact) as source, os.fdopen(descriptor, "wb") as file:
        while chunk := source.read(_PIECE):
            file.write(chunk)


def as_tar(store: ArtifactStore, artifacts: tuple[Artifact, ...]) -> BinaryIO:
    """A tar of the artifacts relative to `/`, to hand them to another stage."""
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    import tarfile

    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for artifact in sorted(artifacts, key=lambda a: a.path):
            info = tarfile.TarInfo(artifact.path.lstrip("/"))
            info.mode, info.size = artifact.mode & 0o777, artifact.size
            if artifact.link:
                info.type, info.linkname = tarfile.SYMTYPE, artifact.link
            elif artifact.is_directory:
                info.type = tarfile.DIRTYPE
            if artifact.digest:
                with store.open(artifact) as source:
                    tar.addfile(info, source)
            else:
                tar.addfile(info)
    file.seek(0)
    return file


def parse_outputs(data: bytes) -> Pairs:
    """`$PIPE_OUTPUT`: lines `NAME=value`, or `NAME<<END` … `END` for several lines. The last of a name wins."""
    found: dict[str, str] = {}
    lines = iter(io.StringIO(data.decode("utf-8", "replace")).read().splitlines())
    for line in lines:
        name, equals, value = line.partition("=")
        block, marker, end = line.partition("<<")
        if marker and (not equals or len(block) < len(name)):
            name, value = block, "\n".join(_until(lines, end.strip()))
        elif not equals:
            continue
        if name.strip():
            found[name.strip()] = value
    return tuple(found.items())


def _until(lines: Iterator[str], end: str) -> Iterator[str]:
    for line in lines:
        if line == end:
            return
        yield line
