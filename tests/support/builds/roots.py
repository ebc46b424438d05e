"""Whole roots of two builders, whichever layer a file is in, and what a container is started by."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from tests.support.builds.archive import Built
from tests.support.builds.builders import Builder, Pipe
from tests.support.builds.case import Case

# Mount points of buildah's that stay in its layers; ours are not in ours.
STUBS = (
    "dev",
    "proc",
    "sys",
    "run",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/hostname",
    "run/.containerenv",
    "run/secrets",
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def both(pipe: Pipe, other: Builder, case: Case, directory: Path) -> tuple[Built, Built]:
    context = case.write(directory / "context")
    certificates = directory / "ca.pem"
    certificates.write_bytes(CERTIFICATES.read_bytes() if CERTIFICATES.exists() else b"")
    built = []
    for builder in (pipe, other):
        outcome = builder.build(context, case.arguments(context, str(certificates)))
        assert outcome.image, f"{builder.name}:\n{outcome.log[-4000:]}"
        built.append(outcome.image)
    return built[0], built[1]


def files_that_differ(ours: Built, theirs: Built, case: Case) -> list[str]:
    """Whole roots, whichever layer a file is in; times only where the other's is not of its own build."""
    left, right = ours.lines(), theirs.lines()
    ignored = (
        *STUBS,
        *case.settings.get("ignore", "").split(),
        *case.settings.get("differs", "").partition(";")[0].split(),
    )
    return [
        f"{path!r}: {left.get(path)} | {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if not any(fnmatch.fnmatch(path, pattern) for pattern in ignored)
        and timeless(left.get(path)) != timeless(right.get(path))
    ]


def timeless(line: str | None) -> list[str] | None:
    """Without the time of a directory: buildah keeps that of a directory it writes to, or not, by its storage driver."""
    words = line.split() if line else None
    return [*words[:3], *words[4:]] if words and words[0] == "dir" else words


def started_by(built: Built) -> dict[str, Any]:
    """What a container is started by; buildah writes ENV in another order, and a label and a host name of its own."""
    config = {name: value for name, value in built.config["config"].items() if value}
    for name in ("ArgsEscaped", "Hostname", "Image", "OnBuild"):
        config.pop(name, None)
    config["Env"] = sorted(config.get("Env", ()))
    config["Labels"] = {k: v for k, v in config.get("Labels", {}).items() if k != "io.buildah.version"}
    if config.get("WorkingDir") == "/":
        del config["WorkingDir"]
    return config
