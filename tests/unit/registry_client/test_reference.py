from __future__ import annotations

import pytest

from registry_client.reference import parse_reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("shop/app", "docker.io/shop/app", "shop/app"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("registry-1.docker.io/shop/app:1", "docker.io/shop/app:1", "shop/app:1"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("myhost:5000/app", "myhost:5000/app", "myhost:5000/app"),
        ("quay.io/a/b/c", "quay.io/a/b/c", "quay.io/a/b/c"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f", "a__b/c--d/e.f"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}", f"app@sha256:{HEX}"),
        (f"app:1@sha256:{HEX}", f"docker.io/library/app:1@sha256:{HEX}", f"app:1@sha256:{HEX}"),
    ],
)
def test_a_reference_has_a_canonical_and_a_short_form(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert parse_reference(canonical) == reference
    assert parse_reference(familiar) == reference


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid reference"),
        ("App", "lower case"),
        ("shop/App:1", "lower case"),
        ("app:", "invalid tag"),
        ("app:-x", "invalid tag"),
        ("app:" + "x" * 129, "invalid tag"),
        ("a//b", "invalid reference"),
        ("/app", "invalid reference"),
        ("app/", "invalid reference"),
        ("a..b", "invalid reference"),
        ("a___b", "invalid reference"),
        ("-app", "invalid reference"),
        (HEX, "64 hex digits"),
        ("app@sha256:123", "want 64"),
        ("app@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("app@", "invalid digest"),
        ("host:port/app", "invalid registry host"),
        ("x/" * 130 + "app", "longer than 255"),
        ("app 1", "invalid reference"),
        ("app\n", "invalid reference"),
    ],
)
def test_a_wrong_reference_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_reference(text)


def test_a_registry_is_asked_for_the_digest_before_the_tag() -> None:
    assert parse_reference("app").selector == "latest"
    assert parse_reference("app:1").selector == "1"
    assert parse_reference(f"app:1@sha256:{HEX}").selector == f"sha256:{HEX}"


def test_latest_is_added_only_where_nothing_else_selects() -> None:
    assert str(parse_reference("app").or_latest()) == "docker.io/library/app:latest"
    assert parse_reference("app:1").or_latest().tag == "1"
    assert parse_reference(f"app@sha256:{HEX}").or_latest().tag == ""
