"""Variables of a build before the first FROM: platform arguments, global ARGs, proxies (FEATURES A-29, A-33 … A-36)."""

from __future__ import annotations

from collections.abc import Mapping

from builder.dockerfile.ast import Arg, Dockerfile
from builder.dockerfile.words import Lexer, WordError
from builder.lower.options import LowerOptions
from registry_client.oci.platform import Platform

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXY_NAMES = frozenset(PROXIES) | frozenset(name.lower() for name in PROXIES)
# The front end and the builder read these; no ARG needs to declare them.
BUILTIN = frozenset(
    {
        "BUILDKIT_SYNTAX", "BUILDKIT_INLINE_CACHE", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_BUILD_NAME", "BUILDKIT_DOCKERFILE_CHECK",
        "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE", "SOURCE_DATE_EPOCH",
    }
)  # fmt: skip
# Declared like any ARG, but never in a RUN's environment.
NEVER_IN_ENVIRONMENT = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


def platform_arguments(options: LowerOptions, target: str) -> dict[str, str]:
    """TARGET… and BUILD…; a --build-arg of the same name wins."""
    values = {
        **_described("BUILD", options.build_platform),
        **_described("TARGET", options.target_platform),
        "TARGETSTAGE": target or "default",
    }
    return {name: options.build_args.get(name, value) for name, value in values.items()}


def _described(prefix: str, platform: Platform) -> dict[str, str]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}OSVERSION": "",
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }


def global_arguments(dockerfile: Dockerfile, options: LowerOptions) -> dict[str, str]:
    """All that FROM lines may use. An ARG that is overridden does not even expand its default (A-29)."""
    target = options.target or dockerfile.stages[-1].name
    values = platform_arguments(options, target)
    lexer = Lexer(dockerfile.directives.escape)
    for arg in dockerfile.arguments:
        _define(arg, values, options.build_args, lexer)
    return values


def _define(arg: Arg, values: dict[str, str], given: Mapping[str, str], lexer: Lexer) -> None:
    for argument in arg.arguments:
        if argument.name in given:
            values[argument.name] = given[argument.name]
        elif argument.default is not None:
            try:
                values[argument.name] = lexer.expand(argument.default, values)
            except WordError as error:
                raise arg.node.error(str(error), argument.default) from error


def proxy_environment(build_args: Mapping[str, str]) -> dict[str, str]:
    """The proxies given as build arguments, in both spellings, for every RUN."""
    found: dict[str, str] = {}
    for name, value in sorted(build_args.items()):
        if name in PROXY_NAMES:
            found |= {name.upper(): value, name.lower(): value}
    return found


def unused_arguments(dockerfile: Dockerfile, options: LowerOptions) -> tuple[str, ...]:
    """Build arguments nothing in the file asks for: worth a warning, not an error (A-36)."""
    declared = {a.name for arg in dockerfile.arguments for a in arg.arguments}
    for stage in dockerfile.stages:
        for command in stage.commands:
            if isinstance(command, Arg):
                declared |= {argument.name for argument in command.arguments}
    known = declared | PROXY_NAMES | BUILTIN | platform_arguments(options, "").keys()
    return tuple(sorted(name for name in options.build_args if name not in known))
