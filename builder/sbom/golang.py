"""Modules a Go program was built of, from what the linker left in it (debug/buildinfo of the Go library; Go 1.18 and later).

The section `.go.buildinfo` of an ELF file begins with a magic number; behind 32 bytes come the version of Go and a list of modules,
each with its length before it. Only headers and that section are read, of executable files; nothing is run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from builder.sbom.files import RootFiles
from builder.sbom.package import Findings, Package

_MAGIC = b"\xff Go buildinf:"
_INLINE = 2  # flag: the texts follow, no pointers to them
_SECTION = b".go.buildinfo"
_SECTIONS_LIMIT, _NAMES_LIMIT, _INFO_LIMIT = 4096, 1 << 20, 16 << 20
_SENTINEL = 16  # bytes around the list of modules


def read_go(files: RootFiles, directory: str, names: list[str], found: Findings) -> None:
    """The programs among the files of one directory."""
    for name in names:
        with files.opened(directory, name, executable=True) as file:
            if file is None:
                continue
            place = f"{directory}/{name}" if directory else name
            try:
                info = build_info(file.fileno())
            except (ValueError, struct.error) as error:
                found.notes.append(f"/{place} cannot be read as a Go program: {error}")
                continue
        if info is not None:
            found.packages.update(_packages(*info, place))


def build_info(descriptor: int) -> tuple[str, str] | None:
    """The version of Go, and the list of modules as text; None for what is no Go program of these days."""
    section = _section(descriptor)
    if section is None or not section.startswith(_MAGIC) or len(section) < 32 or not section[15] & _INLINE:
        return None
    version, end = _text(section, 32)
    modules, _ = _text(section, end)
    if len(modules) >= 2 * _SENTINEL + 1 and modules[-_SENTINEL - 1 : -_SENTINEL] == b"\n":
        modules = modules[_SENTINEL:-_SENTINEL]
    else:
        modules = b""
    return version.decode("utf-8", "replace"), modules.decode("utf-8", "replace")


def _section(descriptor: int) -> bytes | None:
    """The section by its name, of an ELF file of either width and byte order (elf(5))."""
    head = _read(descriptor, 64, 0)
    if len(head) < 52 or not head.startswith(b"\x7fELF") or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    if wide and len(head) < 64:
        return None
    start = struct.unpack_from(f"{order}Q" if wide else f"{order}I", head, 40 if wide else 32)[0]
    size, count, names = struct.unpack_from(f"{order}HHH", head, 58 if wide else 46)
    if not start or size != (64 if wide else 40) or not 0 < count <= _SECTIONS_LIMIT or names >= count:
        return None
    table = _read(descriptor, size * count, start)
    if len(table) < size * count:
        return None

    def place(number: int) -> tuple[int, int, int]:
        """A section's name (an offset), where it lies, its size."""
        offset = number * size
        name = struct.unpack_from(f"{order}I", table, offset)[0]
        form = f"{order}QQ" if wide else f"{order}II"
        return (name, *struct.unpack_from(form, table, offset + (24 if wide else 16)))

    _, offset, length = place(names)
    texts = _read(descriptor, min(length, _NAMES_LIMIT), offset)
    for number in range(count):
        name, offset, length = place(number)
        if texts[name : name + len(_SECTION) + 1] == _SECTION + b"\0":
            return _read(descriptor, min(length, _INFO_LIMIT), offset)
    return None


def _read(descriptor: int, length: int, offset: int) -> bytes:
    """What the file has there; its own numbers may say any place."""
    return os.pread(descriptor, length, offset) if offset < 1 << 62 else b""


def _text(data: bytes, start: int) -> tuple[bytes, int]:
    """A text behind its length, a varint; and where it ends."""
    length = shift = 0
    for position in range(start, min(start + 10, len(data))):
        length |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            end = position + 1 + length
            if end > len(data):
                raise ValueError("a text is longer than its section")
            return data[position + 1 : end], end
    raise ValueError("a length has no end")


def _packages(version: str, modules: str, place: str) -> Iterator[Package]:
    if version.startswith("go"):  # `go1.22.1 X:experiments`
        yield Package(
            kind="golang", name="stdlib", version=version.split(" ")[0].removeprefix("go"), place=place
        )
    lines = [line.split("\t") for line in modules.splitlines()]
    for words, following in zip(lines, [*lines[1:], [""]], strict=True):
        if words[0] not in ("mod", "dep"):
            continue
        # What took a module's place is told on the line behind it.
        named = following if following[0] == "=>" else words
        if len(named) >= 3 and named[1] and named[2] and named[2] != "(devel)":
            namespace, _, name = named[1].rpartition("/")
            yield Package(kind="golang", name=name, version=named[2], namespace=namespace, place=place)
