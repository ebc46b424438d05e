"""Packages of the distribution, from the text databases of dpkg and apk."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from builder.sbom.files import RootFiles, text_of
from builder.sbom.package import Distribution, Findings, Package

_DPKG_STATUS, _DPKG_PARTS = "var/lib/dpkg/status", "var/lib/dpkg/status.d"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")


def read_distribution(files: RootFiles) -> Distribution:
    """Which distribution the root is of."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        if (data := files.read(name, 1 << 20)) is not None:
            fields = dict(_assignments(text_of(data)))
            return Distribution(fields.get("ID", ""), fields.get("VERSION_ID", ""), fields.get("NAME", ""))
    return Distribution()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals or name.lstrip().startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:  # an open quote: the line is no assignment
            continue
        yield name.strip(), words[0] if words else ""


# --- dpkg ---------------------------------------------------------------------------------------------------------


def read_dpkg(files: RootFiles, distribution: Distribution, found: Findings) -> None:
    """dpkg's status, and the files of status.d that images without dpkg have instead (distroless)."""
    if (data := files.read(_DPKG_STATUS)) is not None:
        for fields in _paragraphs(text_of(data)):
            if fields.get("Status", "").split()[-1:] == ["installed"]:
                _add_dpkg(fields, _DPKG_STATUS, distribution, found)
    for name in files.names(_DPKG_PARTS):
        place = f"{_DPKG_PARTS}/{name}"
        if not name.endswith(".md5sums") and (data := files.read(place)) is not None:
            for fields in _paragraphs(text_of(data)):
                _add_dpkg(fields, place, distribution, found)


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Paragraphs of `Name: value` lines (deb822); what is continued on further lines is not needed here."""
    fields: dict[str, str] = {}
    for line in (*text.splitlines(), ""):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            fields[name] = value.strip()


def _add_dpkg(fields: dict[str, str], place: str, distribution: Distribution, found: Findings) -> None:
    name, version = fields.get("Package", ""), fields.get("Version", "")
    if not name or not version:
        return
    source, _, source_version = fields.get("Source", "").partition(" ")
    upstream = f"{source}@{source_version.strip('()') or version}" if source else ""
    found.packages.add(
        Package(
            kind="deb",
            name=name.lower(),
            version=version,
            namespace=distribution.id or "debian",
            supplier=fields.get("Maintainer", ""),
            place=place,
            qualifiers=distribution.qualifiers(arch=fields.get("Architecture", ""), upstream=upstream),
        )
    )


# --- apk ----------------------------------------------------------------------------------------------------------


def read_apk(files: RootFiles, distribution: Distribution, found: Findings) -> None:
    """apk's `installed`: one letter, a colon, a value; packages parted by an empty line."""
    for place in _APK:
        if (data := files.read(place)) is not None:
            for fields in _apk_records(text_of(data)):
                _add_apk(fields, place, distribution, found)
            return  # the other is the same, through a link


def _apk_records(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in (*text.splitlines(), ""):
        if not line:
            if fields:
                yield fields
            fields = {}
        else:
            fields.setdefault(line[:1], line[2:].strip())


def _add_apk(fields: dict[str, str], place: str, distribution: Distribution, found: Findings) -> None:
    if not fields.get("P") or not fields.get("V"):
        return
    upstream = fields.get("o", "")
    found.packages.add(
        Package(
            kind="apk",
            name=fields["P"].lower(),
            version=fields["V"],
            namespace=distribution.id or "alpine",
            license=fields.get("L", ""),
            supplier=fields.get("m", ""),
            place=place,
            qualifiers=distribution.qualifiers(
                arch=fields.get("A", ""), upstream=upstream if upstream != fields["P"] else ""
            ),
        )
    )
