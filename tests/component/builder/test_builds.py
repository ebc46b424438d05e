"""`pipe builds`: what is remembered of builds (`docker buildx history`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import recording
from tests.support.builder import run_pipe, write_files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write_files(
        tmp_path / "app", {"Dockerfile": "FROM scratch AS one\nCOPY a /a\nCOPY a /b\n", "a": "1"}
    )


def pipe(place: Path, *arguments: str, code: int = 0) -> str:
    done = run_pipe(place.parent / "store", *arguments, cwd=place.parent, code=code)
    return (done.stdout if code == 0 else done.stderr).decode()


def listed(place: Path, *arguments: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in pipe(place, "builds", "ls", "--format", "json", *arguments).splitlines()
    ]


def inspected(place: Path, ref: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        pipe(place, "builds", "inspect", "--format", "json", *filter(None, [ref]))
    )
    return found


def test_builds_are_remembered_whether_they_did_something_found_all_or_failed(place: Path) -> None:
    image = pipe(place, "build", "-q", "-t", "x:1", "app").strip()
    pipe(place, "build", "-q", "--target", "one", "app")
    write_files(place, {"Dockerfile": "FROM scratch\nCOPY gone /a\n"})
    pipe(place, "build", "app", code=2)
    failed, cached, first = listed(place)
    assert [each["status"] for each in (failed, cached, first)] == ["Error", "Completed", "Completed"]
    assert [each["name"] for each in (failed, cached, first)] == ["app", "app (one)", "app"]
    assert (first["total_steps"], first["completed_steps"], first["cached_steps"]) == (2, 2, 0)
    assert (cached["total_steps"], cached["cached_steps"]) == (2, 2)
    assert "gone" in inspected(place)["Error"]["Message"]
    about = inspected(place, "^2")
    assert about["Images"] == [image]
    assert about["Tags"] == ["x:1"]
    assert about["Status"] == "completed"
    assert [each["name"] for each in listed(place, "--filter", "status=error")] == ["app"]
    assert [each["name"] for each in listed(place, "--filter", "name~=one")] == ["app (one)"]


def test_the_metadata_file_has_the_ref_by_which_a_build_is_found(place: Path) -> None:
    for arguments in ((), ("--no-cache",), ()):
        meta = place.parent / "meta.json"
        pipe(place, "build", "-q", "--metadata-file", str(meta), *arguments, "app")
        ref = json.loads(meta.read_text())["buildx.build.ref"]
        assert ref.startswith("default/default/")
        assert inspected(place, ref)["Ref"] == ref.rpartition("/")[2] == inspected(place)["Ref"]
        assert inspected(place, inspected(place)["Ref"][:-8])["Ref"] == inspected(place)["Ref"]


def test_the_log_is_shown_again(place: Path) -> None:
    pipe(place, "build", "app")
    text = pipe(place, "builds", "logs")
    assert "[one 2/2] COPY a /b" in text and "DONE" in text
    again = pipe(place, "buildx", "history", "logs", "--progress", "rawjson")
    assert json.loads(again.splitlines()[0])


def test_records_are_forgotten_one_by_one_or_all(place: Path) -> None:
    for _ in range(3):
        pipe(place, "build", "-q", "app")
    pipe(place, "builds", "rm", listed(place)[1]["ref"])
    assert len(listed(place)) == 2
    assert "rm needs a REF" in pipe(place, "builds", "rm", code=2)
    assert "no build 'nope'" in pipe(place, "builds", "rm", "nope", code=2)
    pipe(place, "builds", "rm", "--all")
    assert listed(place) == []
    assert "no build yet" in pipe(place, "builds", "logs", code=2)


def test_passwords_in_a_context_are_neither_shown_nor_kept(place: Path) -> None:
    shown = pipe(place, "build", "http://me:hunter2@127.0.0.1:1/x.tar.gz", code=3)
    assert "cannot fetch http://127.0.0.1:1/x.tar.gz" in shown
    assert "hunter2" not in shown
    assert "hunter2" not in pipe(place, "builds", "inspect")
    assert "hunter2" not in pipe(place, "builds", "logs")


def test_only_the_last_ones_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.request import BuildRequest
    from pipeline.builds import Builds
    from runtime.events import Outcome, Output

    monkeypatch.setattr(recording, "LIMIT", 3)
    monkeypatch.setattr(recording, "OUTPUT_LIMIT", 10)
    refs = []
    for number in range(5):
        kept = recording.Recording(str(tmp_path), BuildRequest(context=f"c{number}"))
        for text in (b"12345", b"67890", b"too much"):
            kept.note(Output(node="build/1", stream="stdout", data=text))
        kept.note(Output(node="other/1", stream="stdout", data=b"of another build"))
        refs.append(kept.end(None, Outcome.CANCELLED))
    builds = Builds(str(tmp_path))
    assert [each["name"] for each in builds.all()] == ["c4", "c3", "c2"]
    assert [event.data for event in builds.events(builds.find("")) if isinstance(event, Output)] == [
        b"12345",
        b"67890",
    ]
    assert (builds.facts(builds.find("^2"))["left_out"], builds.facts(builds.find(""))["status"]) == (
        8,
        "canceled",
    )
    assert os.listdir(tmp_path / "builds") and all(
        not name.startswith(".") for name in os.listdir(tmp_path / "builds")
    )


def test_a_record_that_cannot_be_written_fails_no_build(place: Path) -> None:
    pipe(place, "build", "-q", "app")
    directory = place.parent / "store" / "builds"
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.write_text("in the way")
    assert pipe(place, "build", "-q", "app").startswith("sha256:")
