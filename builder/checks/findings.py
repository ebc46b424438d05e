"""Collect what rules find, minus what the file says it does not want to hear."""

from __future__ import annotations

from builder.checks.rules import Finding, Rule
from builder.checks.settings import CheckSettings
from builder.dockerfile.nodes import Comment, Node
from runtime.spans import Span


class Findings:
    def __init__(self, settings: CheckSettings) -> None:
        self._settings = settings
        self._found: dict[tuple[str, str, int], Finding] = {}

    def report(self, rule: Rule, message: str, at: Node | Span) -> None:
        """Note a finding, once for each place."""
        span, comments = (at.span, at.comments) if isinstance(at, Node) else (at, ())
        if self._wants(rule, comments):
            self._found.setdefault((rule.name, message, span.line), Finding(rule, message, span))

    def _wants(self, rule: Rule, comments: tuple[Comment, ...]) -> bool:
        return self._settings.merged(comments).wants(rule)

    def all(self) -> tuple[Finding, ...]:
        """In the order of the file."""
        return tuple(sorted(self._found.values(), key=lambda finding: finding.span.line))
