"""Judged by BuildKit's own parser: its test cases, its shell tables, and its answers for real Dockerfiles."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile import DockerfileError
from builder.dockerfile.__main__ import describe
from builder.dockerfile.nodes import Node
from builder.dockerfile.reader import read_nodes
from builder.dockerfile.words import Lexer, WordError
from tests.support import REPOSITORY, shared_data

DATA = REPOSITORY / "tests" / "data" / "dockerfile"
COMPARED = ("ast", "escape", "meta_args", "stages")
VARIABLES = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


def differences(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of the fields that are not as BuildKit says."""
    wrong = [key for key in COMPARED if key in expected and got.get(key) != expected[key]]
    return wrong + [key for key in ("error", "instr_error") if (key in got) != (key in expected)]


@pytest.mark.parametrize("line", (DATA / "real" / "expected.jsonl").read_text().splitlines())
def test_a_real_dockerfile_parses_as_buildkit_parses_it(line: str) -> None:
    expected = json.loads(line)
    name = expected["file"]
    assert differences(describe(name, (DATA / "real" / name).read_bytes()), expected) == []


def test_all_real_dockerfiles_parse_as_buildkit_parses_them() -> None:
    folder = shared_data("spec/dockerfile")
    with gzip.open(folder / "real-expected.jsonl.gz", "rt") as lines:
        answers = {answer["file"]: answer for answer in map(json.loads, lines)}
    wrong = {}
    for name, text in real_files(folder / "real-dockerfiles.tar.gz"):
        if found := differences(describe(name, text), answers.pop(name)):
            wrong[name] = found
    assert (wrong, answers) == ({}, {})


def real_files(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                yield member.name.rpartition("/")[2], file.read()


def test_the_module_prints_a_line_of_json_for_each_file() -> None:
    files = sorted(DATA.glob("real/*.Dockerfile"))[:2]
    command = [sys.executable, "-m", "builder.dockerfile", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [file.name for file in files]


# --- BuildKit's parser cases --------------------------------------------------------------------------------------


def as_buildkit_dumps(node: Node) -> str:
    head = node.keyword.lower()
    if node.flags:
        head += f" [{' '.join(map(quoted, node.flags))}]"
    if node.child:
        return f"{head} ({as_buildkit_dumps(node.child)})"
    return " ".join([head, *map(quoted, node.args)])


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\\u0000", "\\x00")


@pytest.mark.parametrize("case", sorted((DATA / "parser").iterdir()), ids=lambda path: path.name)
def test_a_parser_case_gives_the_tree_buildkit_prints(case: Path) -> None:
    nodes = read_nodes((case / "Dockerfile").read_bytes()).nodes
    assert [f"({as_buildkit_dumps(node)})" for node in nodes] == (case / "result").read_text().strip().split(
        "\n"
    )


@pytest.mark.parametrize("case", sorted((DATA / "parser-negative").iterdir()), ids=lambda path: path.name)
def test_what_buildkit_rejects_is_an_error(case: Path) -> None:
    with pytest.raises(DockerfileError):
        read_nodes((case / "Dockerfile").read_bytes())


# --- BuildKit's shell tables --------------------------------------------------------------------------------------


def table(name: str) -> list[str]:
    lines = (DATA / "shell" / name).read_text().split("\n")
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("line", [row for row in table("envVarTest") if not row.startswith("W")])
def test_a_word_expands_as_in_buildkit(line: str) -> None:
    _platform, word, expected = line.split("|")
    try:
        found = Lexer().expand(word.strip(), VARIABLES)
    except WordError:
        found = "error"
    assert found == expected.strip()


def test_words_split_as_in_buildkit() -> None:
    variables: dict[str, str] = {}
    wrong = []
    for line in table("wordsTest"):
        if line.startswith("ENV "):
            key, _, value = line[4:].lstrip().partition("=")
            variables[key] = value
            continue
        word, expected = line.split("|")
        # leading blanks of a result count; the table puts one before it
        expected = expected.removeprefix(" ") if expected.startswith("  ") else expected.lstrip()
        try:
            found = ",".join(Lexer().words(word.strip(), variables))
        except WordError:
            found = "error"
        if found != expected:
            wrong.append((word, found, expected))
    assert wrong == []
