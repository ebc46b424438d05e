"""Maven artifacts in Java archives, and archives that mean ill."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.sbom import java
from builder.sbom.scan import Inventory, scan
from tests.support.builder import write_files


def properties(artifact: str, version: str = "1.0", group: str = "org.example") -> tuple[str, bytes]:
    text = f"#Created by Apache Maven\nversion={version}\ngroupId={group}\nartifactId={artifact}\n"
    return f"META-INF/maven/{group}/{artifact}/pom.properties", text.encode()


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


def scanned(root: Path, data: bytes, name: str = "srv/app.jar") -> Inventory:
    write_files(root, {name: data})
    return scan(str(root))


def purls(found: Inventory) -> list[str]:
    return [package.purl for package in found.packages]


def test_an_archive_tells_what_maven_packed_into_it(tmp_path: Path) -> None:
    found = scanned(
        tmp_path,
        archive(properties("app", "2.1"), properties("shaded"), ("other/pom.properties", b"version=9")),
    )
    assert purls(found) == ["pkg:maven/org.example/app@2.1", "pkg:maven/org.example/shaded@1.0"]
    assert {package.place for package in found.packages} == {"srv/app.jar"}


def test_archives_within_archives_are_opened(tmp_path: Path) -> None:
    inner = archive(properties("inner"))
    middle = archive(("lib/inner.jar", inner), properties("middle"))
    data = archive(("BOOT-INF/lib/middle.jar", middle), properties("outer"), compression=zipfile.ZIP_STORED)
    names = ["inner", "middle", "outer"]
    assert purls(scanned(tmp_path, data, "opt/app.WAR")) == [
        f"pkg:maven/org.example/{name}@1.0" for name in names
    ]


def test_archives_without_an_end_are_not_followed_for_ever(tmp_path: Path) -> None:
    data = archive(properties("deepest"))
    for depth in range(10):
        data = archive((f"{depth}.jar", data), properties(f"level-{depth}"))
    assert len(purls(scanned(tmp_path, data))) == 3


def test_what_unfolds_to_more_than_is_sensible_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "_INNER_LIMIT", 1 << 20)
    found = scanned(tmp_path, archive(properties("first"), ("bomb.jar", bytes(2 << 20))))
    assert purls(found) == ["pkg:maven/org.example/first@1.0"]
    assert "what is within it has more than 1 MiB" in found.notes[0]


@pytest.mark.parametrize("data", [b"", b"PK", b"not an archive" * 100, archive(properties("app"))[:-30]])
def test_what_is_no_archive_is_noted(tmp_path: Path, data: bytes) -> None:
    found = scanned(tmp_path, data)
    assert not found.packages
    assert "/srv/app.jar cannot be read as a Java archive" in found.notes[0]


def test_a_list_of_members_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    data = bytearray(archive(properties("app")))
    at = data.rfind(b"PK\x05\x06")
    data[at + 12 : at + 16] = (1 << 31).to_bytes(4, "little")
    assert "more than 32 MiB" in scanned(tmp_path, bytes(data)).notes[0]


def test_a_link_is_not_followed_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "outside.jar").write_bytes(archive(properties("outside")))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.jar").symlink_to(tmp_path / "outside.jar")
    assert not scan(str(tmp_path / "root")).packages


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_ends_in_packages_or_a_note(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(archive(properties("app"), ("lib/a.jar", archive(properties("inner")))))
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    root = tmp_path_factory.getbasetemp() / "damaged-archive"
    scanned(root, bytes(changed))
