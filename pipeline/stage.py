"""Run one stage node: find its result or make it. What a container is and where it runs is the engine's.

The order of one attempt: network, services in the order of their needs, gates, the stage's container, reports and
artifacts, and in reverse everything is removed, whatever happened. Only the exit code of the container decides; reports
are kept on failure too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from pipeline.artifacts import ArtifactStore, as_tar
from pipeline.config.interpolate import variable_name
from pipeline.containers import Place, container_spec, filled, merge_variables, read_env_files
from pipeline.engines import Engine
from pipeline.junit import TestReport
from pipeline.leftovers import stage_labels
from pipeline.plan import Node, image_node
from pipeline.results import Key, NodeResult, Results
from pipeline.scheduler import outcome_of
from pipeline.script import Command, commands, shell_text
from pipeline.secrets import SecretStore
from pipeline.spec import PipelineSpec, Script, StageSpec
from pipeline.stage_files import Collected, collect_files
from pipeline.stage_key import stage_key, tree_digest
from pipeline.stage_output import StageOutput
from pipeline.stage_services import StageServices
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus, Mount
from runtime.errors import PipeError, StepFailed, TimedOut
from runtime.events import Emit, Outcome, Output, Warned

INSIDE = "/run/pipe"
_TERM_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What all stages of a run share."""

    spec: PipelineSpec
    run: str
    directory: str
    engine: Engine
    results: Results
    artifacts: ArtifactStore
    secrets: SecretStore
    emit: Emit
    surroundings: Callable[[str], str | None]
    outside: Mapping[str, str]
    given: Mapping[str, str]
    revision: tuple[str, str] = ("", "")
    cache: bool = True
    reuse: Mapping[str, str] | None = None  # node -> key of a green result in the run that is resumed
    keep: bool = False


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
        self.slug = f"{context.run}-{re.sub('[^a-z0-9]+', '-', node.title.lower()).strip('-')}"[:50]

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
        checkout = tree_digest(self.context.spec.root) if self.stage.checkout else ""
        return stage_key(
            self.stage,
            images=images,
            env=env,
            inputs=inputs,
            checkout=checkout and self.stage.checkout + checkout,
        )

    def _needed(self, stage: str) -> list[NodeResult]:
        from pipeline.plan import stage_nodes

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

    # --- attempts -----------------------------------------------------------------------------------------------

    def _attempts(self, images: Mapping[str, str], env: dict[str, str], key: Key | None) -> NodeResult:
        retry = self.stage.retry
        for attempt in range(1, retry.max + 2):
            output = StageOutput(
                self.node.name, self.context.emit, self.context.secrets.masker, *self._commands()
            )
            result = self._attempt(images, env, attempt, output)
            result = replace(result, attempts=attempt, key=key.digest if key else "")
            if result.green or attempt > retry.max or not self._again(result):
                break
            self._warn(f"attempt {attempt} of {retry.max + 1}: {result.error}; trying again")
            if retry.backoff and self.cancel.wait(retry.backoff * 2 ** (attempt - 1)):
                break
        if result.outcome is Outcome.DONE and key is not None:
            result = replace(result, detail="; ".join(filter(None, (result.detail, self._why_again(key)))))
            self.context.results.keep(key, self.context.spec.name, self.context.run, result, output.log)
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

    def _attempt(
        self, images: Mapping[str, str], env: dict[str, str], attempt: int, output: StageOutput
    ) -> NodeResult:
        try:
            with ExitStack() as stack:
                return self._inside(stack, images, {**env, "PIPE_ATTEMPT": str(attempt)}, output)
        except PipeError as error:
            outcome = outcome_of(error)
            return self._result(
                outcome,
                error=error.message,
                image=images[self.stage.container.image],
                output=output.tail,
                cause=error,
            )

    def _inside(
        self, stack: ExitStack, images: Mapping[str, str], env: dict[str, str], output: StageOutput
    ) -> NodeResult:
        engine, stage = self.context.engine, self.stage
        services = stack.enter_context(
            StageServices(
                engine,
                stage,
                self.slug,
                images,
                self._place(),
                self._labels(),
                self.context.secrets,
                self._emit_of,
            )
        )
        services.start(self.cancel)
        mounts, variables = stack.enter_context(self.context.secrets.handed_out(stage.secrets))
        shared = self._shared_directory(output)
        spec = self._container(images, {**env, **dict(variables)}, (*mounts, shared), services)
        container = engine.create(spec)
        if not self.context.keep:
            stack.callback(engine.remove, container)
        self._bring_artifacts(container)
        status = self._run_container(container, output)
        output.finish()
        collected = self._collect(container, status)
        self._show_tests(collected)
        services.after(green=status.code == 0, warn=self._warn)
        return self._of(status, collected, images, output)

    def _place(self) -> Place:
        return Place(
            self.context.spec.root, self.context.outside, self.lookup, volume_prefix=f"pipe-{self.slug}-"
        )

    def _labels(self) -> dict[str, str]:
        return {
            **stage_labels(),
            "pipe.run": self.context.run,
            "pipe.project": self.context.spec.name,
            "pipe.stage": self.node.title,
        }

    def _emit_of(self, service: str) -> Callable[[str, bytes], None]:
        name = f"{self.node.name}/{service}"
        return lambda stream, data: self.context.emit(Output(node=name, stream=stream, data=data))

    def _commands(self) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
        """Those that decide, and those of `after`."""
        stage = self.stage
        contexts = (*stage.before.contexts, *stage.run.contexts)
        script = Script((*stage.before.parts, *stage.run.parts), contexts)
        return commands(script), commands(stage.after)

    def _shared_directory(self, output: StageOutput) -> Mount:
        """The directory at /run/pipe: the script, and the file the stage writes its outputs to."""
        directory = os.path.join(self.context.directory, "nodes", self.slug)
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o755)
        text = shell_text(*self._commands(), output.nonce)
        for name, content, mode in (("script", text, 0o644), ("output", "", 0o666)):
            path = os.path.join(directory, name)
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(content)
            os.chmod(path, mode)
        return Mount(type="bind", source=directory, target=INSIDE)

    def _container(
        self,
        images: Mapping[str, str],
        env: Mapping[str, str],
        mounts: tuple[Mount, ...],
        services: StageServices,
    ) -> ContainerSpec:
        stage, keys = self.stage, self.stage.container
        changes: dict[str, Any] = {}
        if stage.run:
            script = (*stage.shell, f"{INSIDE}/script")
            # A custom entrypoint wraps the shell; the image's own would take the script for its arguments.
            changes = {"entrypoint": keys.entrypoint or script, "command": script if keys.entrypoint else ()}
        if stage.checkout:
            checkout = Mount(
                type="bind", source=self.context.spec.root, target=stage.checkout, copy_on_write=True
            )
            mounts = (checkout, *mounts)
            if keys.working_dir is None:
                changes["working_dir"] = stage.checkout
        spec = container_spec(
            keys,
            self._place(),
            image=images[keys.image],
            env=env,
            name=f"pipe-{self.slug}-{os.urandom(2).hex()}",
            labels={**dict(keys.labels), **self._labels()},
            owner_bound=not self.context.keep,
            **services.network_of(None),
            **changes,
        )
        return replace(spec, mounts=(*spec.mounts, *mounts))

    def _bring_artifacts(self, container: str) -> None:
        for need in self.stage.needs:
            artifacts = (
                tuple(a for result in self._needed(need.stage) for a in result.artifacts)
                if need.artifacts
                else ()
            )
            if artifacts:
                with as_tar(self.context.artifacts, artifacts) as archive:
                    self.context.engine.copy_in(container, "/", archive)

    def _run_container(self, container: str, output: StageOutput) -> ExitStatus:
        engine = self.context.engine
        with self.cancel.on_cancel(lambda: engine.kill(container, 9)):
            self.cancel.check()
            engine.start(container, output.feed)
            status = engine.wait(container, self.stage.timeout or None)
            if status is None:
                self._stop_late(container)
                raise TimedOut(f"no end after {self.stage.timeout:g} s", self.stage.span)
            self.cancel.check()
        return status

    def _stop_late(self, container: str) -> None:
        """TERM to every process but the shell, which then runs `after`; KILL for what is left."""
        engine = self.context.engine
        if self.stage.run:
            engine.execute(container, ExecSpec(argv=(*self.stage.shell, "-c", "kill -TERM -1")))
        else:
            engine.kill(container, 15)
        grace = self.stage.container.stop_grace_period or _TERM_SECONDS
        if engine.wait(container, grace) is None:
            engine.kill(container, 9)
            engine.wait(container, 60)

    def _collect(self, container: str, status: ExitStatus) -> Collected:
        path = os.path.join(self.context.directory, "nodes", self.slug, "output")
        return collect_files(
            self.context.engine,
            self.context.artifacts,
            container,
            self.stage,
            green=status.code == 0,
            outputs=path,
            secrets=self.context.secrets.masker,
            warn=self._warn,
        )

    def _show_tests(self, collected: Collected) -> None:
        for failure in collected.tests.failures[:20] if collected.tests else ():
            place = f" ({failure.file}:{failure.line})" if failure.file else ""
            self._warn(f"{failure.name}{place}: {failure.message}".rstrip(": "))

    def _warn(self, message: str) -> None:
        self.context.emit(Warned(node=self.node.name, message=message))

    # --- the result ---------------------------------------------------------------------------------------------

    def _of(
        self, status: ExitStatus, collected: Collected, images: Mapping[str, str], output: StageOutput
    ) -> NodeResult:
        tests = collected.tests
        given: dict[str, Any] = {
            "image": images[self.stage.container.image],
            "exit_code": status.code,
            "outputs": collected.outputs,
            "artifacts": collected.artifacts,
            "tests": tests,
        }
        if status.code == 0:
            return self._result(Outcome.DONE, detail=tests.summary if tests else "", **given)
        reason, current = self._why(status, tests), output.current
        place = f" at {current.span}: {_short(current.title)}" if current else ""
        cause = StepFailed(
            f"{reason}{f': {_short(current.title)}' if current else ''}",
            current.span if current else self.stage.span,
            exit_code=status.code,
            output=output.tail,
        )
        return self._result(Outcome.FAILED, error=reason + place, output=output.tail, cause=cause, **given)

    def _why(self, status: ExitStatus, tests: TestReport | None) -> str:
        reason = f"exit {status.code}"
        if status.oom_killed:
            reason += " (out of memory)"
        if status.error:
            reason += f" ({status.error})"
        return f"{reason}; {tests.summary}" if tests else reason

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
        return built.image if built and word in ("digest", "id") else (built.detail if built else None)
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


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
