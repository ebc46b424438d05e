"""Build checks: what is legal in a Dockerfile and yet probably not meant (FEATURES A12). Nothing is read or run here."""

from builder.checks.check import CheckResult, check, check_fully, check_source
from builder.checks.outline import outline_of, targets_of
from builder.checks.rules import RULES, Finding, Rule

__all__ = [
    "RULES",
    "CheckResult",
    "Finding",
    "Rule",
    "check",
    "check_fully",
    "check_source",
    "outline_of",
    "targets_of",
]
