"""The log: lossless, rotated, read across rotations and beside its writer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from runtime.containers.logfile import LogReader, LogWriter, log_files, remove_log


def written(path: Path, stream: str = "stdout") -> bytes:
    with LogReader(str(path)) as reader:
        return b"".join(line.data for line in reader.lines(last=True) if line.stream == stream)


def test_lines_are_docker_json(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.json"))
    writer.write("stdout", b"one\ntwo\n")
    writer.write("stderr", b'say "hi"\n')
    writer.close()
    records = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    assert [(record["log"], record["stream"]) for record in records] == [
        ("one\n", "stdout"),
        ("two\n", "stdout"),
        ('say "hi"\n', "stderr"),
    ]
    assert len(records[0]["time"]) == len("2026-01-01T00:00:00.000000000Z")


def test_all_bytes_come_back(tmp_path: Path) -> None:
    data = os.urandom(300_000) + bytes(range(256)) + "é漢🚢".encode()
    writer = LogWriter(str(tmp_path / "log"))
    for start in range(0, len(data), 7919):
        writer.write("stdout", data[start : start + 7919])
    writer.close()
    assert written(tmp_path / "log") == data


def test_a_long_line_is_written_in_parts_and_read_as_one(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"))
    writer.write("stdout", b"x" * 100_000)
    writer.write("stderr", b"between\n")
    writer.write("stdout", b"y\n")
    writer.close()
    assert max(len(line) for line in (tmp_path / "log").read_bytes().splitlines()) < 17_000
    with LogReader(str(tmp_path / "log")) as reader:
        lines = list(reader.lines())
    assert [line.data for line in lines if line.stream == "stdout"] == [b"x" * 100_000 + b"y\n"]


def test_an_unfinished_line_is_written_at_the_end(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"))
    writer.write("stdout", b"prompt> ")
    assert written(tmp_path / "log") == b""
    writer.close()
    assert written(tmp_path / "log") == b"prompt> "


def test_rotation_keeps_as_many_files_as_asked(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"), max_size=1000, max_files=3)
    for number in range(200):
        writer.write("stdout", f"line {number}\n".encode())
    writer.close()
    assert [os.path.basename(name) for name in log_files(str(tmp_path / "log"))] == ["log.2", "log.1", "log"]
    assert all(os.path.getsize(name) < 1100 for name in log_files(str(tmp_path / "log")))
    text = written(tmp_path / "log").decode().splitlines()
    assert text == [f"line {number}" for number in range(200 - len(text), 200)]


def test_a_reader_follows_across_a_rotation(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"), max_size=600, max_files=5)
    seen: list[bytes] = []
    writer.write("stdout", b"first\n")
    with LogReader(str(tmp_path / "log")) as reader:
        for number in range(30):
            writer.write("stdout", f"{number}\n".encode())
            seen += [line.data for line in reader.lines()]
    writer.close()
    assert seen == [b"first\n", *(f"{number}\n".encode() for number in range(30))]
    assert len(log_files(str(tmp_path / "log"))) > 1


def test_a_line_cut_short_by_a_crash_is_skipped(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"))
    writer.write("stdout", b"good\n")
    writer.close()
    with open(tmp_path / "log", "ab") as file:
        file.write(b'{"log":"bad')
    assert written(tmp_path / "log") == b"good\n"


def test_removing_a_log_removes_its_rotated_files(tmp_path: Path) -> None:
    for name in ("log", "log.1", "log.2", "other"):
        (tmp_path / name).touch()
    remove_log(str(tmp_path / "log"))
    assert os.listdir(tmp_path) == ["other"]
