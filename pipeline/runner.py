"""Run a plan: which function executes which kind of node, and what a run as a whole is.

Everything a node needs is in the `Run`; nodes know each other only through results. The journal is told of every result
the moment it is there, so that a kill at any time loses only what was running.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipeline.artifacts import ArtifactStore
from pipeline.conditions import Facts
from pipeline.config.load import Surroundings
from pipeline.deploy.deploy import DeployContext, run_deploy
from pipeline.engines import Engine
from pipeline.image import pushed_names, run_image, short_id
from pipeline.journal import Journal
from pipeline.mask import Secrets
from pipeline.plan import Kind, Node, Plan, stage_edges
from pipeline.results import NodeResult, Results
from pipeline.scheduler import Scheduler, run_outcome
from pipeline.secrets import SecretStore
from pipeline.spec import EnvironmentSpec, ImageSpec
from pipeline.stage import lookup_result, run_stage
from pipeline.stage_attempt import StageContext
from registry_client.values import frozen, replace
from runtime.cancel import Cancel
from runtime.errors import (
    Cancelled,
    Denied,
    InvalidInput,
    NotFound,
    PipeError,
    StepFailed,
    TimedOut,
    Unsupported,
)
from runtime.events import Emit, Outcome


@frozen(kw_only=True)
class RunOptions:
    jobs: int = 4
    cache: bool = True
    approve: bool = False
    who: str = ""
    reuse: Mapping[str, str] | None = None


@frozen
class RunResult:
    """A whole run."""

    id: str
    outcome: Outcome
    nodes: Mapping[str, NodeResult]

    @property
    def failures(self) -> list[NodeResult]:
        bad = (Outcome.FAILED, Outcome.ERROR, Outcome.TIMEOUT)
        return [result for result in self.nodes.values() if result.outcome in bad]


@frozen(kw_only=True)
class Run:
    """One run on its way."""

    id: str
    plan: Plan
    directory: str
    engine: Engine
    journal: Journal
    results: Results
    artifacts: ArtifactStore
    secrets: SecretStore
    surroundings: Surroundings
    deploy: DeployContext
    emit: Emit
    cancel: Cancel
    options: RunOptions
    revision: tuple[str, str] = ("", "")

    def run(self) -> RunResult:
        """Run the plan to its end."""
        scheduler = Scheduler(
            self.plan, self._execute, jobs=self.options.jobs, emit=self.emit, cancel=self.cancel
        )
        scheduler.on_result = lambda result: self.journal.record(self.id, result)
        seconds = self.plan.spec.timeout
        with _TimeLimit(seconds, self.cancel, f"the run took longer than {seconds:g} s") as limit:
            nodes = scheduler.run()
        stopped = (Outcome.TIMEOUT if limit.reached else Outcome.CANCELLED) if self.cancel.cancelled else None
        outcome = run_outcome(nodes, stopped)
        self._verify(nodes)
        return RunResult(self.id, outcome, nodes)

    def _execute(self, node: Node, results: Mapping[str, NodeResult], cancel: Cancel) -> NodeResult:
        """Run a node; nothing that leaves here has a secret in it."""
        try:
            return _masked(self._execute_kind(node, results, cancel), self.secrets.masker)
        except PipeError as error:
            if isinstance(error, InvalidInput | NotFound | Unsupported) and error.span is None:
                error.span = node.subject.span  # nothing closer is known
            raise mask_error(error, self.secrets.masker) from error.__cause__

    def _execute_kind(self, node: Node, results: Mapping[str, NodeResult], cancel: Cancel) -> NodeResult:
        match node.kind:
            case Kind.IMAGE:
                return self._image(node, results, cancel)
            case Kind.STAGE:
                return run_stage(self._stage_context(), node, results, cancel)
            case Kind.PUSH:
                return self._push(node, results, cancel)
            case Kind.DEPLOY:
                return self._deploy(node, results, cancel)

    def _lookup(self, results: Mapping[str, NodeResult], path: str) -> str | None:
        if path.startswith(("images.", "stages.")):
            return lookup_result(results, path)
        return self.surroundings.lookup(path)

    def _image(self, node: Node, results: Mapping[str, NodeResult], cancel: Cancel) -> NodeResult:
        return run_image(
            self.engine,
            self.plan.spec,
            node,
            lambda path: self._lookup(results, path),
            self.surroundings.variables,
            self.secrets,
            cancel,
            no_cache=not self.options.cache and self.plan.goal.kind is Kind.IMAGE,
        )

    def _stage_context(self) -> StageContext:
        return StageContext(
            spec=self.plan.spec,
            run=self.id,
            directory=self.directory,
            engine=self.engine,
            results=self.results,
            artifacts=self.artifacts,
            secrets=self.secrets,
            emit=self.emit,
            surroundings=self.surroundings.lookup,
            outside=self.surroundings.variables,
            given=self.surroundings.given,
            revision=self.revision,
            cache=self.options.cache,
            reuse=self.options.reuse,
        )

    def _push(self, node: Node, results: Mapping[str, NodeResult], cancel: Cancel) -> NodeResult:
        """Give the very image that was tested the names others pull; with a registry, send it there."""
        assert isinstance(node.subject, ImageSpec)
        started = time.time()
        image = results[f"image/{node.subject.name}"].image
        needed = self._stages_before(node)
        self._demand_green(image, needed, results, node.subject.name)
        names = pushed_names(self.plan.spec, node.subject, lambda path: self._lookup(results, path))
        digest = ""
        there = not self.plan.spec.registry and all(self._is_tagged(name, image, cancel) for name in names)
        for name in names if not there else ():
            self.engine.tag(image, name)
            if self.plan.spec.registry:
                digest = self.engine.push(name, cancel)
        return NodeResult(
            node=node.name,
            kind=node.kind,
            outcome=Outcome.CACHED if there else Outcome.DONE,
            image=image,
            detail=f"{', '.join(names)} {'@' + digest if digest else '= ' + short_id(image)}",
            references=names,
            started=started,
            finished=time.time(),
        )

    def _stages_before(self, node: Node) -> list[str]:
        """The stages of the environments this push is for, also where the plan was made without them."""
        users = [
            other.subject for other in self.plan.nodes if any(edge.node == node.name for edge in other.needs)
        ]
        environments = [user for user in users if isinstance(user, EnvironmentSpec)]
        return [
            edge.node for environment in environments for edge in stage_edges(environment, self.plan.spec)
        ]

    def _is_tagged(self, name: str, image: str, cancel: Cancel) -> bool:
        try:
            return self.engine.image(name, "never", cancel).id == image
        except NotFound:
            return False

    def _deploy(self, node: Node, results: Mapping[str, NodeResult], cancel: Cancel) -> NodeResult:
        assert isinstance(node.subject, EnvironmentSpec)
        if node.subject.when.runtime_paths:
            verdict = node.subject.when.decide(Facts(lambda path: self._lookup(results, path)))
            if not verdict.holds:
                return _left_out(node, verdict.reason)
        for name, result in results.items():
            if name.startswith("image/") and any(edge.node == name for edge in node.needs):
                needed = [edge.node for edge in stage_edges(node.subject, self.plan.spec)]
                self._demand_green(result.image, needed, results, name.partition("/")[2])
        limit = _TimeLimit(
            node.subject.timeout, cancel, f"the deploy took longer than {node.subject.timeout:g} s"
        )
        with limit:
            try:
                return run_deploy(
                    self.deploy, node, results, lambda path: self._lookup(results, path), cancel
                )
            except Cancelled as error:
                if limit.reached:
                    raise TimedOut(error.message, node.subject.span) from error
                raise

    def _demand_green(
        self, image: str, stages: list[str], results: Mapping[str, NodeResult], name: str
    ) -> None:
        """Denied unless each stage was green for this image: now, or (without tests in this run) in an earlier run."""
        if self.plan.goal.tests:
            red = [stage for stage in stages if stage in results and not _passed(results[stage])]
        else:
            known = self.results.verified(self.plan.spec.name, image)
            red = [stage for stage in stages if stage.partition("/")[2] not in known]
        if red:
            shown = ", ".join(f"`{stage.partition('/')[2]}`" for stage in red)
            raise Denied(
                f"image `{name}` {short_id(image)} has no green run of {shown}",
                hint="run `pipe test` with this very image first",
            )

    def _verify(self, nodes: Mapping[str, NodeResult]) -> None:
        images = [
            result.image for name, result in nodes.items() if name.startswith("image/") and result.green
        ]
        stages = [
            name.partition("/")[2]
            for name, result in nodes.items()
            if name.startswith("stage/") and _passed(result)
        ]
        self.results.verify(self.plan.spec.name, self.id, images, stages)


def _left_out(node: Node, reason: str) -> NodeResult:
    now = time.time()
    outcome = Outcome.SKIPPED
    return NodeResult(
        node=node.name,
        kind=node.kind,
        outcome=outcome,
        error=reason,
        detail="condition",
        started=now,
        finished=now,
    )


def _masked(result: NodeResult, masker: Secrets) -> NodeResult:
    if masker.pattern is None:
        return result
    mask = masker.mask_text
    tests = result.tests
    if tests is not None:
        failures = tuple(replace(f, message=mask(f.message), text=mask(f.text)) for f in tests.failures)
        tests = replace(tests, failures=failures)
    return replace(
        result,
        error=mask(result.error),
        detail=mask(result.detail),
        output=mask(result.output),
        outputs=tuple((name, mask(value)) for name, value in result.outputs),
        tests=tests,
        cause=mask_error(result.cause, masker) if isinstance(result.cause, PipeError) else result.cause,
    )


def mask_error(error: PipeError, masker: Secrets) -> PipeError:
    """The error with secrets taken out of its texts."""
    error.message, error.hint = masker.mask_text(error.message), masker.mask_text(error.hint)
    error.args = (error.message,)
    if isinstance(error, StepFailed):
        error.output = masker.mask_text(error.output)
    return error


def _passed(result: NodeResult) -> bool:
    """Green, or left out by its own condition."""
    return result.green or (result.outcome is Outcome.SKIPPED and result.detail == "condition")


class _TimeLimit:
    """Cancels what takes longer than it was given; 0 is no limit."""

    def __init__(self, seconds: float, cancel: Cancel, reason: str) -> None:
        import threading

        self.reached = False
        self._cancel, self._reason = cancel, reason
        self._timer = threading.Timer(seconds, self._end) if seconds else None

    def _end(self) -> None:
        self.reached = True
        self._cancel.cancel(self._reason)

    def __enter__(self) -> _TimeLimit:
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer.join()
