"""Bake files in HCL: for every case in tests/data/bake what `docker buildx bake --print` gave (buildx 0.29), recorded beside it.

A case without a record is one that buildx refuses. `args:` are the command's, `env:` its environment, `--- NAME` begins a file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.bake.evaluated import evaluated
from pipeline.bake.files import load_definition
from pipeline.bake.hcl.parser import parse_hcl
from pipeline.bake.targets import resolve_targets
from pipeline.cli.bake import printed
from runtime.errors import InvalidInput, PipeError

DATA = Path(__file__).parents[2] / "data" / "bake"
CASES = sorted(path.stem for path in DATA.glob("*.case"))


def play(name: str, directory: Path) -> dict[str, Any]:
    """What we would print for a case."""
    arguments: list[str] = []
    env: dict[str, str] = {}
    current: list[str] = []
    files: dict[str, list[str]] = {}
    for line in (DATA / f"{name}.case").read_text().splitlines(keepends=True):
        if line.startswith("--- "):
            current = files.setdefault(line[4:].strip(), [])
        elif not files and line.startswith("args: "):
            arguments = line[6:].split()
        elif not files and line.startswith("env: "):
            env = dict(pair.split("=", 1) for pair in line[5:].split())
        else:
            current.append(line)
    for title, lines in files.items():
        (directory / title).write_text("".join(lines))
    given: dict[str, list[str]] = {"-f": [], "--set": [], "": []}
    words = iter(arguments)
    for word in words:
        given[word if word in given else ""].append(next(words) if word in given else word)
    definition = load_definition(given["-f"], env)
    return printed(resolve_targets(definition, given[""], given["--set"], env))


@pytest.mark.parametrize("name", CASES)
def test_a_bake_file_means_what_buildx_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recorded = DATA / f"{name}.json"
    if recorded.exists():
        assert play(name, tmp_path) == json.loads(recorded.read_text())
        return
    with pytest.raises(PipeError):
        play(name, tmp_path)


def worked_out(expression: str) -> Any:
    body = parse_hcl(f'target "a" {{ args = {{ v = jsonencode({expression}) }} }}\n', "f.hcl")
    return json.loads(evaluated([body], {}).targets["a"]["args"]["v"])


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('semvercmp("1.2.3", ">= 1.2")', True),
        ('semvercmp("1.2.3", "< 1.2")', False),
        ('semvercmp("1.3.0", "~1.2.0")', False),
        ('semvercmp("1.9.0", "^1.2")', True),
        ('semvercmp("2.0.0", "^1.2")', False),
        ('semvercmp("0.3.0", "^0.2.1")', False),
        ('semvercmp("1.2.3", "1.2.x")', True),
        ('semvercmp("1.2.3", ">1.0, <2")', True),
        ('semvercmp("3.0.0", "^1 || ^3")', True),
        ('semvercmp("1.2.3-beta", ">= 1.2.0")', False),
        ('semvercmp("1.2.3-beta.2", "> 1.2.3-beta.1")', True),
        ('semvercmp("v1.2.3", "!=1.2.4")', True),
        ("unixtimestampparse(1690328596).rfc3339", "2023-07-25T23:43:16Z"),
        ("unixtimestampparse(1690328596).iso_week", 30),
        ('basename(homedir()) == ""', False),
    ],
)
def test_functions_of_later_versions_of_buildx(expression: str, value: Any) -> None:
    assert worked_out(expression) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\na = 2\n", "f.hcl:2: 'a' is set twice"),
        ('target "default" {\n  args = {\n    a = nope\n  }\n}\n', "f.hcl:3: no variable 'nope'"),
        ('target "default" {\n  contxt = 1\n}\n', "unknown attribute 'contxt'"),
        ('target "default" { args = { a = <<EOT\nnever ends\n} }\n', "no line 'EOT'"),
        ('target "default" { args = { a = "no end\n" } }\n', "before the line ends"),
        ('target "default" { args = { a = "%{ while }" } }\n', "'while' is no directive"),
        ('target "default" { args = { a = "%{ if true }x" } }\n', "want %{ endif }"),
        ('target "default" { args = { a = "x${[]}" } }\n', "want text, not a list"),
        ('target "default" { args = { a = 1 + "x" } }\n', "want a number, not 'x'"),
        ('target "default" { args = { a = 1 / 0 } }\n', "division by zero"),
        ('target "default" { args = { a = 1 % 0 } }\n', "%: "),
        ('target "default" { args = { a = 1e999 } }\n', "not so large"),
        ('target "default" { args = { a = pow(10, 100000) } }\n', "pow: "),
        ('target "default" { args = { a = [1][3] } }\n', "there is no item 3 in 1"),
        ('target "default" { args = { a = "\\q" } }\n', "want an escape sequence"),
        ('function "f" {\n params = [x]\n result = f(x)\n}\nx = f(1)\n', "need each other"),
        ('service "a" {}\n', "unknown block 'service'"),
        ('x = rsadecrypt("a", "b")\n', "is not there"),
        ("x = " + "(" * 5000 + "1" + ")" * 5000, "nested too deep"),
        ("x = " + "!" * 50_000 + "true", "nested too deep"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(PipeError) as caught:
        evaluated([parse_hcl(text, "f.hcl")], {})
    assert said in caught.value.message
    assert isinstance(caught.value, InvalidInput) or "not there" in said


def test_a_large_file_is_read_in_linear_time() -> None:
    text = "".join(f'target "t{n}" {{\n  args = {{ v = "${{upper("x")}}{n}" }}\n}}\n' for n in range(2000))
    assert evaluated([parse_hcl(text, "f.hcl")], {}).targets["t1999"]["args"] == {"v": "X1999"}
