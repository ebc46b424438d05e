"""`# syntax=`: which front ends we can stand in for (FEATURES A-17). None is ever pulled or run."""

from __future__ import annotations

from builder.dockerfile.ast import Dockerfile
from builder.dockerfile.directives import detect_syntax
from builder.lower.options import LowerOptions
from runtime.errors import Unsupported

OVERRIDE = "BUILDKIT_SYNTAX"  # a build argument
_BUILT_IN = "dockerfile.v0"
_OURS = ("docker/dockerfile", "docker/dockerfile-upstream")


def require_known_frontend(dockerfile: Dockerfile, options: LowerOptions) -> None:
    """Refuse a file that is written for another language than ours, whatever its version or mirror."""
    asked = options.build_args.get(OVERRIDE) or detect_syntax(dockerfile.source.text)
    if not asked or asked == _BUILT_IN or _repository(asked) in _OURS:
        return
    raise Unsupported(
        f"unknown front end {asked!r}",
        dockerfile.directives.span_of("syntax"),
        hint="only Dockerfiles are built here: # syntax=docker/dockerfile:1, or no such line",
    )


def _repository(reference: str) -> str:
    """The last two parts of the name: a mirror's host and path do not matter."""
    name = reference.partition("@")[0].split("/")
    name[-1] = name[-1].partition(":")[0]
    return "/".join(name[-2:])
