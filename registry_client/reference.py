"""Image references: `[host[:port]/]path[:tag][@digest]` (distribution reference grammar; FEATURES C-9)."""

from __future__ import annotations

import re

from registry_client.oci.digest import Digest, parse_digest
from registry_client.values import frozen, replace

DOCKER_HUB = "docker.io"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NAME_LIMIT = 255


@frozen
class Reference:
    """A fully spelled reference. `str()` is canonical (`docker.io/library/busybox:latest`), `familiar` is short."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        if self.domain != DOCKER_HUB:
            return self.name
        short = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
        # A first part that looks like a host would be taken for one.
        return short if _split_domain(short) == (self.domain, self.path) else self.name

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    @property
    def selector(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        return replace(self, digest=digest)

    def or_latest(self) -> Reference:
        """The same reference with tag `latest` where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")


def parse_reference(text: str) -> Reference:
    """Parse a reference as users write it; ValueError says which part is wrong."""
    rest, at, digest_text = text.partition("@")
    digest = parse_digest(digest_text) if at else None
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise ValueError(f"invalid tag {tag!r} in reference {text!r}")
    domain, path = _split_domain(head)
    if re.fullmatch("[a-f0-9]{64}", head):
        raise ValueError(
            f"invalid reference {text!r}: a name of 64 hex digits would be taken for an image id"
        )
    if not path or not _PATH.fullmatch(path):
        hint = ": a repository name must be lower case" if path.lower() != path else ""
        raise ValueError(f"invalid reference {text!r}{hint}")
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"invalid registry host {domain!r} in reference {text!r}")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise ValueError(f"reference {text[:40]!r}… has a name longer than {_NAME_LIMIT} characters")
    return Reference(domain, path, tag, digest)


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    if not is_host:
        return DOCKER_HUB, name if slash else f"library/{name}"
    if first in ("index.docker.io", "registry-1.docker.io"):
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest
