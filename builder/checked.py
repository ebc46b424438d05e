"""What the build checks say about a build on its way: warnings, or the end of it (FEATURES A-19, A-102).

A check is a pure function of the Dockerfile, the arguments, the base images and the ignore file, so its findings are
remembered by the digest of these: a build whose steps are all found does not even import the rules. Otherwise they are made
beside the work, and only where the Dockerfile says that findings are errors does the work wait for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.pools import Pool, Task
from builder.request import BuildWarning
from registry_client.oci.digest import digest_of
from registry_client.values import frozen
from runtime.errors import HostFault, PipeError, StepFailed
from runtime.events import Emit, Warned
from runtime.spans import Source, Span
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.ignore import Patterns
    from builder.lower import BaseWanted, LowerOptions, ResolvedBase

_OVERRIDE = "BUILDKIT_DOCKERFILE_CHECK"
_KEPT = 1000  # rows


@frozen
class Checkable:
    """All that the checks look at."""

    dockerfile: Dockerfile
    options: LowerOptions
    configs: Mapping[BaseWanted, ResolvedBase]
    ignore: Patterns | None

    @property
    def key(self) -> str:
        """Everything a finding may depend on, but the Dockerfile's name."""
        options = self.options
        record = {
            "version": "checks.v1",
            "text": self.dockerfile.source.text,
            "target": options.target,
            "args": dict(options.build_args),
            "platforms": [str(options.platform), str(options.build_platform)],
            "contexts": sorted(options.contexts),
            "bases": sorted(
                f"{w.reference} {w.platform} {found.digest}" for w, found in self.configs.items()
            ),
            "ignore": [[p.text, p.reinclude] for p in self.ignore.patterns] if self.ignore else [],
        }
        return digest_of(json.dumps(record, sort_keys=True).encode())

    @property
    def may_stop(self) -> bool:
        """Whether somebody may have said that findings are errors, or said it wrongly."""
        return bool(self.dockerfile.directives.check) or _OVERRIDE in self.options.build_args


class BuildChecks:
    """The checks of one build. `begin` once, then `warnings` at the end, whatever the end is."""

    def __init__(self, store: Store, emit: Emit, node: str) -> None:
        self._store, self._emit, self._node = store, emit, node
        self._task: Task[tuple[BuildWarning, ...]] | None = None

    def begin(self, subject: Checkable, pool: Pool | None) -> None:
        """Check in `pool` if there is one and nothing depends on it; StepFailed where findings are errors."""
        if self._task is not None:
            return  # another attempt of the same build
        self._task = Task()
        if pool is not None and not subject.may_stop:
            self._task = pool.submit(self._check, subject)
            return
        self._task.run(self._check, (subject,))
        self._task.result()

    def tell_before_mistake(self, text: bytes, name: str, options: LowerOptions) -> None:
        """What is found in a Dockerfile that cannot be built, up to its mistake; the mistake itself is the build's to tell."""
        if self._task is not None:
            return
        self._task = Task()
        self._task.run(tuple, ())
        from builder.checks import check_source

        try:
            findings = check_source(text, name, options, everything=False).findings
        except PipeError:
            return  # the mistake is in what the checks are told
        for found in findings:
            self._tell(
                BuildWarning(
                    found.message, found.span, found.rule.name, found.rule.url, found.rule.description
                )
            )

    def _tell(self, each: BuildWarning) -> None:
        self._emit(Warned(node=self._node, message=each.message, span=each.span, rule=each.rule, url=each.url,
                          detail=each.detail))  # fmt: skip

    def warnings(self) -> tuple[BuildWarning, ...]:
        return self._task.result() if self._task is not None else ()

    def _check(self, subject: Checkable) -> tuple[BuildWarning, ...]:
        key = subject.key
        said = self._remembered(key)
        if said is None:
            said = _made(subject)
            self._remember(key, said)
        warnings = tuple(_warning(subject.dockerfile.source, *row) for row in said["findings"])
        for each in warnings:
            self._tell(each)
        if said["failed"]:
            rules = ", ".join(dict.fromkeys(each.rule for each in warnings))
            raise StepFailed(
                f"build checks failed: {rules}",
                warnings[0].span,
                hint="error=true makes findings errors; `# check=skip=RULE` leaves a rule out",
            )
        return warnings

    def _remembered(self, key: str) -> dict[str, Any] | None:
        row = self._store.db.one("SELECT findings FROM check_findings WHERE key = ?", (key,))
        return None if row is None else json.loads(row["findings"])

    def _remember(self, key: str, said: dict[str, Any]) -> None:
        try:
            with self._store.db.transaction() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO check_findings (key, findings) VALUES (?, ?)",
                    (key, json.dumps(said)),
                )
                connection.execute(
                    "DELETE FROM check_findings WHERE number <= (SELECT max(number) FROM check_findings) - ?",
                    (_KEPT,),
                )
        except HostFault:
            return  # a full disk: it is only a memory


def _made(subject: Checkable) -> dict[str, Any]:
    """The findings of what the target needs; a mistake is the build's to tell."""
    from builder.checks import check_fully

    result = check_fully(
        subject.dockerfile, subject.options, subject.configs, subject.ignore, everything=False
    )
    rows = [
        [f.rule.name, f.message, f.rule.url, f.rule.description, f.span.line, f.span.column, f.span.end_line]
        for f in result.findings
    ]
    return {"failed": result.failed and result.error is None, "findings": rows}


def _warning(
    source: Source, rule: str, message: str, url: str, detail: str, line: int, column: int, end_line: int
) -> BuildWarning:
    return BuildWarning(message, Span(source, line, column, end_line), rule, url, detail)
