"""An image as a page of text that can be recorded, and what of it must be equal to another builder's.

Left out are the known differences (docs/builder.md, "Differences from BuildKit"): times of directories that another builder touched
on its way, `ArgsEscaped` (docker sets it on every image with a CMD; nobody reads it), how a HEALTHCHECK is written in the history, and
whether a WORKDIR that was there already is an empty layer. A case names paths of its own that differ in `differs:`, with the reason.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.builds.archive import Built
from tests.support.builds.case import Case

DOCKER_ONLY = ("ArgsEscaped",)
BUILDAH_ONLY = ("Hostname", "Domainname", "Image", "OnBuild")


def page(built: Built, below: int = 1) -> dict[str, Any]:
    """What is recorded: the files of all layers but the base's, the config, the history."""
    config = {name: value for name, value in built.config.get("config", {}).items() if value}
    history = [
        ["empty" if entry.get("empty_layer") else "layer", entry.get("created_by", "")]
        for entry in built.config.get("history", ())
    ]
    top = {
        name: built.config.get(name) for name in ("architecture", "os", "author") if built.config.get(name)
    }
    return {"config": config, **top, "history": history, "files": built.lines(below)}


def base_directories(built: Built) -> dict[str, str]:
    """Directories of the base that no later layer has: another builder may have touched them, and lists them again."""
    names = {path for path, inode in built.tree.items() if inode.layer == 0 and inode.kind == "dir"}
    return {path: line for path, line in built.lines().items() if path in names}


def comparable(found: dict[str, Any], case: Case) -> dict[str, Any]:
    """A page without what may differ."""
    result = json.loads(json.dumps(found))
    for name in DOCKER_ONLY:
        result["config"].pop(name, None)
    result["history"] = [_history(*entry) for entry in result["history"]]
    for path in case.settings.get("differs", "").partition(";")[0].split():
        result["files"].pop(path, None)
    return dict(result)


def _history(kind: str, text: str) -> list[str]:
    if text.startswith("WORKDIR "):
        return ["", text]
    return [kind, re.sub(r"^HEALTHCHECK .*", "HEALTHCHECK", text, flags=re.DOTALL)]


def differences(built: Built, theirs: dict[str, Any], case: Case) -> list[str]:
    """One line for each thing that is not equal, ours first."""
    left, right = comparable(page(built), case), comparable(theirs, case)
    files, others = left.pop("files"), right.pop("files")
    files |= {path: line for path, line in base_directories(built).items() if path in others}
    found = [
        f"{path!r}: {files.get(path)} | {others.get(path)}"
        for path in sorted(files.keys() | others.keys())
        if not _same(files.get(path), others.get(path))
    ]
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            found.append(f"{key}: {_unequal(left.get(key), right.get(key))}")
    return found


def _same(mine: str | None, other: str | None) -> bool:
    if mine and other and mine.startswith("dir") and other.startswith("dir") and " now" in other:
        return mine.split()[:3] + mine.split()[4:] == other.split()[:3] + other.split()[4:]
    return mine == other


def _unequal(mine: Any, other: Any) -> str:
    if isinstance(mine, dict) and isinstance(other, dict):
        keys = [key for key in sorted(mine.keys() | other.keys()) if mine.get(key) != other.get(key)]
        return "; ".join(f"{key} {mine.get(key)!r} | {other.get(key)!r}" for key in keys)
    if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        return "; ".join(f"{a!r} | {b!r}" for a, b in zip(mine, other) if a != b)
    return f"{mine!r} | {other!r}"
