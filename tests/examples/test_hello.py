"""examples/hello as a new user runs it: build, test, push, deploy; once more all CACHED; broken, unhealthy, back again."""

from __future__ import annotations

import urllib.request

import pytest

from tests.examples.conftest import Example

pytestmark = [pytest.mark.linux, pytest.mark.examples]


def page(example: Example, path: str = "") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{example.port}/{path}", timeout=30) as answer:
        return str(answer.read().decode())


def outcomes(output: str) -> list[str]:
    """The last word on every node: DONE, CACHED, FAILED …"""
    words = ("DONE", "CACHED", "FAILED", "SKIPPED", "ERROR")
    return [
        line.split()[1] for line in output.splitlines() if line.startswith("#") and line.split()[1] in words
    ]


def test_the_main_job_runs_and_the_second_time_all_is_cached(hello: Example) -> None:
    assert "no mistakes" in hello.run("lint")
    hello.run("build")
    assert "hello from pipe" in hello.run("test")
    first = hello.run("deploy", "local")
    assert f"127.0.0.1:{hello.port}" in first
    assert "hello from pipe" in page(hello)
    assert page(hello, "version").strip() == "1.0"
    assert set(outcomes(hello.run("test"))) == {"CACHED"}
    assert "FAILED" not in (again := hello.run("deploy", "local")) and "CACHED" in again
    assert "hello-local-web-1" in hello.run("ps")


def test_a_broken_test_blocks_push_and_deploy(hello: Example) -> None:
    hello.edit("tests/smoke.sh", "hello from pipe", "no such greeting")
    assert "the page does not greet" in hello.run("test", expect=1)
    hello.run("deploy", "local", expect=1)
    assert hello.run("ps", "-aq").split() == []
    assert "hello/web" not in hello.run("images")


def test_an_unhealthy_release_brings_the_old_one_back_and_rollback_the_one_before(hello: Example) -> None:
    hello.run("deploy", "local")
    hello.environment["HELLO_VERSION"] = "2.0"
    hello.run("deploy", "local")
    assert page(hello, "version").strip() == "2.0"
    # The stages pass, but the deployed container cannot serve: the gate must notice.
    hello.edit("pipe.yaml", "        restart: unless-stopped", "        command: [sleep, '60']")
    hello.edit("pipe.yaml", "timeout: 30s", "timeout: 5s")
    hello.run("deploy", "local", expect=1)
    assert page(hello, "version").strip() == "2.0"
    hello.run("rollback", "local")
    assert page(hello, "version").strip() == "1.0"
