"""`check`: all rules over one Dockerfile. Pure; base images that are known make it say more."""

from __future__ import annotations

from collections.abc import Mapping

from builder.checks.bases import check_bases, check_platforms
from builder.checks.findings import Findings
from builder.checks.instructions import InstructionChecks
from builder.checks.rules import Finding
from builder.checks.settings import OVERRIDE, CheckSettings, parse_settings
from builder.checks.text import check_text
from builder.dockerfile.ast import Dockerfile
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.parser import assemble
from builder.dockerfile.reader import Reading, read_nodes
from builder.ignore import Patterns
from builder.lower.graph import walk_stages
from builder.lower.options import BaseWanted, LowerOptions, ResolvedBase
from registry_client.values import frozen
from runtime.errors import InvalidInput

_NO_BASES: Mapping[BaseWanted, ResolvedBase] = {}


@frozen
class CheckResult:
    """What was found; `error` is what would stop the build, `failed` whether there is one, or findings count as such."""

    findings: tuple[Finding, ...]
    error: InvalidInput | None = None
    failed: bool = False
    bases: tuple[BaseWanted, ...] = ()  # the images that were looked at, or could have been


def settings_of(dockerfile: Dockerfile, options: LowerOptions) -> CheckSettings:
    """The directive of the file, or the build argument that overrides it."""
    if OVERRIDE in options.build_args:
        try:
            return parse_settings(options.build_args[OVERRIDE])
        except DockerfileError as error:
            raise InvalidInput(f"build argument {OVERRIDE}: {error.message}", hint=error.hint) from error
    return parse_settings(dockerfile.directives.check, dockerfile.directives.span_of("check"))


def check_fully(
    dockerfile: Dockerfile,
    options: LowerOptions,
    configs: Mapping[BaseWanted, ResolvedBase] = _NO_BASES,
    ignore: Patterns | None = None,
    *,
    everything: bool | None = None,
) -> CheckResult:
    """All findings; of `everything` in the file, or what the target needs. Without a target that is not asked (A-103)."""
    settings = settings_of(dockerfile, options)
    findings = Findings(settings)
    error: InvalidInput | None = None
    wanted: tuple[BaseWanted, ...] = ()
    check_text(dockerfile, findings)
    watcher = InstructionChecks(findings, ignore, dockerfile.directives.escape)
    try:
        check_bases(dockerfile, options, findings)
        wanted = walk_stages(
            dockerfile,
            options,
            configs,
            watcher,
            everything=not options.target if everything is None else everything,
        )
        check_platforms(wanted, configs, findings)
    except InvalidInput as caught:
        error = caught
    found = findings.all()
    return CheckResult(found, error, error is not None or (settings.error and bool(found)), wanted)


def check_source(
    text: str | bytes,
    name: str,
    options: LowerOptions,
    configs: Mapping[BaseWanted, ResolvedBase] = _NO_BASES,
    ignore: Patterns | None = None,
    *,
    everything: bool | None = None,
) -> CheckResult:
    """The same for a text, which may be broken: then the instructions before the first mistake are looked at."""
    try:
        reading = read_nodes(text, name)
    except DockerfileError as error:
        return CheckResult((), error, failed=True)
    try:
        return check_fully(assemble(reading), options, configs, ignore, everything=everything)
    except DockerfileError as error:
        return CheckResult(_found_before(reading, error, options), error, failed=True)


def _found_before(reading: Reading, error: DockerfileError, options: LowerOptions) -> tuple[Finding, ...]:
    line = error.span.line if error.span else 0
    nodes = tuple(node for node in reading.nodes if node.span.last_line < line)
    try:
        return check_fully(assemble(reading._replace(nodes=nodes)), options).findings
    except DockerfileError:
        return ()


def check(
    dockerfile: Dockerfile,
    options: LowerOptions | None = None,
    configs: Mapping[BaseWanted, ResolvedBase] = _NO_BASES,
    ignore: Patterns | None = None,
) -> tuple[Finding, ...]:
    """The findings alone."""
    return check_fully(dockerfile, options or LowerOptions(), configs, ignore).findings
