"""JUnit XML as pytest, Maven, Go's and JavaScript's reporters write it, read into counts and failures. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry_client.values import frozen
from runtime.errors import InvalidInput

_TEXT_LIMIT = 4000
_FAILURE_LIMIT = 200


@frozen
class TestFailure:
    name: str  # "tests.test_shop::test_price"
    message: str
    text: str = ""
    file: str = ""
    line: int = 0


@frozen(kw_only=True)
class TestReport:
    """Counts of one or several files; `slowest` are the three longest cases."""

    tests: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: tuple[TestFailure, ...] = ()
    slowest: tuple[tuple[str, float], ...] = ()

    @property
    def passed(self) -> int:
        return self.tests - self.failed - self.errors - self.skipped

    @property
    def summary(self) -> str:
        """`12 passed, 1 failed`: what is 0 is left out, but not `passed` alone."""
        counts = (
            (self.passed, "passed"),
            (self.failed, "failed"),
            (self.errors, "errors"),
            (self.skipped, "skipped"),
        )
        return ", ".join(f"{count} {word}" for count, word in counts if count or word == "passed")

    def to_json(self) -> dict[str, Any]:
        return {
            "tests": self.tests,
            "failed": self.failed,
            "errors": self.errors,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "failures": [[f.name, f.message, f.text, f.file, f.line] for f in self.failures],
            "slowest": [list(row) for row in self.slowest],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> TestReport:
        failures = tuple(TestFailure(*row) for row in record.get("failures", ()))
        slowest = tuple((str(name), float(seconds)) for name, seconds in record.get("slowest", ()))
        counts = {key: record.get(key, 0) for key in ("tests", "failed", "errors", "skipped")}
        return cls(**counts, seconds=float(record.get("seconds", 0)), failures=failures, slowest=slowest)


def parse_junit(data: bytes, name: str) -> TestReport:
    """Read one file; InvalidInput when it is not JUnit XML. Counts come from the cases, not from attributes that may lie."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InvalidInput(f"{name} is not XML: {error}") from error
    if _local(root.tag) not in ("testsuites", "testsuite", "testcase"):
        raise InvalidInput(f"{name} is not a JUnit report: its root is <{_local(root.tag)}>")
    cases = [element for element in root.iter() if _local(element.tag) == "testcase"]
    return merge_reports(_case(case) for case in cases)


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]


def _case(case: Any) -> TestReport:
    name = "::".join(part for part in (case.get("classname"), case.get("name")) if part) or "unnamed"
    seconds = _number(case.get("time"))
    found = {_local(child.tag): child for child in reversed(list(case))}
    bad = found.get("failure") if "failure" in found else found.get("error")
    failures = (_failure(name, case, bad),) if bad is not None else ()
    return TestReport(
        tests=1,
        failed=int("failure" in found),
        errors=int("error" in found and "failure" not in found),
        skipped=int(bad is None and "skipped" in found),
        seconds=seconds,
        failures=failures,
        slowest=((name, seconds),),
    )


def _failure(name: str, case: Any, bad: Any) -> TestFailure:
    text = (bad.text or "").strip()
    first = text.splitlines()[0] if text else ""
    line = case.get("line") or ""
    return TestFailure(
        name=name,
        message=(bad.get("message") or first or bad.get("type") or "").strip()[:_TEXT_LIMIT],
        text=text[-_TEXT_LIMIT:],
        file=case.get("file") or "",
        line=int(line) if line.isdigit() else 0,
    )


def _number(text: str | None) -> float:
    try:
        return float((text or "0").replace(",", ""))
    except ValueError:
        return 0.0


def merge_reports(reports: Iterable[TestReport]) -> TestReport:
    """The sum of several reports."""
    total = {"tests": 0, "failed": 0, "errors": 0, "skipped": 0}
    seconds = 0.0
    failures: list[TestFailure] = []
    slowest: list[tuple[str, float]] = []
    for report in reports:
        for key in total:
            total[key] += getattr(report, key)
        seconds += report.seconds
        failures += report.failures
        slowest = sorted([*slowest, *report.slowest], key=lambda row: -row[1])[:3]
    return TestReport(
        **total, seconds=round(seconds, 6), failures=tuple(failures[:_FAILURE_LIMIT]), slowest=tuple(slowest)
    )
