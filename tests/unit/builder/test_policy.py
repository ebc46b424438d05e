"""Source policies. What each rule does was looked at with docker 28.5 (EXPERIMENTAL_BUILDKIT_SOURCE_POLICY)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.dockerfile import parse_dockerfile
from builder.graph import GitSource, HttpSource, ImageSource
from builder.lower import bases
from builder.lower.permitted import git_identifier
from builder.lower.remotes import parse_git
from builder.policy import CHECKSUM, Source, SourcePolicy, parse_policy
from builder.solver import reachable
from runtime.errors import Denied, InvalidInput, PipeError, Unsupported
from tests.support.dockerfile import lowered, options_with

BUSYBOX = "docker-image://docker.io/library/busybox:1"


def rule(action: Any, identifier: str, to: str = "", kind: Any = 0, **attrs: str) -> dict[str, Any]:
    updates = {"identifier": to, "attrs": attrs} if to or attrs else {}
    return {"action": action, "selector": {"identifier": identifier, "match_type": kind}, "updates": updates}


def policy(*rules: dict[str, Any]) -> SourcePolicy:
    return parse_policy(json.dumps({"rules": rules}), "p.json")


def image(*rules: dict[str, Any]) -> str:
    return policy(*rules).apply(Source(BUSYBOX)).identifier.removeprefix("docker-image://")


@pytest.mark.parametrize(
    ("rules", "taken"),
    [
        ([rule("CONVERT", BUSYBOX, "docker-image://here/b:1")], "here/b:1"),
        ([rule("CONVERT", "docker-image://docker.io/library/*:1", "docker-image://here/${1}:2")], "here/busybox:2"),
        ([rule("CONVERT", "docker-image://*/b*x:*", "docker-image://here/${2}${3}")], "here/usybo1"),
        ([rule("CONVERT", "^docker-image://docker.io/library/(\\w+):(.*)$", "docker-image://here/${1}:${2}", "REGEX")], "here/busybox:1"),
        ([rule("CONVERT", "docker-image://docker.io/library/*", "docker-image://x", "EXACT")], "docker.io/library/busybox:1"),
        ([rule("DENY", "docker-image://busybox:1")], "docker.io/library/busybox:1"),
        ([rule("DENY", "*"), rule("ALLOW", "docker-image://docker.io/library/*")], "docker.io/library/busybox:1"),
        ([rule("DENY", "docker-image://docker.io/*"), rule("CONVERT", BUSYBOX, "docker-image://here/b:1")], "here/b:1"),
        ([rule("CONVERT", BUSYBOX, "docker-image://a:1"), rule("CONVERT", "docker-image://a:1", "docker-image://b:1")], "b:1"),
        ([], "docker.io/library/busybox:1"),
        # The example of docs/builder.md.
        ([rule("DENY", "*"), rule("ALLOW", "local://*"),
          rule("CONVERT", "docker-image://docker.io/library/*", "docker-image://mirror.example.org/library/${1}"),
          rule("ALLOW", "docker-image://mirror.example.org/*")], "mirror.example.org/library/busybox:1"),
    ],
)  # fmt: skip
def test_rules_say_which_image_is_taken(rules: list[dict[str, Any]], taken: str) -> None:
    assert image(*rules) == taken


@pytest.mark.parametrize(
    "rules",
    [
        [rule("DENY", BUSYBOX)],
        [rule(1, "docker-image://*")],
        [rule("ALLOW", BUSYBOX), rule("DENY", BUSYBOX)],
        [rule("CONVERT", BUSYBOX, "docker-image://a:1"), rule("DENY", "docker-image://a:1")],
    ],
)
def test_what_is_denied_is_not_taken(rules: list[dict[str, Any]]) -> None:
    with pytest.raises(Denied, match="denied by the source policy"):
        image(*rules)


def test_rules_that_go_round_are_noticed() -> None:
    there, back = (
        rule("CONVERT", BUSYBOX, "docker-image://a:1"),
        rule("CONVERT", "docker-image://a:1", BUSYBOX),
    )
    with pytest.raises(InvalidInput, match="again and again"):
        image(there, back)


@pytest.mark.parametrize(
    ("condition", "value", "denied"),
    [("EQUAL", "x", False), ("NOTEQUAL", "x", True), ("MATCHES", "sha256:*", True), (0, "sha256:1", True)],
)
def test_a_rule_may_ask_for_an_attribute(condition: Any, value: str, denied: bool) -> None:
    asking = rule("DENY", "https://*")
    asking["selector"]["constraints"] = [{"key": CHECKSUM, "value": value, "condition": condition}]
    source = Source("https://h/f", {CHECKSUM: "sha256:1"})
    if denied:
        with pytest.raises(Denied):
            policy(asking).apply(source)
    else:
        assert policy(asking).apply(source) == source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"rules": [', "is not JSON"),
        ("[]", "is not an object"),
        ('{"rulez": []}', "unknown key 'rulez'"),
        ('{"rules": [{"action": "deny", "selector": {"identifier": "x"}}]}', "rules[0].action: 'deny'"),
        ('{"rules": [{"selector": {"identifier": "x", "matchType": "EXACT"}}]}', "unknown key 'matchType'"),
        ('{"rules": [{"action": "CONVERT", "selector": {"identifier": "x"}}]}', "CONVERT needs updates"),
        ('{"rules": [{"selector": {"identifier": "(", "match_type": "REGEX"}}]}', "is no pattern"),
        ('{"rules": [{"action": "DENY"}]}', "rules[0].selector is not an object"),
        ('{"rules": {}}', "rules is not a list"),
    ],
)
def test_a_mistake_in_a_policy_is_told(text: str, said: str) -> None:
    with pytest.raises(PipeError) as caught:
        parse_policy(text, "p.json")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("url", "identifier"),
    [
        ("https://example.org/a/b.git#main:sub", "git://example.org/a/b.git#main:sub"),
        ("https://me:token@example.org/b.git", "git://example.org/b.git"),
        ("git@example.org:a/b.git#v1", "git://example.org/a/b.git#v1"),
        ("ssh://git@example.org/b.git", "git://example.org/b.git"),
    ],
)
def test_a_repository_has_one_name_however_it_is_reached(url: str, identifier: str) -> None:
    source = parse_git(url)
    assert source is not None and git_identifier(source) == identifier


TEXT = "FROM busybox:1\nADD https://h/f /f\nADD https://h/r.git#main /r\nCOPY --from=other:2 /a /a\n"


def sources(*rules: dict[str, Any], text: str = TEXT) -> list[Any]:
    graph = lowered(text, policy=policy(*rules))
    kinds = (ImageSource, HttpSource, GitSource)
    return [each.operation for each in reachable([graph.root]) if isinstance(each.operation, kinds)]


def test_a_policy_is_asked_of_every_source_of_a_dockerfile() -> None:
    found = sources(
        rule("CONVERT", "docker-image://docker.io/library/*", "docker-image://mirror/${1}"),
        rule("CONVERT", "https://h/f", "https://h/g", **{CHECKSUM: "sha256:" + "1" * 64}),
        rule("CONVERT", "git://h/r.git#main", "git://h/r.git#" + "2" * 40),
    )
    assert {each.reference for each in found if isinstance(each, ImageSource)} == {
        "docker.io/mirror/busybox:1",
        "docker.io/mirror/other:2",
    }
    (http,) = [each for each in found if isinstance(each, HttpSource)]
    assert (http.url, http.filename, http.checksum) == ("https://h/g", "f", "sha256:" + "1" * 64)
    (git,) = [each for each in found if isinstance(each, GitSource)]
    assert (git.url, git.ref) == ("https://h/r.git", "2" * 40)


def test_a_source_that_is_denied_is_told_with_its_place() -> None:
    with pytest.raises(Denied) as caught:
        sources(rule("DENY", "https://*"))
    assert caught.value.span is not None and caught.value.span.line == 2


def test_only_images_of_stages_that_are_needed_are_asked_about() -> None:
    text = "FROM other:1 AS unused\nFROM busybox:1\n"
    options = options_with(policy=policy(rule("DENY", "docker-image://*/other:*")))
    with pytest.raises(Denied):
        bases(parse_dockerfile("FROM other:1\n"), options)
    assert [each.reference for each in bases(parse_dockerfile(text), options)] == [
        "docker.io/library/busybox:1"
    ]


def test_an_image_stays_an_image() -> None:
    with pytest.raises(Unsupported, match="in the place of an image"):
        sources(rule("CONVERT", BUSYBOX, "https://h/f"))
