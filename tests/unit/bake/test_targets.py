"""Bake files as buildx reads them: what its `--print` gives for the same text was looked at (buildx 0.29)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.bake.compose import parse_compose
from pipeline.bake.definition import Definition
from pipeline.bake.evaluated import evaluated
from pipeline.bake.files import load_definition, parse_json
from pipeline.bake.request import flags_of
from pipeline.bake.targets import Baking, resolve_targets
from pipeline.cli.build_table import parse
from runtime.errors import InvalidInput, NotFound, PipeError, Unsupported

FILE = {
    "variable": {"TAG": {"default": "latest"}, "DEBUG": {"default": False}},
    "group": {"default": {"targets": ["app", "all"]}, "all": {"targets": ["variants", "app"]}},
    "target": {
        "common": {"labels": {"x": "${TAG}", "q": "1"}, "args": {"V": "1", "W": "2"}, "secret": ["id=a"]},
        "lib": {"inherits": ["common"], "context": "lib", "tags": ["lib:${TAG}"]},
        "app": {
            "inherits": ["common"],
            "contexts": {"lib": "target:lib", "src": "./src"},
            "tags": ["app:${TAG}", "app:$${x}"],
            "args": {"W": None, "D": "${DEBUG}"},
            "labels": {"q": "2"},
            "secret": [{"id": "b", "src": "f,g"}],
        },
        "variants": {
            "inherits": ["lib"],
            "name": "v-${item.n}-${p}",
            "matrix": {"item": [{"n": "a", "arg": "AA"}, {"n": "b", "arg": "BB"}], "p": ["x", "y"]},
            "args": {"V": "${item.arg}"},
            "tags": ["v:${item.n}-${p}"],
        },
    },
}


def resolved(
    *names: str, settings: Sequence[str] = (), env: Mapping[str, str] = {}, file: Mapping[str, Any] = FILE
) -> Baking:
    definition = evaluated([parse_json(json.dumps(file), "bake.json")], env)
    return resolve_targets(definition, names, settings, env)


def test_parents_come_first_and_null_says_nothing() -> None:
    app = resolved("app").targets["app"]
    assert app["labels"] == {"x": "latest", "q": "2"}
    assert app["args"] == {"V": "1", "W": "2", "D": "false"}
    assert app["tags"] == ["app:latest", "app:${x}"]
    assert app["secret"] == ["id=a", 'id=b,"src=f,g"']  # merged, and an object is what a flag would say


def test_a_group_gives_its_targets_and_a_context_the_target_it_takes() -> None:
    baking = resolved(env={"TAG": "t1"})
    assert baking.asked == ("app", "v-a-x", "v-b-x", "v-a-y", "v-b-y")
    assert set(baking.targets) == {*baking.asked, "lib"}
    assert baking.targets["lib"]["tags"] == ["lib:t1"]
    assert baking.targets["v-b-y"]["args"]["V"] == "BB"
    assert baking.groups["default"] == ("all", "app")
    assert resolved("all").asked[-1] == "app"


def test_settings_override_by_pattern() -> None:
    settings = [
        "*.args.V=9", "app.tags=z:1", "app.tags=z:2", "app.labels.n", "app.platform=linux/arm64", "v-*.no-cache=true",
        "app.secrets+=id=c",
    ]  # fmt: skip
    baking = resolved(settings=settings, env={"n": "from outside"})
    app = baking.targets["app"]
    assert (app["args"]["V"], baking.targets["lib"]["args"]["V"]) == ("9", "9")
    assert app["tags"] == ["z:1", "z:2"]
    assert app["labels"]["n"] == "from outside"
    assert app["platforms"] == ["linux/arm64"]
    assert baking.targets["v-a-x"]["no-cache"] is True
    assert app["secret"][-1] == "id=c" and len(app["secret"]) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": {"a": {"contxt": "x"}}}, "unknown attribute 'contxt'"),
        ({"target": {"a": {"tags": "x"}}}, "is not a list"),
        ({"target": {"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}}, "inherits from itself"),
        ({"target": {"a": {"inherits": ["nope"]}}}, "no target or group 'nope'"),
        ({"target": {"a": {"context": "${NOPE}"}}}, "no variable 'NOPE'"),
        ({"target": {"a": {"context": '${uper("x")}'}}}, "no function 'uper'"),
        ({"target": {"a": {"matrix": {"i": ["1", "2"]}}}}, "gives 'a' twice"),
        ({"target": {"a": {"matrix": {"i": ["1.2"]}, "name": "a-${i}"}}}, "the name 'a-1.2'"),
        ({"group": {"a": {"targets": ["a"]}}}, "contains itself"),
        ({"target": []}, "no target or group 'a'"),
        ({"function": {"f": {}}}, "needs `params` and `result`"),
        ({"group": {"a": {}}}, "has no list"),
    ],
)
def test_a_mistake_is_named(change: Mapping[str, Any], said: str) -> None:
    with pytest.raises(PipeError) as caught:
        resolved("a", file=change)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "setting", ["app", "app.nope=1", "app.args=1", "app.tags.x=1", "app.tags", "ap.tags=1", "app.name=x"]
)
def test_a_setting_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        resolved("app", settings=[setting])


def test_later_files_win_and_maps_are_merged() -> None:
    bodies = [
        parse_json(json.dumps({"target": {"a": target}, "group": {"g": {"targets": [name]}}}), "f")
        for target, name in (
            ({"args": {"A": "1", "B": "1"}, "tags": ["one"], "cache-from": ["x"]}, "a"),
            ({"args": {"B": "2"}, "tags": ["two"], "cache-from": ["y"]}, "b"),
        )
    ]
    both = evaluated(bodies, {})
    assert both.targets["a"] == {"args": {"A": "1", "B": "2"}, "tags": ["two"], "cache-from": ["x", "y"]}
    assert both.groups["g"] == ("b",)


COMPOSE = """
services:
  db: {image: postgres}
  web:
    image: shop/web:${TAG:-dev}
    build:
      context: web
      dockerfile: ../D
      args: {A: "${A-defA}", B: , C: "$$x"}
      labels: [l=1, "m=${TAG:?}"]
      additional_contexts: {base: "service:base", src: ./src}
      secrets: [tok, {source: envsec, target: es}]
      extra_hosts: ["h:1.2.3.4"]
      x-bake: {output: "type=oci,dest=o.tar"}
  base:
    build: ./web
