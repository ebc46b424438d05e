"""`pipe bake`: targets built together, one from the other's result (FEATURES B-21)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builder import config_of, run_pipe, write_files

pytestmark = pytest.mark.linux
FILE = {
    "variable": {"V": {"default": "1"}},
    "group": {"default": {"targets": ["app", "other"]}},
    "target": {
        "lib": {"context": "lib", "args": {"V": "${V}"}, "tags": ["bake-lib:1"]},
        "app": {
            "context": "app",
            "dockerfile": "App",
            "contexts": {"lib": "target:lib"},
            "tags": ["bake-app:1"],
        },
        "other": {"dockerfile-inline": "FROM base:1\nLABEL other=${V}\n", "tags": ["bake-other:1"]},
    },
}
FILES = {
    "docker-bake.json": json.dumps(FILE),
    "lib/Dockerfile": "FROM base:1\nARG V\nRUN echo lib $V > /made\n",
    "app/App": "FROM base:1\nCOPY --from=lib /made /made\nRUN grep -q 'lib 2' /made\nLABEL app=yes\n",
}


def test_targets_are_built_in_their_order_and_known_by_their_names(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", FILES)
    run_pipe(root, "bake", "--metadata-file", "meta.json", cwd=context, env={"V": "2"})
    assert config_of(root, "bake-app:1")["config"]["Labels"]["app"] == "yes"
    assert config_of(root, "bake-other:1")["config"]["Labels"]["other"] == "2"
    # Nobody asked for `lib`: it is only looked into.
    run_pipe(root, "inspect", "bake-lib:1", code=1)
    assert set(json.loads((context / "meta.json").read_text())) == {"app", "lib", "other"}
    run_pipe(root, "bake", "lib", "--set", "lib.tags=bake-lib:2", cwd=context)
    config_of(root, "bake-lib:2")


def test_a_target_that_fails_is_named_and_what_needs_it_is_not_started(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", {**FILES, "lib/Dockerfile": "FROM base:1\nRUN exit 7\n"})
    failed = run_pipe(root, "bake", "app", cwd=context, code=1)
    assert b"exit code 7" in failed.stderr
    assert b"bake app" not in failed.stderr
    circle = {"a": {"contexts": {"x": "target:b"}}, "b": {"contexts": {"x": "target:a"}}}
    write_files(context, {"circle.json": json.dumps({"target": circle})})
    assert b"take each other" in run_pipe(root, "bake", "-f", "circle.json", "a", cwd=context, code=2).stderr
    wrong = run_pipe(root, "bake", "--set", "app.platform=a/b/c/d", "app", cwd=context, code=2)
    assert b"target app: --platform" in wrong.stderr


def test_what_is_only_needed_by_others_is_not_pushed(root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", FILES)
    # Nobody listens at port 1: the push of `app` is tried, and that of `lib`, which has no name for it, is not.
    tags = ("--set", "app.tags=127.0.0.1:1/app:1")
    failed = run_pipe(root, "bake", "app", "--push", *tags, cwd=context, env={"V": "2"}, code=3)
    assert b"127.0.0.1:1" in failed.stderr
    assert b"a push needs a name" not in failed.stderr


def test_each_platform_takes_the_result_for_its_own(fresh_root: Path, tmp_path: Path) -> None:
    both = ["linux/amd64", "linux/arm64"]
    lib = {"dockerfile-inline": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", "platforms": both}
    app = {"dockerfile-inline": "FROM scratch\nCOPY --from=lib /arch /a\n", "platforms": both}
    taking = {**app, "contexts": {"lib": "target:lib"}, "output": ["type=local,dest=out"]}
    files = {"docker-bake.json": json.dumps({"target": {"default": taking, "lib": lib}})}
    context = write_files(tmp_path / "c", {**files, "amd64": "one", "arm64": "other"})
    run_pipe(fresh_root, "bake", cwd=context)
    found = {place.name: (place / "a").read_text() for place in (context / "out").iterdir()}
    assert found == {"linux_amd64": "one", "linux_arm64": "other"}


def test_printing_needs_no_store(fresh_root: Path, tmp_path: Path) -> None:
    context = write_files(tmp_path / "c", FILES)
    printed = json.loads(run_pipe(fresh_root, "bake", "--print", "app", cwd=context).stdout)
    assert printed["group"] == {"default": {"targets": ["app"]}}
    assert printed["target"]["lib"]["output"] == [{"type": "cacheonly"}]
    assert not fresh_root.exists()
