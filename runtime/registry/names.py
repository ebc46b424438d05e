"""Repositories of the embedded registry and references of the store: which is which. Pure.

A repository's name is read as a user would write it on the command line: `shop/app` is `docker.io/shop/app`, `busybox`
is `docker.io/library/busybox`, `quay.io/a/b` is itself. So what was built as `shop/app:1` can be pulled from
`localhost:PORT/shop/app:1`, and what is pushed there is `shop/app:1` for `pipe run`. Names that begin with one of the
registry's own addresses (`localhost:5050/shop/app`) mean the same repository and come second. Names of other
registries with a port cannot be repositories and are not served.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry_client.reference import Reference, parse_reference
from registry_client.values import replace


def reference_of(repository: str) -> Reference:
    """The reference a repository stands for; ValueError when it is no valid name."""
    reference = parse_reference(repository)
    if reference.tag or reference.digest or ":" in reference.domain:
        raise ValueError(f"invalid repository name {repository!r}")
    return reference


def repository_of(reference: Reference, own_hosts: Iterable[str]) -> str | None:
    """The repository that serves a reference, None if none does."""
    if reference.domain in own_hosts:
        bare = f"{reference.path}"
        return reference_of(bare).familiar_name
    if ":" in reference.domain:
        return None
    return replace(reference, tag="", digest=None).familiar_name


def candidates(repository: str, own_hosts: Iterable[str]) -> tuple[Reference, ...]:
    """The references a repository's tags may be filed under in the store, first choice first."""
    first = reference_of(repository)
    return (first, *(Reference(host, first.familiar_name) for host in own_hosts))
