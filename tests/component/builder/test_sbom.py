"""The scanner, on roots made for it: every database it knows, and roots that mean ill."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.sbom import files as sbom_files
from builder.sbom.rpm import header_fields
from builder.sbom.scan import Inventory, scan
from tests.support.builder import write_files

STATUS = """Package: curl
Status: install ok installed
Maintainer: Debian Curl <curl@example.org>
Architecture: amd64
Source: curl-src (7.88-0)
Version: 7.88.1-10+deb12u5
Description: a tool
 with more lines
 Version: not this one

Package: gone
Status: deinstall ok config-files
Version: 1
"""
INSTALLED = """P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
m:A <a@example.org>
F:lib
R:libc.musl-x86_64.so.1

P:ssl_client
V:1.36.1-r5
A:x86_64
o:busybox
"""


def purls(inventory: Inventory) -> list[str]:
    return [each.purl for each in inventory.packages]


def test_dpkg_tells_what_is_installed(tmp_path: Path) -> None:
    release = 'ID=debian\nVERSION_ID="12"\nNAME="Debian GNU/Linux"\n'
    write_files(tmp_path, {"var/lib/dpkg/status": STATUS, "etc/os-release": release})
    found = scan(str(tmp_path))
    assert purls(found) == [
        "pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12&upstream=curl-src%407.88-0"
    ]
    assert found.packages[0].supplier == "Debian Curl <curl@example.org>"


def test_an_image_without_dpkg_has_its_packages_in_status_d(tmp_path: Path) -> None:
    part = "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n"
    write_files(tmp_path, {"var/lib/dpkg/status.d/base": part, "var/lib/dpkg/status.d/base.md5sums": "x"})
    assert purls(scan(str(tmp_path))) == ["pkg:deb/debian/base-files@12.4?arch=amd64"]


def test_apk_tells_what_is_installed(tmp_path: Path) -> None:
    release = "ID=alpine\nVERSION_ID=3.18.4\n"
    write_files(tmp_path, {"lib/apk/db/installed": INSTALLED, "usr/lib/os-release": release})
    (tmp_path / "etc").mkdir()
    os.symlink("../usr/lib/os-release", tmp_path / "etc/os-release")
    found = scan(str(tmp_path))
    assert purls(found) == [
        "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4",
        "pkg:apk/alpine/ssl_client@1.36.1-r5?arch=x86_64&distro=alpine-3.18.4&upstream=busybox",
    ]
    assert found.packages[0].license == "MIT"


def rpm_header(**fields: str | int) -> bytes:
    """A header blob as rpm keeps it: counts, index, data."""
    tags = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "license": 1014, "arch": 1022}
    index, data = b"", b""
    for name, content in fields.items():
        if isinstance(content, int):
            data += bytes(-len(data) % 4)
            index += struct.pack(">IIII", tags[name], 4, len(data), 1)
            data += struct.pack(">I", content)
        else:
            index += struct.pack(">IIII", tags[name], 6, len(data), 1)
            data += content.encode() + b"\0"
    return struct.pack(">II", len(fields), len(data)) + index + data


def rpm_database(place: Path, *blobs: bytes) -> None:
    place.parent.mkdir(parents=True)
    with closing(sqlite3.connect(place)) as database, database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs])


def test_rpm_tells_what_is_installed(tmp_path: Path) -> None:
    rpm_database(
        tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite",
        rpm_header(name="bash", version="5.2", release="1.fc38", arch="x86_64", license="GPL-3.0-or-later"),
        rpm_header(name="perl", version="5", release="2", epoch=4, arch="noarch"),
        rpm_header(name="gpg-pubkey", version="1", release="2"),
    )
    write_files(tmp_path, {"etc/os-release": "ID=fedora\nVERSION_ID=38\n"})
    assert purls(scan(str(tmp_path))) == [
        "pkg:rpm/fedora/bash@5.2-1.fc38?arch=x86_64&distro=fedora-38",
        "pkg:rpm/fedora/perl@5-2?arch=noarch&distro=fedora-38&epoch=4",
    ]


@pytest.mark.parametrize(
    "blob", [b"", b"\0" * 7, struct.pack(">II", 2**31, 5), struct.pack(">II", 1, 2**31) + b"x" * 16]
)
def test_a_damaged_header_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="shorter"):
        header_fields(blob)


def test_a_damaged_database_is_noted(tmp_path: Path) -> None:
    write_files(tmp_path, {"var/lib/rpm/rpmdb.sqlite": b"SQLite format 3\0" + b"\xff" * 4096})
    found = scan(str(tmp_path))
    assert not found.packages
    assert "cannot be read" in found.notes[0]


def test_a_database_that_would_never_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.sbom.rpm._STEPS", 10_000)
    place = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    place.parent.mkdir(parents=True)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS hnum, x'00' AS blob FROM n"
    with closing(sqlite3.connect(place)) as database:
        database.execute(f"CREATE VIEW Packages AS {endless}")
    found = scan(str(tmp_path))
    assert not found.packages
    assert "interrupted" in found.notes[0]


def test_python_and_npm_are_found_wherever_they_are(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "opt/venv/lib/python3.11/site-packages/Flask_Thing-1.0.dist-info/METADATA":
                "Metadata-Version: 2.1\nName: Flask_Thing\nVersion: 1.0\nLicense: BSD-3-Clause\n\nName: not this\n",
            "usr/lib/python3/dist-packages/old-2.egg-info": "Name: old\nVersion: 2\n",
            "srv/node_modules/left-pad/package.json": json.dumps({"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}),
            "srv/node_modules/@a/b/package.json": json.dumps({"name": "@a/b", "version": "2.0.0", "license": {"type": "MIT"}}),
            "srv/node_modules/@a/b/node_modules/c/package.json": json.dumps({"name": "c", "version": "3.0.0"}),
            "srv/node_modules/@a/b/lib/package.json": json.dumps({"name": "inner", "version": "9.9.9"}),
            "srv/package-lock.json": json.dumps({"packages": {"node_modules/dev": {"version": "1.0.0"}}}),
        },
    )  # fmt: skip
    found = scan(str(tmp_path))
    assert set(purls(found)) == {
        "pkg:npm/c@3.0.0",
        "pkg:npm/left-pad@1.3.0",
        "pkg:npm/%40a/b@2.0.0",
        "pkg:pypi/flask-thing@1.0",
        "pkg:pypi/old@2",
    }
    licenses = {each.name: each.license for each in found.packages}
    assert (licenses["flask-thing"], licenses["left-pad"], licenses["b"]) == ("BSD-3-Clause", "WTFPL", "MIT")


@pytest.mark.parametrize(
    "lock",
    [
        {"packages": {"": {"version": "0"}, "node_modules/@a/b": {"version": "1.0.0"}, "node_modules/x/node_modules/c": {"version": "2.0.0"}}},
        {"dependencies": {"@a/b": {"version": "1.0.0"}, "x": {"dependencies": {"c": {"version": "2.0.0"}}, "version": "5"}}},
    ],
)  # fmt: skip
def test_a_lock_file_counts_where_nothing_is_installed(tmp_path: Path, lock: object) -> None:
    write_files(tmp_path, {"srv/package-lock.json": json.dumps(lock)})
    assert {"pkg:npm/%40a/b@1.0.0", "pkg:npm/c@2.0.0"} <= set(purls(scan(str(tmp_path))))


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    write_files(
        tmp_path / "outside", {"status": STATUS, "site/x-1.dist-info/METADATA": "Name: x\nVersion: 1\n"}
    )
    root = write_files(tmp_path / "root", {"var/lib/dpkg/": "", "opt/": ""})
    os.symlink(tmp_path / "outside/status", root / "var/lib/dpkg/status")
    os.symlink("../../../../../../../../../../" + str(tmp_path / "outside"), root / "opt/up")
    os.symlink(tmp_path / "outside/site/x-1.dist-info", root / "opt/x-1.dist-info")
    os.mkfifo(root / "opt/old.egg-info")
    found = scan(str(root))
    assert not found.packages


def test_a_link_within_the_root_is_followed_from_the_root(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", {"data/status": STATUS, "var/lib/dpkg/": ""})
    os.symlink("/data/status", root / "var/lib/dpkg/status")
    assert len(scan(str(root)).packages) == 1


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"x/a-1.dist-info/METADATA": "Name: a\nVersion: 1\n" + "z" * 100})
    monkeypatch.setattr("builder.sbom.languages._METADATA_LIMIT", 50)
    assert not scan(str(tmp_path)).packages


def test_a_root_of_too_many_files_is_looked_at_in_part_and_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom_files, "ENTRY_LIMIT", 5)
    write_files(tmp_path, {f"d{n}/file": "" for n in range(9)})
    assert "more than 5 files" in scan(str(tmp_path)).notes[0]


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\0", b"[" * 100_000, b'{"packages": 5}', b'"text"', b'{"dependencies": [1]}']
)
def test_nonsense_is_passed_over(tmp_path: Path, data: bytes) -> None:
    names = (
        "a/package-lock.json",
        "node_modules/b/package.json",
        "c-1.dist-info/METADATA",
        "var/lib/dpkg/status",
    )
    write_files(tmp_path, dict.fromkeys((*names, "lib/apk/db/installed", "etc/os-release"), data))
    assert not scan(str(tmp_path)).packages


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_header_makes_us_stumble(data: bytes) -> None:
    for blob in (data, struct.pack(">II", 3, 60) + data + bytes(120)):
        try:
            header_fields(blob)
        except ValueError:
            continue
