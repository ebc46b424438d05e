"""The commands for images as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.cli.main import run
from runtime.store import Store
from tests.component.images.test_images import LAYER_1, LAYER_2
from tests.support.store import docker_archive, make_image


@pytest.fixture
def archive(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPE_ROOT", store.root)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    path = tmp_path / "two.tar"
    path.write_bytes(docker_archive(make_image(LAYER_1, LAYER_2), "two:1", "localhost:5000/also:2"))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = run(list(arguments))
    out, error = capsys.readouterr()
    assert found == code, error
    return out if code == 0 else error


def test_from_an_archive_to_another_and_away(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "load", "-i", str(archive)).splitlines() == [
        "Loaded image: two:1",
        "Loaded image: localhost:5000/also:2",
    ]
    table = said(capsys, "images").splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [row.split()[:2] for row in table[1:]] == [["two", "1"], ["localhost:5000/also", "2"]]
    (short_id,) = said(capsys, "images", "-q").split()
    said(capsys, "tag", short_id, "three")
    assert said(capsys, "images", "three", "-q").strip() == short_id
    (inspected,) = json.loads(said(capsys, "image", "inspect", "three"))
    assert inspected["RepoTags"] == ["three:latest", "two:1", "localhost:5000/also:2"]
    assert inspected["Id"].startswith(f"sha256:{short_id}")
    said(capsys, "save", "-o", str(tmp_path / "again.tar"), "three", "two:1")
    assert said(capsys, "rmi", "three", "two:1", "localhost:5000/also:2").splitlines()[:3] == [
        "Untagged: three:latest", "Untagged: two:1", "Untagged: localhost:5000/also:2",
    ]  # fmt: skip
    assert said(capsys, "image", "load", "-q", "-i", str(tmp_path / "again.tar")) == ""
    assert said(capsys, "images", "-q").split() == [short_id]
    assert said(capsys, "history", "two:1", "-q") == "\n"
    assert re.search(r"^Images +1 +0 ", said(capsys, "system", "df"), re.MULTILINE)
    assert "Total reclaimed space: " in said(capsys, "image", "prune", "-a", "-f")
    assert said(capsys, "images", "-q") == ""
    assert re.search(r"^Images +0 +0 +0 B", said(capsys, "system", "df"), re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("rmi", "nothing:1"), 2, "no image nothing:1"),
        (("tag", "two:1", "UPPER"), 2, "must be lower case"),
        (("load", "-i", "/nowhere/at.all"), 2, "cannot read /nowhere/at.all"),
        (("save", "-o", "/nowhere/at.all", "two:1"), 2, "cannot write /nowhere/at.all"),
        (("image", "prune", "-f", "--filter", "colour=red"), 2, "unknown filter 'colour=red'"),
        (("history", "nothing"), 2, "no image nothing"),
        (("pull", "localhost:1/nothing", "-q"), 3, "localhost:1"),
    ],
)
def test_a_mistake_is_one_clear_message(
    archive: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    said(capsys, "load", "-q", "-i", str(archive))
    error = said(capsys, *arguments, code=code)
    assert message in error
    assert "Traceback" not in error


def test_a_system_prune_leaves_an_empty_store(
    archive: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "load", "-i", str(archive))
    before = [json.loads(line) for line in said(capsys, "system", "df", "--format", "json").splitlines()]
    assert next(row for row in before if row["Type"] == "Images")["Reclaimable"] > 0
    assert "Total reclaimed space: " in said(capsys, "system", "prune", "-a", "-f")
    after = [json.loads(line) for line in said(capsys, "system", "df", "--format", "json").splitlines()]
    assert {row["TotalCount"] for row in after} == {0}


def test_images_are_listed_as_json_for_programs(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "load", "-i", str(archive))
    records = [
        json.loads(line) for line in said(capsys, "images", "--format", "json", "--no-trunc").splitlines()
    ]
    assert {(record["Repository"], record["Tag"]) for record in records} == {
        ("two", "1"),
        ("localhost:5000/also", "2"),
    }
    assert {len(record["ID"]) for record in records} == {71}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("dangling=true",), []),
        (("dangling=false", "reference=tw*"), ["two:1"]),
        (("reference=localhost:5000/also:2",), ["localhost:5000/also:2"]),
        (("label=nothing",), []),
        (("before=two:1",), []),
    ],
)
def test_filters_and_templates_choose_what_is_listed(
    archive: Path, capsys: pytest.CaptureFixture[str], filters: tuple[str, ...], expected: list[str]
) -> None:
    said(capsys, "load", "-i", str(archive))
    options = [part for each in filters for part in ("--filter", each)]
    assert said(capsys, "images", *options, "--format", "{{.Repository}}:{{.Tag}}").split() == expected


def test_a_root_file_system_is_imported_under_a_name(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root.tar").write_bytes(LAYER_1)
    changes = ("-c", 'CMD ["sh", "-c", "true"]', "-c", "ENV A=1 B=$A", "-c", "USER 5:6")
    image_id = said(
        capsys, "import", str(tmp_path / "root.tar"), "root:1", "-m", "from a tar", *changes
    ).strip()
    assert said(capsys, "images", "-q", "--no-trunc", "root").strip() == image_id
    assert "from a tar" in said(capsys, "history", "root:1")
    form = "{{json .Config.Cmd}} {{json .Config.Env}} {{.Config.User}}"
    assert '["sh", "-c", "true"]' in said(capsys, "image", "inspect", "-f", form, "root:1")
    assert said(capsys, "image", "inspect", "-f", "{{.Config.User}}", "root:1") == "5:6\n"
    wrong = said(capsys, "import", str(tmp_path / "root.tar"), "-c", "RUN true", code=2)
    assert "changes files" in wrong
