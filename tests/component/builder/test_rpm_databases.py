"""rpm's databases of every kind: files that rpm and Berkeley DB wrote, judged by `rpm -qa`, and files that mean ill."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.sbom import rpmfiles
from builder.sbom.rpm import header_fields
from builder.sbom.rpmfiles import bdb_headers, ndb_headers
from builder.sbom.scan import scan

SPEC = """Name: %s
Version: 9~rc1
Release: 3
%s
Summary: s
License: MIT
Vendor: Somebody
BuildArch: noarch
%%description
%s
%%files
"""


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Of packages that rpm installed, as it keeps them; the description of one is longer than a page."""
    place = tmp_path_factory.mktemp("rpm")
    for name, more, text in (
        ("small", "Epoch: 2", "x"),
        ("large", "", "much " * 10_000),
        *((f"p{n}", "", "x") for n in range(4)),
    ):
        (place / f"{name}.spec").write_text(SPEC % (name, more, text))
        run("rpmbuild", "-bb", "--define", f"_topdir {place}/top", f"{name}.spec", cwd=place)
    packages = sorted(place.glob("top/RPMS/noarch/*.rpm"))
    run("rpm", "--dbpath", place / "db", "-i", "--justdb", "--nodeps", *packages, cwd=place)
    with closing(sqlite3.connect(place / "db" / "rpmdb.sqlite")) as database:
        return [bytes(row[0]) for row in database.execute("SELECT blob FROM Packages ORDER BY hnum")]


def write_bdb(path: Path, headers: list[bytes], page: int = 4096) -> None:
    """By Berkeley DB itself. The record of key 0 is the number of the next package."""
    records = [(0, struct.pack("<I", len(headers))), *enumerate(headers, 1)]
    lines = [f" {struct.pack('<I', number).hex()}\n {data.hex()}\n" for number, data in records]
    text = (
        f"VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize={page}\nHEADER=END\n{''.join(lines)}DATA=END\n"
    )
    path.parent.mkdir(parents=True)
    subprocess.run(["db_load", str(path)], input=text, text=True, check=True)


def write_ndb(path: Path, headers: list[bytes]) -> None:
    """As rpm's rpmpkg.c does: a header, slots, and blobs in blocks of 16 bytes, each with head and tail."""
    blobs, slots, block = b"", b"", 256
    for number, data in enumerate(headers, 1):
        head = struct.pack("<4sIII", b"BlbS", number, 1, len(data))
        padding = bytes(-(len(data) + 28) % 16)
        body = head + data + padding
        body += struct.pack("<II4s", zlib.adler32(body), len(data), b"BlbE")
        slots += struct.pack("<4sIII", b"Slot", number, block, len(body) // 16)
        blobs, block = blobs + body, block + len(body) // 16
    free = struct.pack("<4sIII", b"Slot", 0, 0, 0)
    head = struct.pack("<4sIIII12x", b"RpmP", 0, 1, 1, len(headers) + 1)
    page = head + slots
    path.parent.mkdir(parents=True)
    path.write_bytes(page + free * ((4096 - len(page)) // 16) + blobs)


def packages_in(root: Path) -> list[str]:
    found = scan(str(root))
    assert not found.notes
    return [package.purl for package in found.packages]


def named(headers: list[bytes]) -> set[str]:
    return {header_fields(header)["name"] for header in headers}


@pytest.mark.parametrize("page", [512, 4096, 65536])
def test_a_berkeley_database_is_read_as_rpm_reads_it(tmp_path: Path, headers: list[bytes], page: int) -> None:
    path = tmp_path / "var/lib/rpm/Packages"
    write_bdb(path, headers, page)
    assert sorted(bdb_headers(str(path))) == sorted(headers)
    told = run(
        "rpm",
        "--define",
        "_db_backend bdb_ro",
        "--dbpath",
        path.parent,
        "-qa",
        "--qf",
        "%{NAME} %{VERSION}\n",
        cwd=tmp_path,
    )
    found = scan(str(tmp_path)).packages
    assert sorted(f"{each.name} {each.version.partition('-')[0]}" for each in found) == sorted(
        told.split("\n")[:-1]
    )


def test_every_kind_of_database_gives_the_same_packages(tmp_path: Path, headers: list[bytes]) -> None:
    write_bdb(tmp_path / "bdb/var/lib/rpm/Packages", headers)
    write_ndb(tmp_path / "ndb/usr/lib/sysimage/rpm/Packages.db", headers)
    assert sorted(ndb_headers(str(tmp_path / "ndb/usr/lib/sysimage/rpm/Packages.db"))) == sorted(headers)
    found = packages_in(tmp_path / "bdb")
    assert found == packages_in(tmp_path / "ndb")
    assert len(found) == len(headers) == 6
    assert any("small@9~rc1-3?arch=noarch&epoch=2" in each for each in found)


def test_the_newer_kind_of_database_counts(tmp_path: Path, headers: list[bytes]) -> None:
    write_bdb(tmp_path / "var/lib/rpm/Packages", headers)
    write_ndb(tmp_path / "usr/lib/sysimage/rpm/Packages.db", headers[:1])
    assert len(packages_in(tmp_path)) == 1


@pytest.mark.parametrize("name", ["Packages", "Packages.db"])
@pytest.mark.parametrize("data", [b"", b"RpmP", b"\0" * 100, b"\xff" * 9000])
def test_what_is_no_database_is_noted(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "var/lib/rpm" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = scan(str(tmp_path))
    assert not found.packages
    assert f"/var/lib/rpm/{name} cannot be read as an rpm database: " in found.notes[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, headers: list[bytes]) -> Path:
    place = tmp_path_factory.mktemp("databases")
    write_bdb(place / "b/Packages", headers, 512)
    write_ndb(place / "n/Packages.db", headers)
    return place


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["b/Packages", "n/Packages.db"]))
def test_a_damaged_database_ends_in_headers_or_a_value_error(
    files: Path, kind: str, data: st.DataObject
) -> None:
    changed = bytearray((files / kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    del changed[data.draw(st.integers(0, len(changed))) :]
    path = files / "damaged"
    path.write_bytes(changed)
    try:
        for header in (bdb_headers if kind.startswith("b") else ndb_headers)(str(path)):
            header_fields(header)
    except ValueError:
        return


def test_a_file_that_is_read_again_and_again_is_given_up(
    tmp_path: Path, headers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpmfiles, "_READ_LIMIT", 100_000)
    path = tmp_path / "Packages.db"
    large = max(headers, key=len)
    write_ndb(tmp_path / "one/Packages.db", [large])
    page = bytearray((tmp_path / "one/Packages.db").read_bytes())
    for slot in range(2, 200):  # all of them say the same place
        page[32 + 16 * slot : 48 + 16 * slot] = page[32:48]
    path.write_bytes(page)
    with pytest.raises(ValueError, match="MiB"):
        list(ndb_headers(str(path)))
