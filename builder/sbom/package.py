"""One piece of software that was found, and what was not. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.attest.purl import purl
from registry_client.values import frozen


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """`kind` is the purl's type; `place` the file that told of it, from the root on."""

    kind: str
    name: str
    version: str
    namespace: str = ""
    license: str = ""
    supplier: str = ""
    place: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()

    @property
    def purl(self) -> str:
        return purl(
            self.kind, self.name, self.version, namespace=self.namespace, qualifiers=dict(self.qualifiers)
        )


@frozen
class Distribution:
    """What `/etc/os-release` says."""

    id: str = ""
    version: str = ""
    name: str = ""

    def qualifiers(self, **more: str) -> tuple[tuple[str, str], ...]:
        """Of a package of this distribution; empty ones are left out."""
        distro = "-".join(filter(None, (self.id, self.version))) if self.id else ""
        found: Mapping[str, str] = {**more, "distro": distro}
        return tuple(sorted((key, value) for key, value in found.items() if value))


@dataclass(slots=True)
class Findings:
    """Filled by the readers. `notes` are for people: what was there but could not be read."""

    packages: set[Package] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