secrets:
  tok: {file: ./tok.txt}
  envsec: {environment: TOK}
"""


def compose(text: str = COMPOSE, env: Mapping[str, str] = {"TAG": "t", "B": "bb"}) -> Definition:
    return parse_compose(text, "compose.yaml", "sub", env)


def test_services_that_are_built_are_targets() -> None:
    found = compose()
    assert found.groups == {"default": ("web", "base")}
    assert found.targets["web"] == {
        "dockerfile": "../D",
        "context": "sub/web",
        "args": {"A": "defA", "B": "bb", "C": "$x"},
        "labels": {"l": "1", "m": "t"},
        "extra-hosts": {"h": "1.2.3.4"},
        "contexts": {"base": "target:base", "src": "sub/src"},
        "secret": ["id=tok,src=sub/tok.txt", "id=envsec,env=TOK"],
        "tags": ["shop/web:t"],
        "output": ["type=oci,dest=o.tar"],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {a: {build: {contxt: x}}}", "unknown key 'contxt'"),
        ("services: {a: {build: {secrets: [x]}}}", "secret 'x' is not among"),
        ("services: {a: {build: {context: '${X:?gone}'}}}", "X: gone"),
        ("services: {a: {build: {context: '${'}}}", "before no name"),
        ("services: [", "is not YAML"),
        ("a: 1", "has no `services`"),
        ("services: {a: {build: ., extends: {service: b}}}", "extends is not followed"),
        ("include: [x.yaml]\nservices: {a: {build: .}}", "include is not followed"),
    ],
)
def test_a_mistake_in_a_compose_file_is_named(text: str, said: str) -> None:
    with pytest.raises(PipeError) as caught:
        compose(text, {})
    assert said in caught.value.message


def test_files_from_elsewhere_are_refused() -> None:
    with pytest.raises(Unsupported, match="are not read"):
        load_definition(["https://example.org/docker-bake.hcl"], {})


def test_a_target_is_what_the_flags_of_build_would_be() -> None:
    target = {
        "context": "https://h/c.git",
        "dockerfile": "D",
        "tags": ["a:1"],
        "args": {"A": "1", "N": None},
        "pull": True,
    }
    context, flags = flags_of(target, parse(["--push"])[1], {"n": "docker-image://x"})
    assert (context, flags["file"], flags["tag"], flags["build_arg"]) == (
        "https://h/c.git",
        "D",
        ("a:1",),
        ("A=1",),
    )
    assert flags["build_context"] == ("n=docker-image://x",)
    assert flags["push"] and flags["pull"] and not flags["no_cache"]
