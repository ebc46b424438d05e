"""What stages leave: JUnit, outputs, artifacts; and files of variables."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.artifacts import Artifact, ArtifactStore, as_tar, fixed_parent, parse_outputs, write_out
from pipeline.config.dotenv import parse_dotenv
from pipeline.config.units import parse_duration, parse_size, show_duration
from pipeline.event_log import event_from_json, event_to_json
from pipeline.junit import TestReport as Report
from pipeline.junit import merge_reports, parse_junit
from runtime.errors import InvalidInput
from runtime.events import Changed, Event, Finished, Outcome, Output, Started, Warned

JUNIT = b"""<?xml version="1.0"?><testsuites><testsuite name="s" tests="99" failures="0">
<testcase classname="t.A" name="ok" time="1.5"/>
<testcase classname="t.A" name="bad" file="t.py" line="7" time="0.1"><failure message="assert 1 == 2">trace</failure></testcase>
<testcase classname="t.A" name="err"><error>boom
more</error></testcase>
<testcase classname="t.A" name="skip"><skipped/></testcase>
</testsuite></testsuites>"""


def test_counts_come_from_the_cases_not_from_attributes() -> None:
    report = parse_junit(JUNIT, "u.xml")
    assert (report.tests, report.passed, report.failed, report.errors, report.skipped) == (4, 1, 1, 1, 1)
    assert report.summary == "1 passed, 1 failed, 1 errors, 1 skipped"


def test_failures_say_where_and_what() -> None:
    bad, err = parse_junit(JUNIT, "u.xml").failures
    assert (bad.name, bad.message, bad.file, bad.line) == ("t.A::bad", "assert 1 == 2", "t.py", 7)
    assert err.message == "boom"


def test_a_report_survives_its_json() -> None:
    report = parse_junit(JUNIT, "u.xml")
    assert Report.from_json(report.to_json()) == report


def test_reports_add_up() -> None:
    assert merge_reports([parse_junit(JUNIT, "a"), parse_junit(JUNIT, "b")]).tests == 8


@pytest.mark.parametrize("data", [b"", b"not xml", b"<html/>", b'<?xml version="1.0" encoding="nope"?><a/>'])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_junit(data, "u.xml")


def test_entities_that_multiply_do_no_harm() -> None:
    lines = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "xxxxxxxxxx">{lines}]><testsuite>&a11;</testsuite>'
    with pytest.raises(InvalidInput):
        parse_junit(bomb.encode(), "u.xml")


def test_outputs_of_one_and_of_several_lines() -> None:
    data = b"version=1.2\nnotes<<END\na=b\nc\nEND\nversion=1.3\nnoise\nurl=http://x/?a<<b\n"
    assert dict(parse_outputs(data)) == {"version": "1.3", "notes": "a=b\nc", "url": "http://x/?a<<b"}


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o640
    return info


def test_only_what_matches_is_kept_and_equal_content_once(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    archive = tar_of(
        (member("out"), b""),
        (member("out/a.txt"), b"x"),
        (member("out/b.txt"), b"x"),
        (member("out/c.log"), b"y"),
    )
    found = list(store.collect(archive, "/app", ("/app/out/*.txt",), ()))
    assert [artifact.path for artifact in found] == ["/app/out/a.txt", "/app/out/b.txt"]
    assert len(list((tmp_path / "runs" / "objects").iterdir())) == 1


def test_artifacts_come_out_as_they_went_in(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    archive = tar_of(
        (member("o", tarfile.DIRTYPE), b""),
        (member("o/a"), b"data"),
        (member("o/l", tarfile.SYMTYPE, "a"), b""),
    )
    found = tuple(store.collect(archive, "/", ("/o/**", "/o"), ()))
    write_out(store, found, str(tmp_path / "out"))
    assert (tmp_path / "out/o/a").read_bytes() == b"data"
    assert (tmp_path / "out/o/a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out/o/l").readlink() == Path("a")
    with as_tar(store, found) as tar, tarfile.open(fileobj=tar) as opened:
        assert opened.getnames() == ["o", "o/a", "o/l"]


def test_a_hostile_archive_can_not_write_outside(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "s"))
    archive = tar_of(
        (member("o/l", tarfile.SYMTYPE, str(tmp_path / "outside")), b""), (member("o/l/x"), b"evil")
    )
    found = tuple(store.collect(archive, "/", ("/o/**",), ()))
    (tmp_path / "outside").mkdir()
    with pytest.raises(InvalidInput):
        write_out(store, found, str(tmp_path / "out"))
    assert not list((tmp_path / "outside").iterdir())


def test_names_that_climb_stay_inside_the_containers_paths(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    archive = tar_of((member("o/../../etc/x"), b"evil"))
    assert list(store.collect(archive, "/app", ("/app/o/**",), ())) == []
    with pytest.raises(InvalidInput):
        write_out(store, (Artifact("/a/../../x", 0o100644, 0, ""),), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("pattern", "parent"),
    [("/a/b", "/a/b"), ("/a/*.x", "/a"), ("/a/**/x", "/a"), ("/*", "/"), ("/r/u-?.xml", "/r")],
)
def test_what_must_be_fetched_for_a_glob(pattern: str, parent: str) -> None:
    assert fixed_parent(pattern) == parent


def test_dotenv_dialect() -> None:
    text = "# c\nexport A=1\nB = two # comment\nC='it''s'\nD=\"a\\nb\"\nE=\"multi\nline\"\nF\nG=x#y\nH=\n"
    assert parse_dotenv(text, ".env") == {
        "A": "1", "B": "two", "C": "it", "D": "a\nb", "E": "multi\nline", "G": "x#y", "H": "",
    }  # fmt: skip


def test_raw_dotenv_keeps_quotes() -> None:
    assert parse_dotenv("A='x' # y", ".env", raw=True) == {"A": "'x' # y"}


@pytest.mark.parametrize("text", ["1 = 2", "=x", 'A="never closed'])
def test_a_broken_dotenv_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_dotenv(text, ".env")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5), ("2.5s", 2.5), ("7", 7), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10x", "1m 30s", "-1s", "1s2"])
def test_broken_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1024), ("2MB", 2 << 20), ("1GiB", 1 << 30), ("1.5g", 3 << 29), ("64b", 64)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_durations_for_people() -> None:
    assert [show_duration(s) for s in (0.44, 12, 185, 3725)] == ["0.4s", "12.0s", "3m05s", "1h02m"]


EVENTS: list[Event] = [
    Started(node="a", name="b", parent="c", time=1.5),
    Output(node="a", stream="stdout", data="grün\n".encode(), time=2),
    Output(node="a", stream="stderr", data=b"\xff\x00", time=2),
    Warned(node="a", message="m", time=3),
    Finished(node="a", outcome=Outcome.FAILED, error="e", detail="d", time=4),
    Changed(kind="image", id="i", action="tag", attributes={"name": "x"}, time=5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_the_journal(event: Event) -> None:
    import json

    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event
