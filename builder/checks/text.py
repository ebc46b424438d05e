"""Checks of how the file is written; no variable is looked at."""

from __future__ import annotations

from collections.abc import Iterator

from builder.checks import rules
from builder.checks.findings import Findings
from builder.dockerfile.ast import Arg, Dockerfile, Stage
from builder.dockerfile.nodes import Node
from runtime.spans import Span

_RESERVED = ("scratch", "context")


def check_text(dockerfile: Dockerfile, findings: Findings) -> None:
    for span in dockerfile.empty_continuations:
        # Told at the instruction's last line, where BuildKit is when it notices.
        last = Span(span.source, span.last_line)
        findings.report(rules.NO_EMPTY_CONTINUATION, "blank line inside an instruction", last)
    _check_casing(dockerfile, findings)
    _check_stage_names(dockerfile, findings)
    _check_descriptions(dockerfile, findings)


def _nodes(dockerfile: Dockerfile) -> Iterator[Node]:
    for stage in dockerfile.stages:
        yield stage.start.node
        yield from (command.node for command in stage.commands)


def _check_casing(dockerfile: Dockerfile, findings: Findings) -> None:
    nodes = list(_nodes(dockerfile))
    lower = sum(node.keyword.islower() for node in nodes)
    upper = sum(node.keyword.isupper() for node in nodes)
    wanted = "lower" if lower > upper else "upper"
    for node in nodes:
        if not (node.keyword.islower() if wanted == "lower" else node.keyword.isupper()):
            findings.report(
                rules.CONSISTENT_INSTRUCTION_CASING,
                f"`{node.keyword}` should be in {wanted} case like most instructions here",
                node,
            )


def _check_stage_names(dockerfile: Dockerfile, findings: Findings) -> None:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        if not stage.name:
            continue
        _check_stage_casing(stage, findings)
        node = stage.start.node
        if stage.name in _RESERVED:
            findings.report(rules.RESERVED_STAGE_NAME, f"stage name `{stage.name}` is reserved", node)
        if stage.name in seen:
            findings.report(rules.DUPLICATE_STAGE_NAME, f"stage name `{stage.name}` is used twice", node)
        seen.add(stage.name)


def _check_stage_casing(stage: Stage, findings: Findings) -> None:
    node = stage.start.node
    _base, word, name = node.args
    if name != name.lower():
        findings.report(rules.STAGE_NAME_CASING, f"stage name `{name}` should be in lower case", node)
    # A keyword of mixed case is the other rule's business.
    if (node.keyword.islower() and not word.islower()) or (node.keyword.isupper() and not word.isupper()):
        findings.report(
            rules.FROM_AS_CASING, f"`{word}` and `{node.keyword}` are not written in the same case", node
        )


def _check_descriptions(dockerfile: Dockerfile, findings: Findings) -> None:
    args = list(dockerfile.arguments)
    for stage in dockerfile.stages:
        if stage.name:
            _check_description(stage.start.node, [stage.name], findings)
        args += [command for command in stage.commands if isinstance(command, Arg)]
    for arg in args:
        _check_description(arg.node, [argument.name for argument in arg.arguments], findings)


def _check_description(node: Node, names: list[str], findings: Findings) -> None:
    comments = [c for c in node.comments if not c.text.lower().startswith(("check=", "syntax=", "escape="))]
    if not comments or comments[-1].text.split(" ")[0] in names:
        return
    name = names[0] if len(names) == 1 else "<name>"
    findings.report(
        rules.INVALID_DEFINITION_DESCRIPTION,
        f"the comment above {node.name} should read `# {name} <description>`",
        node,
    )
