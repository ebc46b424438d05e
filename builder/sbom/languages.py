"""Packages of Python, npm, Go and Maven, from what installers and linkers leave; found by walking the root once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.parser import HeaderParser
from typing import Any

from builder.sbom.files import RootFiles, text_of
from builder.sbom.golang import read_go
from builder.sbom.java import read_java
from builder.sbom.package import Findings, Package

_METADATA_LIMIT = 4 << 20
_MODULES = "node_modules"


def read_languages(files: RootFiles, found: Findings) -> None:
    """Everything Python and npm installed anywhere in the root, Go programs, Java archives; lock files where nothing is installed beside them."""
    for directory, directories, names in files.walk():
        for place in _python_places(directory, directories, names):
            _read_python(files, place, found)
        parent = directory.rpartition("/")[2] if "/" in directory else directory
        if parent == _MODULES or (parent.startswith("@") and f"/{_MODULES}/" in f"/{directory}/"):
            for name in directories:
                _read_npm(files, f"{directory}/{name}/package.json", found)
        read_go(files, directory, names, found)
        read_java(files, directory, names, found)
        if "package-lock.json" in names and _MODULES not in directories:
            _read_lock(files, _join(directory, "package-lock.json"), found)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


# --- Python -------------------------------------------------------------------------------------------------------


def _python_places(directory: str, directories: list[str], names: list[str]) -> Iterator[str]:
    for name in directories:
        if name.endswith(".dist-info"):
            yield _join(directory, f"{name}/METADATA")
        elif name.endswith(".egg-info"):
            yield _join(directory, f"{name}/PKG-INFO")
    # distutils wrote the metadata as a file of that name.
    yield from (_join(directory, name) for name in names if name.endswith(".egg-info"))


def _read_python(files: RootFiles, place: str, found: Findings) -> None:
    if (data := files.read(place, _METADATA_LIMIT)) is None:
        return
    fields = HeaderParser().parsestr(text_of(data), headersonly=True)
    name, version = str(fields.get("Name", "")).strip(), str(fields.get("Version", "")).strip()
    if not name or not version:
        found.notes.append(f"/{place} names no package and version")
        return
    license_ = fields.get("License-Expression") or fields.get("License") or ""
    found.packages.add(
        Package(
            kind="pypi",
            name=re.sub(r"[-_.]+", "-", name).lower(),  # the normal form of PEP 503
            version=version,
            license=_one_line(str(license_)),
            supplier=_one_line(str(fields.get("Author") or "")),
            place=place,
        )
    )


def _one_line(text: str) -> str:
    """A field that may hold a whole licence: only a short one says which it is."""
    text = " ".join(text.split())
    return text if len(text) <= 200 and text.upper() != "UNKNOWN" else ""


# --- npm ----------------------------------------------------------------------------------------------------------


def _read_npm(files: RootFiles, place: str, found: Findings) -> None:
    record = _json(files, place, found)
    name, version = record.get("name"), record.get("version")
    if isinstance(name, str) and isinstance(version, str) and name and version:
        _add_npm(name, version, record.get("license"), place, found)


def _read_lock(files: RootFiles, place: str, found: Findings) -> None:
    """lockfileVersion 2 and 3 list `packages` by path, 1 nests `dependencies`."""
    record = _json(files, place, found)
    packages = record.get("packages")
    if isinstance(packages, dict):
        for path, each in packages.items():
            inside = path.rpartition(f"{_MODULES}/")[2] if f"{_MODULES}/" in path else ""
            if isinstance(each, dict) and inside and isinstance(version := each.get("version"), str):
                _add_npm(str(each.get("name") or inside), version, each.get("license"), place, found)
        return
    waiting = [record.get("dependencies")]
    while waiting:
        dependencies = waiting.pop()
        for name, each in dependencies.items() if isinstance(dependencies, dict) else ():
            if isinstance(each, dict) and isinstance(version := each.get("version"), str):
                _add_npm(name, version, None, place, found)
                waiting.append(each.get("dependencies"))


def _add_npm(name: str, version: str, license_: Any, place: str, found: Findings) -> None:
    namespace, _, short = name.rpartition("/")
    if isinstance(license_, dict):  # the form before npm 2
        license_ = license_.get("type")
    found.packages.add(
        Package(
            kind="npm",
            name=short,
            version=version,
            namespace=namespace,
            license=_one_line(license_) if isinstance(license_, str) else "",
            place=place,
        )
    )


def _json(files: RootFiles, place: str, found: Findings) -> dict[str, Any]:
    data = files.read(place)
    if data is None:
        return {}
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        found.notes.append(f"/{place} is not JSON: {error}")
        return {}
    return record if isinstance(record, dict) else {}
