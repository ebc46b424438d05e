"""Where two builds part: layers made by hand, compared entry by entry and byte by byte (FEATURES M-13)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping

from builder.reproducible import Deviation, _compared, _config_difference
from runtime.store.layers.reader import TarReader


def tar_of(files: Mapping[str, bytes], **fields: object) -> TarReader:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in sorted(files, key=lambda each: each.split("/")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(files[name]), 1000
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(files[name]))
    out.seek(0)
    return TarReader(out)


def deviations(one: TarReader, other: TarReader) -> list[tuple[Deviation, ...]]:
    return list(_compared(one, other))


def test_equal_layers_have_no_difference() -> None:
    files = {"a": b"1", "b/c": b"2" * 3_000_000}
    assert deviations(tar_of(files), tar_of(files)) == []


def test_the_first_byte_is_named_wherever_it_lies() -> None:
    data = bytes(2_500_000)
    changed = bytearray(data)
    changed[2_222_222] = 7
    (found,) = deviations(tar_of({"f": data}), tar_of({"f": bytes(changed)}))
    assert [(each.path, each.what) for each in found] == [("/f", "content at byte 2222222")]
    assert found[0].second.startswith("'\\x07")


def test_a_file_that_ends_earlier_differs_at_its_end_and_in_size() -> None:
    (found,) = deviations(tar_of({"f": b"abc"}), tar_of({"f": b"abcd"}))
    assert [(each.what, each.first, each.second) for each in found] == [
        ("content at byte 3", "its end", "'d'"),
        ("size", "3", "4"),
    ]


def test_what_only_one_has_is_named_and_the_rest_still_compared() -> None:
    one, other = tar_of({"a": b"", "b": b"1", "d": b""}), tar_of({"b": b"2", "c": b"", "d": b""})
    found = [(each[0].path, each[0].what) for each in deviations(one, other)]
    assert found == [("/a", "entry"), ("/b", "content at byte 0"), ("/c", "entry")]


def test_a_directory_sorts_before_its_neighbours_with_a_longer_name() -> None:
    one, other = tar_of({"a/x": b"", "a-b": b""}), tar_of({"a-b": b""})
    assert [(each[0].path, each[0].second) for each in deviations(one, other)] == [("/a/x", "missing")]


def test_mode_owner_and_time_are_told_apart() -> None:
    (found,) = deviations(tar_of({"f": b""}, mode=0o600, uid=1), tar_of({"f": b""}, mode=0o644, mtime=1001))
    assert [(each.what, each.first, each.second) for each in found] == [
        ("mode", "0600", "0644"),
        ("owner", "1:0", "0:0"),
        ("time", "1000", "1001"),
    ]


def test_the_first_field_of_a_config_is_named_by_its_path() -> None:
    one = json.loads('{"config": {"Env": ["A=1", "B=2"]}, "created": "x"}')
    other = json.loads('{"config": {"Env": ["A=1", "B=3"]}, "created": "y"}')
    assert _config_difference(one, other, "") == Deviation("config.Env[1]", "value", "B=2", "B=3")
    assert _config_difference(one, one, "") is None
