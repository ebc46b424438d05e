"""Checks, outlines and targets as text for people and as JSON in the shape buildx prints."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from builder.checks.check import CheckResult
from builder.checks.outline import Outline, OutlineMount, Target
from builder.checks.rules import Finding
from builder.request import BuildWarning
from runtime.spans import Span

_LINE = "-" * 20


def check_text_report(result: CheckResult) -> str:
    """Every finding with its rule, page and place; the mistake that stops the build last."""
    blocks = [
        f"WARNING: {finding.rule.name} - {finding.rule.url}\n{finding.message}\n{_excerpt(finding.span)}"
        for finding in result.findings
    ]
    count = len(result.findings)
    head = (
        "check complete, no warnings" if not count else f"check complete, {count} warning{'s' * (count > 1)}"
    )
    if result.error is not None:
        place = f"\n{_excerpt(result.error.span)}" if result.error.span else ""
        hint = f"\nhint: {result.error.hint}" if result.error.hint else ""
        blocks.append(f"ERROR: {result.error.message}{hint}{place}")
    elif result.failed:
        blocks.append(f"ERROR: {broken_rules(result.findings)}")
    return "\n\n".join([head, *blocks]) + "\n"


def warning_record(warning: BuildWarning) -> dict[str, Any]:
    """A warning as a metadata file has it: texts in base64, as the bytes they are in BuildKit's protocol."""
    line = f" (line {warning.span.line})" if warning.rule and warning.span else ""
    name = f"{warning.rule}: " if warning.rule else ""
    record: dict[str, Any] = {"level": 1, "short": _base64(f"{name}{warning.message}{line}")}
    if warning.detail:
        record["detail"] = [_base64(warning.detail)]
    if warning.url:
        record["url"] = warning.url
    if warning.span is not None:
        record["sourceInfo"] = {
            "filename": warning.span.source.name,
            "data": _base64(warning.span.source.text),
            "language": "Dockerfile",
        }
        record["range"] = _location(warning.span)["ranges"]
    return record


def _base64(text: str) -> str:
    return _encoded(text.encode("utf-8", "surrogateescape"))


def broken_rules(findings: Sequence[Finding]) -> str:
    """What is said where findings count as errors."""
    return f"build checks failed: {', '.join(dict.fromkeys(finding.rule.name for finding in findings))}"


def check_json_report(result: CheckResult, text: bytes, name: str) -> dict[str, Any]:
    source = {"filename": name, "language": "Dockerfile", "data": _encoded(text)}
    record: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": finding.rule.name,
                "description": finding.rule.description,
                "url": finding.rule.url,
                "detail": finding.message,
                "location": _location(finding.span),
            }
            for finding in result.findings
        ],
        "sources": [source],
    }
    if result.error is not None:
        record["buildError"] = {"message": result.error.message, "location": _location(result.error.span)}
    elif result.failed:
        record["buildError"] = {"message": broken_rules(result.findings)}
    return record


def outline_text_report(outline: Outline) -> str:
    lines = [f"TARGET:      {outline.name or '(last stage)'}"]
    if outline.description:
        lines.append(f"DESCRIPTION: {outline.description}")
    rows = [(a.name, a.value, a.description) for a in outline.arguments]
    lines += _table(("BUILD ARG", "VALUE", "DESCRIPTION"), rows)
    for title, mounts in (("SECRET", outline.secrets), ("SSH", outline.ssh), ("CACHE", outline.caches)):
        lines += _table((title, "REQUIRED"), [(m.name, "true" if m.required else "") for m in mounts])
    return "\n".join(lines) + "\n"


def outline_json_report(outline: Outline, text: bytes) -> dict[str, Any]:
    def mounts(found: Iterable[OutlineMount]) -> list[dict[str, Any]]:
        return [_said(name=m.name, required=m.required, location=_location(m.span)) for m in found]

    return {
        **_said(name=outline.name, description=outline.description),
        "args": [
            _said(name=a.name, description=a.description, value=a.value, location=_location(a.span))
            for a in outline.arguments
        ],
        "secrets": mounts(outline.secrets),
        "ssh": mounts(outline.ssh),
        "cache": [{"ID": mount.name, "location": _location(mount.span)} for mount in outline.caches],
        "sources": [_encoded(text)],
    }


def targets_text_report(targets: Iterable[Target]) -> str:
    rows = [
        (f"{target.name}{' (default)' if target.default else ''}".strip(), target.base, target.description)
        for target in targets
    ]
    return "\n".join(_table(("TARGET", "BASE", "DESCRIPTION"), rows)).strip() + "\n"


def targets_json_report(targets: Iterable[Target], text: bytes) -> dict[str, Any]:
    return {
        "targets": [
            _said(
                name=target.name,
                description=target.description,
                base=target.base,
                platform=target.platform,
                default=target.default,
                location=_location(target.span),
            )
            for target in targets
        ],
        "sources": [_encoded(text)],
    }


def _said(**fields: Any) -> dict[str, Any]:
    """Without what is empty, as buildx leaves it out."""
    return {name: value for name, value in fields.items() if value}


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _excerpt(span: Span) -> str:
    return f"{span.source.name}:{span.line}\n{_LINE}\n{span.excerpt()}\n{_LINE}"


def _location(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {"ranges": []}
    return {"ranges": [{"start": {"line": span.line}, "end": {"line": span.last_line}}]}


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need to be; nothing without rows."""
    if not rows:
        return []
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    return [
        "",
        *("   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table),
    ]
