"""Source policies and pins with real downloads and a foreign registry (FEATURES A-101)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builder import build, config_of, run_pipe, write_files
from tests.support.fake_registry import Answer, fake_registry
from tests.support.registry import docker_registry

pytestmark = pytest.mark.linux


def pushed(root: Path, context: Path, name: str, content: str) -> str:
    """An image at the registry and not here; its id."""
    write_files(context, {"Dockerfile": f"FROM scratch\nLABEL content={content}\n"})
    return build(root, context, "-o", f"type=registry,name={name}")


def test_pins_have_the_next_build_take_what_this_one_took(root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "pins.json"
    with docker_registry(tmp_path) as registry, fake_registry() as server:
        content = b"first"
        server.answer = lambda asked: Answer(body=content)
        base = f"{registry.host}/base:1"
        pushed(root, tmp_path / "base", base, "first")
        url = f"http://{server.host}/file"
        context = write_files(tmp_path / "c", {"Dockerfile": f"FROM {base}\nADD {url} /file\n"})
        new = tmp_path / "new"
        run_pipe(new, "build", "--pin-lock", str(lock), str(context))
        rules = {
            each["selector"]["identifier"]: each["updates"] for each in json.loads(lock.read_text())["rules"]
        }
        assert set(rules) == {f"docker-image://{base}", url}
        assert rules[f"docker-image://{base}"]["identifier"].startswith(f"docker-image://{base}@sha256:")

        pushed(root, tmp_path / "base", base, "second")
        pinned = ("--source-policy-file", str(lock))
        image = build(tmp_path / "newer", context, *pinned)
        assert config_of(tmp_path / "newer", image)["config"]["Labels"] == {"content": "first"}
        image = build(tmp_path / "newest", context)
        assert config_of(tmp_path / "newest", image)["config"]["Labels"] == {"content": "second"}

        content = b"second"
        failed = run_pipe(tmp_path / "last", "build", *pinned, str(context), code=None)
        assert failed.returncode != 0
        assert b"has digest sha256:" in failed.stderr


def test_the_policy_of_buildx_variable_is_kept_too(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM scratch\nADD https://example.org/x /x\n"})
    rules = [{"action": "DENY", "selector": {"identifier": "https://example.org/*"}}]
    policy = write_files(tmp_path / "p", {"p.json": json.dumps({"rules": rules})}) / "p.json"
    env = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(policy)}
    failed = run_pipe(root, "build", str(context), env=env, code=None)
    assert failed.returncode != 0
    assert b"Dockerfile:2:1: source 'https://example.org/x' is denied" in failed.stderr


@pytest.mark.parametrize("name", ["dockerfile", "context"])
def test_files_of_this_machine_can_be_denied_as_well(root: Path, tmp_path: Path, name: str) -> None:
    context = write_files(tmp_path / "c", {"Dockerfile": "FROM scratch\nLABEL a=b\n"})
    rules = [{"action": "DENY", "selector": {"identifier": f"local://{name}"}}]
    policy = write_files(tmp_path / "p", {"p.json": json.dumps({"rules": rules})}) / "p.json"
    failed = run_pipe(root, "build", "--source-policy-file", str(policy), str(context), code=None)
    assert failed.returncode != 0
    assert b"denied by the source policy" in failed.stderr
