"""examples/web and examples/oss: real apt-get and pip traffic inside containers. Minutes: `make test-slow`."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.conftest import Example, copy_of
from tests.support import REPOSITORY

pytestmark = [
    pytest.mark.linux,
    pytest.mark.examples,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system's tar of the Debian base, made once for both."""
    keep = tmp_path_factory.mktemp("base")
    example = Example(REPOSITORY / "examples" / "base", keep / "root", 0)
    subprocess.run(
        [str(REPOSITORY / "examples/base/make"), str(keep)], env=example.environment, check=True, timeout=900
    )
    return keep


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, base: Path) -> Iterator[Example]:
    example = copy_of(request.param, tmp_path)
    subprocess.run(
        [str(REPOSITORY / "examples/base/make"), str(base)], env=example.environment, check=True, timeout=300
    )
    try:
        yield example
    finally:
        example.down()


@pytest.mark.parametrize("example", ["web"], indirect=True)
def test_web_goes_green_deploys_and_a_broken_test_blocks_it(example: Example) -> None:
    output = example.run("deploy", "local", timeout=1500)
    assert "9 passed" in output
    with urllib.request.urlopen(f"http://127.0.0.1:{example.port}/health", timeout=30) as answer:
        assert json.load(answer) == {"status": "ok", "products": 0}
    example.edit("tests/test_product.py", 'Product("tea", 250)', 'Product("coffee", 250)')
    failed = example.run("deploy", "local", expect=1, timeout=600)
    assert "test_a_name_is_trimmed" in failed
    with urllib.request.urlopen(f"http://127.0.0.1:{example.port}/health", timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("example", ["oss"], indirect=True)
def test_oss_runs_an_unchanged_releases_own_suite_in_a_matrix_of_two(example: Example) -> None:
    output = example.run("test", timeout=1500)
    assert output.count("stage suite") >= 2
    assert "2 stages done" in output
