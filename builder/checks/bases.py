"""Checks of FROM lines: their variables, their platforms, and whether the image fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.checks import rules
from builder.checks.findings import Findings
from builder.dockerfile.ast import Dockerfile, Stage
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.words import Expanded, Lexer, WordError
from builder.lower.arguments import global_arguments
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase
from registry_client.oci.platform import parse_platform
from registry_client.reference import parse_reference
from registry_client.values import replace
from runtime.errors import did_you_mean


def check_bases(dockerfile: Dockerfile, options: LowerOptions, findings: Findings) -> None:
    """Raises the DockerfileError of a global ARG that cannot be expanded."""
    lexer = Lexer(dockerfile.directives.escape)
    values = global_arguments(dockerfile, options)
    declared = {argument.name for arg in dockerfile.arguments for argument in arg.arguments}
    for stage in dockerfile.stages:
        _check_variables(stage, stage.base, lexer, values, declared, findings)
        if stage.platform:
            _check_variables(stage, stage.platform, lexer, values, declared, findings)
            _check_platform(stage, lexer, values, findings)
    _check_defaults(dockerfile, options, lexer, findings)


def _expanded(word: str, lexer: Lexer, values: Mapping[str, str]) -> Expanded | None:
    try:
        return lexer.expand_fully(word, values)
    except WordError:
        return None  # the build says so, with the place


def _check_variables(
    stage: Stage, word: str, lexer: Lexer, values: Mapping[str, str], declared: set[str], findings: Findings
) -> None:
    found = _expanded(word, lexer, values)
    for name in sorted(found.unmatched) if found else ():
        if name not in declared:
            hint = did_you_mean(name, [*declared, *values])
            message = f"no ARG above declares `{name}`" + (f", {hint}" if hint else "")
            findings.report(rules.UNDEFINED_ARG_IN_FROM, message, stage.start.node)


def _check_platform(stage: Stage, lexer: Lexer, values: Mapping[str, str], findings: Findings) -> None:
    found = _expanded(stage.platform, lexer, values)
    if found is None:
        return
    node = stage.start.node
    if found.matched == {"TARGETPLATFORM"} and not found.unmatched and found.text == values["TARGETPLATFORM"]:
        findings.report(
            rules.REDUNDANT_TARGET_PLATFORM, f"--platform={stage.platform} is the default and can go", node
        )
    if not found.matched and not found.unmatched and _is_constant(stage, found.text):
        findings.report(
            rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, f"--platform is the constant `{found.text}`", node
        )


def _is_constant(stage: Stage, text: str) -> bool:
    """A stage that has its platform in its name is meant to be for that one."""
    try:
        platform = parse_platform(text)
    except ValueError:
        return False
    return platform.os not in stage.name and platform.architecture not in stage.name


def _check_defaults(dockerfile: Dockerfile, options: LowerOptions, lexer: Lexer, findings: Findings) -> None:
    """Would the file build for somebody who gives no arguments?"""
    try:
        values = global_arguments(dockerfile, replace(options, build_args={}))
    except DockerfileError:
        return
    for stage in dockerfile.stages:
        found = _expanded(stage.base, lexer, values)
        if found is not None and not _is_reference(found.text):
            findings.report(
                rules.INVALID_DEFAULT_ARG_IN_FROM,
                f"without build arguments `{stage.base}` is no valid base image name",
                stage.start.node,
            )


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except ValueError:
        return False
    return True


def check_platforms(
    wanted: Iterable[BaseWanted], configs: Mapping[BaseWanted, ResolvedBase], findings: Findings
) -> None:
    """Is every base image that was found for the platform it was wanted for?"""
    for base in wanted:
        resolved = configs.get(base)
        if resolved is None or base.span is None:
            continue
        has = resolved.config.platform
        if (has.os, has.architecture) != (base.platform.os, base.platform.architecture):
            findings.report(
                rules.INVALID_BASE_IMAGE_PLATFORM,
                f"base image {base.reference} is for {has}, not for {base.platform}",
                base.span,
            )
