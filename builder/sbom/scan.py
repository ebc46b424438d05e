"""Ask every reader what is in a root."""

from __future__ import annotations

from builder.sbom.files import RootFiles
from builder.sbom.languages import read_languages
from builder.sbom.package import Distribution, Findings, Package
from builder.sbom.rpm import read_rpm
from builder.sbom.system import read_apk, read_distribution, read_dpkg
from registry_client.values import frozen


@frozen
class Inventory:
    """Packages in order, and notes on what could not be read."""

    distribution: Distribution
    packages: tuple[Package, ...]
    notes: tuple[str, ...]


def scan(root: str) -> Inventory:
    """The software in the root file system at `root`."""
    files, found = RootFiles(root), Findings()
    distribution = read_distribution(files)
    for read in (read_dpkg, read_apk, read_rpm):
        read(files, distribution, found)
    read_languages(files, found)
    return Inventory(distribution, tuple(sorted(found.packages)), (*found.notes, *files.notes))
