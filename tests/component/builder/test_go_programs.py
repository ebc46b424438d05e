"""Modules of Go programs: what Go's linker wrote, judged by the program itself, and ELF files made for it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.sbom.golang import build_info
from builder.sbom.scan import scan
from tests.support.builder import write_files

MODULES = (
    "path\texample.org/app/cmd/tool\n"
    "mod\texample.org/app\tv1.2.3\th1:x=\n"
    "dep\tgithub.com/some/thing/v2\tv2.0.1\th1:y=\n"
    "dep\texample.org/old\tv0.1.0\n"
    "=>\texample.org/fork\tv0.1.1\th1:z=\n"
    "dep\texample.org/here\tv1.0.0\n"
    "=>\t./here\t\n"
    "build\t-compiler=gc\n"
)
WAYS = [(wide, order) for wide in (True, False) for order in "<>"]


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def info(version: str = "go1.22.1", modules: str = MODULES) -> bytes:
    """The section as cmd/link writes it."""
    listed = b"\x01" * 16 + modules.encode() + b"\x02" * 16
    texts = b"".join(varint(len(text)) + text for text in (version.encode(), listed))
    return b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + texts


def elf(section: bytes, wide: bool = True, order: str = "<", name: bytes = b".go.buildinfo") -> bytes:
    """An ELF file of three sections: none, the names, and this one."""
    names = b"\0.shstrtab\0" + name + b"\0"
    head = 64 if wide else 52
    size = 64 if wide else 40
    places = [(0, 0, 0), (1, head, len(names)), (11, head + len(names), len(section))]
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    table = head + len(names) + len(section)
    form = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    header = ident + struct.pack(order + form, 2, 62, 1, 0, 0, table, 0, head, 0, 0, size, 3, 1)
    row = "IIQQQQIIQQ" if wide else "IIIIIIIIII"
    rows = b"".join(struct.pack(order + row, n, 1, 0, 0, at, length, 0, 0, 1, 0) for n, at, length in places)
    return header + names + section + rows


def purls(root: Path) -> list[str]:
    return [package.purl for package in scan(str(root)).packages]


def program(root: Path, data: bytes, mode: int = 0o755) -> Path:
    write_files(root, {"usr/bin/tool": data})
    (root / "usr/bin/tool").chmod(mode)
    return root


@pytest.mark.parametrize(("wide", "order"), WAYS)
def test_the_modules_of_a_program_are_listed_with_what_took_their_place(
    tmp_path: Path, wide: bool, order: str
) -> None:
    assert sorted(purls(program(tmp_path, elf(info(), wide, order)))) == [
        "pkg:golang/example.org/app@v1.2.3",
        "pkg:golang/example.org/fork@v0.1.1",
        "pkg:golang/github.com/some/thing/v2@v2.0.1",
        "pkg:golang/stdlib@1.22.1",
    ]


def test_a_program_built_from_a_work_tree_has_no_version_of_its_own(tmp_path: Path) -> None:
    modules = "mod\texample.org/app\t(devel)\t\n"
    assert purls(program(tmp_path, elf(info("go1.25.0 X:nodwarf5", modules)))) == ["pkg:golang/stdlib@1.25.0"]


def test_what_nobody_may_execute_is_not_looked_at(tmp_path: Path) -> None:
    assert purls(program(tmp_path, elf(info()), 0o644)) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n",
        elf(b""),
        elf(info()[:20]),
        elf(info(), name=b".go.other"),
        elf(info())[:100],
    ],
)
def test_what_is_no_go_program_is_passed_over(tmp_path: Path, data: bytes) -> None:
    found = scan(str(program(tmp_path, data)))
    assert not found.packages
    assert not found.notes


def test_a_damaged_list_is_noted(tmp_path: Path) -> None:
    broken = info()[:32] + varint(1 << 40) + b"go1"
    found = scan(str(program(tmp_path, elf(broken))))
    assert not found.packages
    assert "/usr/bin/tool cannot be read as a Go program" in found.notes[0]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), way=st.sampled_from(WAYS))
def test_no_file_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, way: tuple[bool, str]
) -> None:
    changed = bytearray(elf(info(), *way))
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(4, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged-program"
    path.write_bytes(changed)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        build_info(descriptor)
    except (ValueError, struct.error):
        return
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("field", [40, 88])
def test_a_place_beyond_any_file_is_no_place(tmp_path: Path, field: int) -> None:
    data = bytearray(elf(info()))
    table = struct.unpack_from("<Q", data, 40)[0]
    place = field if field == 40 else table + 64 + 24  # of the sections; of their names
    data[place : place + 8] = b"\xff" * 8
    assert purls(program(tmp_path, bytes(data))) == []


def test_a_real_program_says_the_same_of_itself(tmp_path: Path) -> None:
    podman = shutil.which("podman")
    assert podman, "podman is among the packages of the tests"
    said = subprocess.run(
        [podman, "version", "--format", "{{.Client.GoVersion}}"], capture_output=True, text=True
    ).stdout
    write_files(tmp_path, {"bin/": ""})
    shutil.copy(podman, tmp_path / "bin/podman")
    assert f"pkg:golang/stdlib@{said.strip().removeprefix('go')}" in purls(tmp_path)
