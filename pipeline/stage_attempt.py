"""One attempt of a stage, from its network to its artifacts.

The order: network, services in the order of their needs, gates, the stage's container, reports and artifacts; and in
reverse everything is removed, whatever happened. Only the container's exit code decides; reports are kept on failure and
on a timeout too. What a container is and where it runs is the engine's.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from pipeline.artifacts import ArtifactStore, as_tar
from pipeline.config.container import SecretUse
from pipeline.containers import Place, container_spec
from pipeline.engines import Engine
from pipeline.junit import TestReport
from pipeline.leftovers import stage_labels
from pipeline.plan import Node
from pipeline.results import NodeResult, Results
from pipeline.scheduler import outcome_of
from pipeline.script import Command, commands, shell_text
from pipeline.secrets import DIRECTORY, SecretStore
from pipeline.spec import PipelineSpec, Script, StageSpec
from pipeline.stage_files import Collected, collect_files
from pipeline.stage_output import StageOutput
from pipeline.stage_services import StageServices
from registry_client.values import frozen, replace
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus, Mount
from runtime.errors import PipeError, StepFailed, TimedOut
from runtime.events import Emit, Finished, Outcome, Output, Started, Warned

INSIDE = "/run/pipe"
_TERM_SECONDS = 10.0


@frozen(kw_only=True)
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


@frozen(kw_only=True)
class StageJob:
    """A stage with everything about it decided: placeholders filled, images resolved."""

    context: StageContext
    node: Node
    stage: StageSpec
    images: Mapping[str, str]
    needed: Mapping[str, list[NodeResult]]  # stages whose artifacts it takes in
    lookup: Callable[[str], str | None]
    started: float

    @property
    def slug(self) -> str:
        """Names of what exists for it: readable, and its own."""
        words = re.sub("[^a-z0-9]+", "-", self.node.title.lower()).strip("-")[:24]
        mark = hashlib.sha256(self.node.name.encode()).hexdigest()[:4]
        return f"{self.context.run}-{words}-{mark}"


class Attempt:
    """`run` once; `output` has what it said."""

    def __init__(self, job: StageJob, env: Mapping[str, str], cancel: Cancel) -> None:
        self.job, self.context, self.node, self.stage = job, job.context, job.node, job.stage
        self.images, self.slug, self.cancel, self._env = job.images, job.slug, cancel, env
        self._directory = os.path.join(self.context.directory, "nodes", self.slug, os.urandom(4).hex())
        self.output = StageOutput(
            self.node.name, self.context.emit, self.context.secrets.masker, *self._commands()
        )

    def run(self) -> NodeResult:
        try:
            with ExitStack() as stack:
                return self._inside(stack)
        except PipeError as error:
            return self._ended(error, image=self.images[self.stage.container.image])

    def _ended(self, error: PipeError, **given: Any) -> NodeResult:
        outcome, tail = outcome_of(error), self.output.tail
        return self._result(outcome, error=error.message, output=tail, cause=error, **given)

    def _inside(self, stack: ExitStack) -> NodeResult:
        engine = self.context.engine
        services = stack.enter_context(self._services())
        services.start(self.cancel)
        mounts, variables = stack.enter_context(self.context.secrets.handed_out(self._secret_uses()))
        spec = self._container(
            {**self._env, **dict(variables)}, (*mounts, self._shared_directory()), services
        )
        container = engine.create(spec)
        stack.callback(engine.remove, container)
        self._bring_artifacts(container)
        status = self._run_container(container)
        late = status is None
        status = status or self._stop_late(container)
        self.output.finish()
        collected = self._collect(container, green=not late and status.code == 0)
        self._show_tests(collected)
        services.after(green=status.code == 0, warn=self._warn)
        return self._of(status, collected, late)

    def _secret_uses(self) -> tuple[SecretUse, ...]:
        """All as files where there is a script: it reads its variables from them, and no container's record has them."""
        if not self.stage.run:
            return self.stage.secrets
        return tuple(
            replace(use, env="", target=_variable_file(use)) if use.env else use for use in self.stage.secrets
        )

    def _services(self) -> StageServices:
        return StageServices(
            self.context.engine,
            self.stage,
            self.slug,
            self.images,
            self._place(),
            self._labels(),
            self.context.secrets,
            self._show_log,
        )

    def _place(self) -> Place:
        return Place(
            self.context.spec.root, self.context.outside, self.job.lookup, volume_prefix=f"pipe-{self.slug}-"
        )

    def _labels(self) -> dict[str, str]:
        return {
            **stage_labels(),
            "pipe.run": self.context.run,
            "pipe.project": self.context.spec.name,
            "pipe.stage": self.node.title,
        }

    def _show_log(self, service: str, data: bytes) -> None:
        """A service's last lines, as a node of their own."""
        node, emit = f"{self.node.name}/{service}", self.context.emit
        emit(Started(node=node, name=f"log of service {service}", parent=self.node.name))
        emit(Output(node=node, stream="stdout", data=data))
        emit(Finished(node=node, outcome=Outcome.DONE))

    def _commands(self) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
        """Those that decide, and those of `after`."""
        stage = self.stage
        contexts = (*stage.before.contexts, *stage.run.contexts)
        script = Script((*stage.before.parts, *stage.run.parts), contexts)
        return commands(script), commands(stage.after)

    def _shared_directory(self) -> Mount:
        """The directory at /run/pipe: the script, and the file the stage writes its outputs to.

        A new one for every attempt: what was in a container before may have left links in it.
        """
        os.makedirs(os.path.dirname(self._directory), exist_ok=True)
        os.mkdir(self._directory)
        os.chmod(self._directory, 0o755)  # whatever our umask: the container's user reads it
        secrets = tuple(
            (use.env, f"{DIRECTORY}/{_variable_file(use)}") for use in self.stage.secrets if use.env
        )
        text = shell_text(*self._commands(), self.output.nonce, secrets)
        for name, content, mode in (("script", text, 0o644), ("output", "", 0o666)):
            with open(
                os.path.join(self._directory, name), "x", encoding="utf-8", errors="surrogateescape"
            ) as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
        return Mount(type="bind", source=self._directory, target=INSIDE)

    def _container(
        self, env: Mapping[str, str], mounts: tuple[Mount, ...], services: StageServices
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
            image=self.images[keys.image],
            env=env,
            name=f"pipe-{self.slug}-{os.urandom(2).hex()}",
            labels={**dict(keys.labels), **self._labels()},
            owner_bound=True,
            **services.network_of(None),
            **changes,
        )
        return replace(spec, mounts=(*spec.mounts, *mounts))

    def _bring_artifacts(self, container: str) -> None:
        for results in self.job.needed.values():
            artifacts = tuple(artifact for result in results for artifact in result.artifacts)
            if artifacts:
                with as_tar(self.context.artifacts, artifacts) as archive:
                    self.context.engine.copy_in(container, "/", archive)

    def _run_container(self, container: str) -> ExitStatus | None:
        """How it ended; None when its time is over."""
        engine = self.context.engine
        with self.cancel.on_cancel(lambda: engine.kill(container, 9)):
            self.cancel.check()
            engine.start(container, self.output.feed)
            if self.cancel.cancelled:
                engine.kill(container, 9)  # cancelled while it was starting: there was nothing to kill yet
            status = engine.wait(container, self.stage.timeout or None)
            self.cancel.check()
        return status

    def _stop_late(self, container: str) -> ExitStatus:
        """TERM to every process but the shell, which then runs `after`; KILL for what is left."""
        engine = self.context.engine
        if self.stage.run:
            engine.execute(container, ExecSpec(argv=(*self.stage.shell, "-c", "kill -TERM -1")))
        else:
            engine.kill(container, 15)
        grace = self.stage.container.stop_grace_period or _TERM_SECONDS
        status = engine.wait(container, grace)
        if status is None:
            engine.kill(container, 9)
            status = engine.wait(container, 60)
        return status or ExitStatus(code=137)

    def _collect(self, container: str, *, green: bool) -> Collected:
        path = os.path.join(self._directory, "output")
        return collect_files(
            self.context.engine,
            self.context.artifacts,
            container,
            self.stage,
            green=green,
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

    def _of(self, status: ExitStatus, collected: Collected, late: bool) -> NodeResult:
        tests = collected.tests
        given: dict[str, Any] = {
            "image": self.images[self.stage.container.image],
            "exit_code": status.code,
            "outputs": collected.outputs,
            "artifacts": collected.artifacts,
            "tests": tests,
        }
        if late:
            error = TimedOut(f"no end after {self.stage.timeout:g} s", self.stage.span)
            return self._ended(error, **given)
        if status.code == 0:
            return self._result(Outcome.DONE, detail=tests.summary if tests else "", **given)
        return self._failed(self._why(status, tests), status, given)

    def _failed(self, reason: str, status: ExitStatus, given: dict[str, Any]) -> NodeResult:
        current, tail = self.output.current, self.output.tail
        title = f": {_short(current.title)}" if current else ""
        place = f" at {current.span}" if current else ""
        span = current.span if current else self.stage.span
        cause = StepFailed(reason + title, span, exit_code=status.code, output=tail)
        return self._result(
            Outcome.FAILED, error=f"{reason}{place}{title}", output=tail, cause=cause, **given
        )

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
            started=self.job.started,
            finished=time.time(),
            **given,
        )


def _variable_file(use: SecretUse) -> str:
    return f".env/{use.env}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
