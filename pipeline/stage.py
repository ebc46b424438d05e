"""Run one stage node: find its result or make it, with as many attempts as it may have. One attempt is `stage_attempt`'s."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pipeline.config.interpolate import variable_name
from pipeline.containers import filled, merge_variables, read_env_files
from pipeline.plan import Node, image_node, stage_nodes
from pipeline.results import Key, NodeResult
from pipeline.spec import StageSpec
from pipeline.stage_attempt import INSIDE, Attempt, StageContext, StageJob
from pipeline.stage_key import stage_key, tree_digest
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.events import Outcome, Output, Warned
from runtime.store.durable import faults_of_the_host


def run_stage(
    context: StageContext, node: Node, results: Mapping[str, NodeResult], cancel: Cancel
) -> NodeResult:
    """What came of the stage: replayed, or run, with as many attempts as it may have."""
    return _StageRun(context, node, results, cancel).run()


class _StageRun:
    def __init__(
        self, context: StageContext, node: Node, results: Mapping[str, NodeResult], cancel: Cancel
    ) -> None:
        assert isinstance(node.subject, StageSpec)
        self.context, self.node, self.before, self.cancel = context, node, results, cancel
        self.started = time.time()
        self.stage = filled(node.subject, self.lookup, node.subject.span)

    def lookup(self, path: str) -> str | None:
        """Contexts as this node sees them."""
        context, _, rest = path.partition(".")
        if context == "matrix":
            return dict(self.node.matrix).get(rest)
        if context in ("images", "stages"):
            return lookup_result(self.before, path)
        return self.context.surroundings(path)

    def run(self) -> NodeResult:
        condition = replace(self.stage.when, clauses=())
        if condition.runtime_paths:
            from pipeline.conditions import Facts

            verdict = condition.decide(Facts(self.lookup))
            if not verdict.holds:
                return self._result(Outcome.SKIPPED, detail="condition", error=verdict.reason)
        images = self._images()
        env = self._environment()
        key = self._key(images, env)
        image = images[self.stage.container.image]
        if key is not None and (found := self._replay(key, image)):
            return found
        return self._attempts(images, env, key)

    def _images(self) -> dict[str, str]:
        """Image ids by the names the stage and its services use."""
        found: dict[str, str] = {}
        for keys in (self.stage.container, *(service.container for service in self.stage.services)):
            built = self.before.get(image_node(keys.image))
            if built is not None:
                found[keys.image] = built.image
            elif keys.image not in found:
                pull = keys.pull_policy if keys.pull_policy in ("always", "never") else "missing"
                found[keys.image] = self.context.engine.image(keys.image, pull, self.cancel, keys.platform).id
        return found

    def _environment(self) -> dict[str, str]:
        commit, branch = self.context.revision
        own = {
            "CI": "true",
            "PIPE": "true",
            "PIPE_PROJECT": self.context.spec.name,
            "PIPE_STAGE": self.node.title,
            "PIPE_RUN": self.context.run,
            "PIPE_COMMIT": commit,
            "PIPE_BRANCH": branch,
            "PIPE_OUTPUT": f"{INSIDE}/output",
        }
        contexts = dict.fromkeys(
            (*self.stage.before.contexts, *self.stage.run.contexts, *self.stage.after.contexts)
        )
        scripts = {variable_name(path): self.lookup(path) or "" for path in contexts}
        matrix = {variable_name(f"matrix.{name}"): value for name, value in self.node.matrix}
        files = read_env_files(self.stage.container.env_file, self.context.spec.root)
        given = self.context.given
        return merge_variables(
            self.context.outside,
            own,
            matrix,
            files,
            self.context.spec.env,
            self.stage.container.env,
            given,
            scripts,
        )

    def _key(self, images: Mapping[str, str], env: Mapping[str, str]) -> Key | None:
        inputs = {
            need.stage: str([a.to_json() for r in self._needed(need.stage) for a in r.artifacts])
            for need in self.stage.needs
            if need.artifacts
        }
        checkout = ""
        if self.stage.checkout:
            with faults_of_the_host(f"cannot read the work tree {self.context.spec.root}"):
                checkout = tree_digest(self.context.spec.root)
        return stage_key(
            self.stage,
            images=images,
            env=env,
            inputs=inputs,
            checkout=checkout and self.stage.checkout + checkout,
        )

    def _needed(self, stage: str) -> list[NodeResult]:
        return [self.before[name] for name in stage_nodes(self.context.spec, stage) if name in self.before]

    # --- results that are there ---------------------------------------------------------------------------------

    def _replay(self, key: Key, image: str) -> NodeResult | None:
        allowed = self.context.cache and self.stage.cache
        resumed = (self.context.reuse or {}).get(self.node.name) == key.digest
        if not (allowed or resumed):
            return None
        cached = self.context.results.find(key, self.node.name)
        if cached is None or not self.context.artifacts.complete(cached.result.artifacts):
            return None
        for stream, data in cached.log:
            self.context.emit(Output(node=self.node.name, stream=stream, data=data))
        tests = cached.result.tests
        detail = ", ".join(filter(None, (tests.summary if tests else "", f"as in run {cached.run}")))
        return replace(cached.result, image=image, detail=detail, started=self.started, finished=time.time())

    def _job(self, images: Mapping[str, str]) -> StageJob:
        return StageJob(
            context=self.context,
            node=self.node,
            stage=self.stage,
            images=images,
            needed={need.stage: self._needed(need.stage) for need in self.stage.needs if need.artifacts},
            lookup=self.lookup,
            started=self.started,
        )

    # --- attempts -----------------------------------------------------------------------------------------------

    def _attempts(self, images: Mapping[str, str], env: dict[str, str], key: Key | None) -> NodeResult:
        retry, job = self.stage.retry, self._job(images)
        for attempt in range(1, retry.max + 2):
            tried = Attempt(job, {**env, "PIPE_ATTEMPT": str(attempt)}, self.cancel)
            result = tried.run()
            result = replace(result, attempts=attempt, key=key.digest if key else "")
            if result.green or attempt > retry.max or not self._again(result):
                break
            self._warn(f"attempt {attempt} of {retry.max + 1}: {result.error}; trying again")
            if retry.backoff and self.cancel.wait(retry.backoff * 2 ** (attempt - 1)):
                break
        if result.outcome is Outcome.DONE and key is not None:
            result = replace(result, detail="; ".join(filter(None, (result.detail, self._why_again(key)))))
            self.context.results.keep(key, self.context.spec.name, self.context.run, result, tried.output.log)
        return self._allowed(result)

    def _why_again(self, key: Key) -> str:
        """What differs from the last green result of this stage."""
        changed = self.context.results.changed_fields(key, self.context.spec.name, self.node.title)
        return f"changed: {', '.join(changed)}" if changed else ""

    def _again(self, result: NodeResult) -> bool:
        if result.outcome is Outcome.CANCELLED or self.cancel.cancelled:
            return False
        retry = self.stage.retry
        if retry.when and str(result.outcome) not in retry.when:
            return False
        return not retry.exit_codes or result.exit_code in retry.exit_codes

    def _allowed(self, result: NodeResult) -> NodeResult:
        allow = self.stage.allow_failure
        if result.outcome is not Outcome.FAILED or not allow.allowed:
            return result
        if allow.exit_codes and result.exit_code not in allow.exit_codes:
            return result
        return replace(result, outcome=Outcome.WARNING, detail=result.error)

    def _warn(self, message: str) -> None:
        self.context.emit(Warned(node=self.node.name, message=message))

    def _result(self, outcome: Outcome, **given: Any) -> NodeResult:
        return NodeResult(
            node=self.node.name,
            kind=self.node.kind,
            outcome=outcome,
            started=self.started,
            finished=time.time(),
            **given,
        )


def lookup_result(results: Mapping[str, NodeResult], path: str) -> str | None:
    """`images.NAME.digest` and `stages.NAME.outputs.KEY` from what has ended; None where there is nothing."""
    context, name, word, *rest = path.split(".")
    if context == "images":
        built = results.get(image_node(name))
        return built.image if built else None
    found = [
        result
        for node, result in results.items()
        if node == f"stage/{name}" or node.startswith(f"stage/{name} (")
    ]
    if not found:
        return None
    if word == "outcome":
        return str(found[-1].outcome)
    return dict(found[-1].outputs).get(rest[0])
