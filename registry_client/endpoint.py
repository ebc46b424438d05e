"""Where a registry is reached: host names, schemes, TLS material, mirrors.

Values only; nothing here connects. Plain http is for loopback, and for hosts somebody named insecure.
"""

from __future__ import annotations

import ipaddress

from registry_client.reference import DOCKER_HUB
from registry_client.values import field, frozen

DOCKER_HUB_API = "registry-1.docker.io"


@frozen
class Tls:
    """`authorities` are PEM files trusted beside the system's; certificate and key are the client's own."""

    authorities: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    verify: bool = True


@frozen
class Endpoint:
    """One way to a registry. `scheme` is "https", "http", or "" to find out at the first request.

    `prefix` is a path before the repository's name, as mirrors below one host have it.
    """

    host: str
    scheme: str = "https"
    prefix: str = ""
    tls: Tls = field(default_factory=Tls)
    insecure: bool = False

    @property
    def credential_host(self) -> str:
        return DOCKER_HUB if self.host == DOCKER_HUB_API else self.host


def endpoint_for(
    host: str, *, plain_http: bool | None = None, insecure: bool = False, tls: Tls | None = None
) -> Endpoint:
    """The endpoint of the registry named `host` in references."""
    if plain_http is True:
        scheme = "http"
    elif plain_http is None and (insecure or is_loopback(host)):
        scheme = ""
    else:
        scheme = "https"
    material = tls or Tls()
    if insecure:
        material = Tls(material.authorities, material.certificate, material.key, verify=False)
    return Endpoint(DOCKER_HUB_API if host == DOCKER_HUB else host, scheme, tls=material, insecure=insecure)


def parse_mirror(url: str, *, insecure: bool = False, tls: Tls | None = None) -> Endpoint:
    """A mirror as users write it: `https://mirror.example.com[/prefix]` or a bare host; ValueError otherwise."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    host, _, prefix = rest.strip("/").partition("/")
    if scheme not in ("", "http", "https") or not host or "@" in host or "?" in prefix:
        raise ValueError(f"invalid mirror {url!r}: want https://HOST[/PREFIX]")
    known = endpoint_for(host, insecure=insecure, tls=tls)
    return Endpoint(known.host, scheme or known.scheme, prefix, known.tls, insecure)


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` can only be this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and host[-1] != "]" else host
    name = name.strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
