from __future__ import annotations

import pytest

from registry_client.reference import parse_reference
from runtime.registry.names import candidates, reference_of, repository_of

OWN = ("localhost:5050", "127.0.0.1:5050")


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("busybox:1", "busybox"),
        ("library/busybox", "busybox"),
        ("shop/app:1", "shop/app"),
        ("quay.io/a/b:1", "quay.io/a/b"),
        ("localhost/app", "localhost/app"),
        ("localhost:5050/app", "app"),
        ("127.0.0.1:5050/shop/app", "shop/app"),
        ("localhost:5051/shop/app", None),
        ("registry.example.com:5000/app", None),
    ],
)
def test_a_reference_is_served_as_one_repository_or_not_at_all(
    reference: str, repository: str | None
) -> None:
    assert repository_of(parse_reference(reference), OWN) == repository


@pytest.mark.parametrize(
    ("repository", "references"),
    [
        ("shop/app", ["docker.io/shop/app", "localhost:5050/shop/app", "127.0.0.1:5050/shop/app"]),
        ("busybox", ["docker.io/library/busybox", "localhost:5050/busybox", "127.0.0.1:5050/busybox"]),
        (
            "library/busybox",
            ["docker.io/library/busybox", "localhost:5050/busybox", "127.0.0.1:5050/busybox"],
        ),
        ("quay.io/a/b", ["quay.io/a/b", "localhost:5050/quay.io/a/b", "127.0.0.1:5050/quay.io/a/b"]),
    ],
)
def test_a_repository_is_looked_for_under_its_plain_name_first(
    repository: str, references: list[str]
) -> None:
    assert [each.name for each in candidates(repository, OWN)] == references
    for each in candidates(repository, OWN):
        assert repository_of(each, OWN) == reference_of(repository).familiar_name


@pytest.mark.parametrize("name", ["", "Shop", "a//b", "a:5000/b", "app:1", "../x", "a" * 256, "f" * 64])
def test_what_is_no_repository_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        reference_of(name)
