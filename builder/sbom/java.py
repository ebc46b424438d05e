"""Maven artifacts in Java archives, from the `pom.properties` Maven puts into what it packs; archives in archives are opened too.

Zip archives are told to be of any size by whoever made them: what is read of one, and of all within one, has limits.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from builder.sbom.files import RootFiles, text_of
from builder.sbom.package import Findings, Package

if TYPE_CHECKING:
    import zipfile

_ENDINGS = (".jar", ".war", ".ear")
_PROPERTIES = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_PROPERTIES_LIMIT = 64 << 10
_DIRECTORY_LIMIT = 32 << 20  # bytes of an archive's list of members
_INNER_LIMIT = 256 << 20  # bytes of archives within one
_DEPTH = 3
_END, _END_SIZE = b"PK\x05\x06", 22


def read_java(files: RootFiles, directory: str, names: list[str], found: Findings) -> None:
    """The archives among the files of one directory."""
    for name in names:
        if not name.lower().endswith(_ENDINGS):
            continue
        place = f"{directory}/{name}" if directory else name
        with files.opened(directory, name) as file:
            if file is not None:
                _Archives(place, found).read(file, _DEPTH)


class _Archives:
    """One archive of the root with those within."""

    def __init__(self, place: str, found: Findings) -> None:
        self._place, self._found = place, found
        self._left = _INNER_LIMIT

    def read(self, file: BinaryIO, depth: int) -> None:
        import zipfile
        import zlib

        try:
            if not _has_readable_list(file):
                raise zipfile.BadZipFile("no list of members, or one of more than 32 MiB")
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    self._member(archive, member, depth)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            self._found.notes.append(f"/{self._place} cannot be read as a Java archive: {error}")

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, depth: int) -> None:
        if _PROPERTIES.fullmatch(member.filename):
            with archive.open(member) as stream:
                self._add(text_of(stream.read(_PROPERTIES_LIMIT)))
        elif member.filename.lower().endswith(_ENDINGS) and depth > 1:
            with archive.open(member) as stream:
                data = stream.read(self._left + 1)
            self._left -= len(data)
            if self._left < 0:
                raise ValueError(f"what is within it has more than {_INNER_LIMIT >> 20} MiB")
            self.read(io.BytesIO(data), depth - 1)

    def _add(self, text: str) -> None:
        values = dict(_properties(text))
        if values.get("artifactId") and values.get("version"):
            self._found.packages.add(
                Package(
                    kind="maven",
                    name=values["artifactId"],
                    version=values["version"],
                    namespace=values.get("groupId", ""),
                    place=self._place,
                )
            )


def _has_readable_list(file: BinaryIO) -> bool:
    """What stands at an archive's end says how long its list of members is (APPNOTE 4.3.16); zip64 has another such place."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SIZE - 0xFFFF))
    tail = file.read(_END_SIZE + 0xFFFF)
    file.seek(0)
    at = tail.rfind(_END)
    return at >= 0 and int.from_bytes(tail[at + 12 : at + 16], "little") <= _DIRECTORY_LIMIT


def _properties(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield name.strip(), value.strip()
