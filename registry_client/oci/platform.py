"""Platforms: `os/architecture[/variant]`, their normal form, and which of an index's manifests fits (FEATURES C-10)."""

from __future__ import annotations

import os

from registry_client.values import frozen

_ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "amd64": ("amd64", ""), "i386": ("386", ""), "i686": ("386", ""),
    "386": ("386", ""), "aarch64": ("arm64", ""), "arm64": ("arm64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"), "arm": ("arm", "v7"),
}  # fmt: skip
# Spelled in one way only.
_OTHERS = ("loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm")


@frozen
class Platform:
    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def parse_platform(text: str) -> Platform:
    """Parse and normalise `linux/arm64/v8`, `arm64` or `linux`; ValueError for anything else."""
    parts = text.strip().lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise ValueError(f"invalid platform {text!r}: want os/architecture[/variant]")
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(parts[0], *_host_architecture())
        if parts[0] not in _ARCHITECTURES and parts[0] not in _OTHERS:
            raise ValueError(f"unknown operating system or architecture {text!r}")
        parts.insert(0, "linux")
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    if len(parts) == 3:
        variant = parts[2]
    if architecture == "arm64" and variant in ("v8", "8"):
        variant = ""
    return Platform(parts[0], architecture, variant)


def _host_architecture() -> tuple[str, str]:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, (machine, ""))


def host_platform() -> Platform:
    """What this kernel runs."""
    return Platform("linux", *_host_architecture())


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` serves `wanted`: 0 is exact, higher is worse, None not at all (arm v7 also runs v6 and v5)."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    if wanted.variant == offered.variant:
        return 0
    if wanted.architecture == "arm":
        levels = ["v8", "v7", "v6", "v5"]
        if wanted.variant in levels and offered.variant in levels:
            distance = levels.index(offered.variant) - levels.index(wanted.variant)
            return distance if distance > 0 else None
    if not wanted.variant or not offered.variant:
        return 1
    return None
