"""What `pipe build`, `pipe test`, `pipe deploy`, `pipe resume` and `pipe rollback` have in common: read, check, plan, run, tell.

Everything that can be wrong in a pipe.yaml is found before the store is opened. A run that failed by a mistake in what
was written, and did nothing else, leaves no record.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.checks import warnings_of
from pipeline.journal import Request
from pipeline.loaded import Loaded, load
from pipeline.plan import Goal, Kind, Plan, plan_run
from pipeline.spec import EnvironmentSpec
from registry_client.values import field, frozen
from runtime import errors
from runtime.cancel import Cancel
from runtime.events import Outcome, Warned

if TYPE_CHECKING:
    from pipeline.deploy.deploy import Approve, DeployContext
    from pipeline.engines.local import LocalEngine
    from pipeline.journal import Journal
    from pipeline.mask import Secrets
    from pipeline.results import NodeResult
    from pipeline.runner import RunResult
    from pipeline.secrets import SecretStore
    from pipeline.services import Services

KINDS = {"build": Kind.IMAGE, "test": Kind.STAGE, "deploy": Kind.DEPLOY}


class Session(Protocol):
    """What of a command line's session is needed here."""

    @property
    def cancel(self) -> Cancel: ...

    def work(
        self, *, containers: bool = True, private_mounts: bool = False, progress: str | None = None
    ) -> AbstractContextManager[Services]: ...


@frozen(kw_only=True)
class Asked:
    """One call of the command line."""

    kind: str
    names: tuple[str, ...] = ()
    file: str = ""
    directory: str = "."
    home: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    jobs: int = 0
    tests: bool = True
    start: str = ""
    until: str = ""
    approve: Approve | None = None
    progress: str | None = None
    artifacts: str = ""  # a directory to put the artifacts of all stages into
    resume: str = ""

    @property
    def goal(self) -> Goal:
        return Goal(
            kind=KINDS[self.kind], names=self.names, tests=self.tests, start=self.start, until=self.until
        )

    @property
    def request(self) -> Request:
        options = {
            "file": self.file,
            "no_cache": self.no_cache,
            "tests": self.tests,
            "start": self.start,
            "until": self.until,
        }
        return Request(self.kind, self.names, (*options.items(), ("env", dict(self.env))))


def run_pipeline(session: Session, *, kind: str, names: tuple[str, ...] = (), **options: Any) -> int:
    """Run the part of the pipeline that `kind` and `names` need; 0, or 5 where a deploy waits for approval.

    What went wrong is shown, and the worst of it raised.
    """
    from pipeline.settings import environment

    asked = Asked(kind=kind, names=names, **options)
    loaded = load(environment(), file=asked.file, directory=asked.directory, home=asked.home, given=asked.env)
    plan = plan_run(loaded.spec, asked.goal, loaded.facts)
    _check_engines(plan)
    with session.work(containers=True, private_mounts=True, progress=asked.progress) as services:
        result = _run(services, asked, loaded, plan)
    from pipeline.conclusion import conclude
    from pipeline.ui.summary import show_run

    show_run(plan, result, to_stderr=_progress_of(services, asked) == "jsonl")
    return conclude(result)


def _progress_of(services: Services, asked: Asked) -> str:
    return asked.progress or services.settings.progress


def _check_engines(plan: Plan) -> None:
    """Say what cannot be done before anything is done."""
    from pipeline.engines.local import check_engine

    for node in plan.nodes:
        if isinstance(node.subject, EnvironmentSpec):
            if node.subject.kubernetes:
                raise errors.Unsupported(
                    f"environment `{node.subject.name}`: kubernetes is not there yet",
                    node.subject.span,
                    hint="`compose:` or `services:` on the local engine is what there is",
                )
            check_engine(node.subject.engine, node.subject.span)


def _run(services: Services, asked: Asked, loaded: Loaded, plan: Plan) -> RunResult:
    from pipeline.artifacts import ArtifactStore
    from pipeline.conclusion import left_nothing
    from pipeline.deploy.deploy import WAITING
    from pipeline.gitfacts import commit_and_branch
    from pipeline.journal import Journal
    from pipeline.results import Results
    from pipeline.runner import Run, RunOptions

    spec, cancel = loaded.spec, services.cancel
    journal = Journal(services.store)
    revision = commit_and_branch(spec.root)
    reuse = {}
    if asked.resume:
        run_id = asked.resume
        reuse = {
            name: result.key
            for name, result in journal.results(run_id).items()
            if result.green and result.key
        }
        journal.reopen(run_id)
    else:
        run_id = journal.begin(spec.name, spec.root, asked.request, revision[0])
    outcome = ""
    try:
        with recorded(services, journal, run_id) as masker, engine_of(services) as engine:
            for message, span in warnings_of(spec):
                services.publish(Warned(node="plan", message=message, span=span))
            secrets = _secrets(loaded, masker)
            artifacts = ArtifactStore(services.store.root)
            run = Run(
                id=run_id,
                plan=plan,
                directory=journal.path(run_id),
                engine=engine,
                journal=journal,
                results=Results(services.store.db),
                artifacts=artifacts,
                secrets=secrets,
                surroundings=loaded.surroundings,
                deploy=_deploy_context(services, loaded, engine, secrets, run_id, revision[0], asked),
                emit=services.publish,
                cancel=cancel,
                options=RunOptions(
                    jobs=asked.jobs or spec.jobs or services.jobs, cache=not asked.no_cache, reuse=reuse
                ),
                revision=revision,
            )
            result = run.run()
        waits = any(node.detail == WAITING for node in result.nodes.values())
        outcome = "waiting" if waits and result.outcome is Outcome.DONE else str(result.outcome)
        if asked.artifacts:
            _export(artifacts, result.nodes, asked.artifacts)
        if left_nothing(result) and not asked.resume:
            journal.discard(run_id)
    finally:
        journal.end(run_id, outcome or ("cancelled" if cancel.cancelled else "error"))
        loaded.surroundings.git.close()
    return result


@contextmanager
def recorded(services: Services, journal: Journal, run: str) -> Iterator[Secrets]:
    """All events go through the masker, then into the journal, then to the screen."""
    from pipeline.event_log import EventLog
    from pipeline.mask import MaskedEmit, Secrets

    masker, screen = Secrets(), services.emit
    with EventLog(journal.path(run), screen) as log:
        services.emit = MaskedEmit(log, masker)
        try:
            yield masker
        finally:
            services.emit = screen


@contextmanager
def engine_of(services: Services) -> Iterator[LocalEngine]:
    """The local engine, on a store that was put right after dead processes."""
    from pipeline.engines.local import LocalEngine
    from pipeline.leftovers import remove_leftovers

    services.containers.sweep()
    engine = LocalEngine(services)
    remove_leftovers(engine)
    try:
        yield engine
    finally:
        engine.close()


def _secrets(loaded: Loaded, masker: Secrets) -> SecretStore:
    from pipeline.secrets import SecretStore

    return SecretStore(
        loaded.spec.secrets, loaded.spec.root, loaded.surroundings.variables, masker, loaded.facts
    )


def _deploy_context(
    services: Services,
    loaded: Loaded,
    engine: LocalEngine,
    secrets: SecretStore,
    run: str,
    revision: str,
    asked: Asked,
) -> DeployContext:
    from pipeline.deploy.deploy import DeployContext
    from pipeline.deploy.records import Deployments

    return DeployContext(
        spec=loaded.spec,
        engine=engine,
        deployments=Deployments(services.store.db, loaded.spec.name),
        secrets=secrets,
        emit=services.publish,
        outside=loaded.surroundings.variables,
        store=services.store.root,
        run=run,
        who=who(),
        revision=revision,
        approve=asked.approve or (lambda environment, summary: None),
    )


def who() -> str:
    """The user, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _export(store: Any, nodes: Mapping[str, NodeResult], directory: str) -> None:
    """Each stage's artifacts in a directory of its own name."""
    from pipeline.artifacts import write_out

    for name, result in nodes.items():
        if result.artifacts:
            write_out(store, result.artifacts, os.path.join(directory, name.partition("/")[2]))


def resume_pipeline(
    session: Session, run: str, *, progress: str | None = None, approve: Approve | None = None
) -> int:
    """Go on with a run: what was green is not repeated."""
    from pipeline.journal import Journal

    with session.work(containers=False, progress="none") as services:
        record = Journal(services.store).find(run)
    if record.outcome in ("done", ""):
        state = "is still running" if not record.outcome else "is done"
        raise errors.InvalidInput(f"run {record.id} {state}", hint="`pipe runs` lists the runs")
    options = dict(record.request.options)
    return run_pipeline(
        session,
        kind=record.request.kind,
        names=record.request.names,
        directory=record.root,
        resume=record.id,
        progress=progress,
        approve=approve,
        **options,
    )


def rollback(
    session: Session, environment: str, *, number: int = 0, file: str = "", progress: str | None = None
) -> tuple[int, Any]:
    """Bring an earlier release of an environment back; its number and the release."""
    from pipeline.deploy.deploy import run_rollback
    from pipeline.journal import Journal
    from pipeline.settings import environment as process_environment
    from runtime.events import Finished, Started

    loaded = load(process_environment(), file=file)
    plan_run(loaded.spec, Goal(kind=Kind.DEPLOY, names=(environment,), tests=False), loaded.facts)
    with session.work(containers=True, private_mounts=True, progress=progress) as services:
        journal = Journal(services.store)
        run = journal.begin(loaded.spec.name, loaded.spec.root, Request("rollback", (environment,)), "")
        outcome = "failed"
        try:
            with recorded(services, journal, run) as masker, engine_of(services) as engine:
                asked = Asked(kind="deploy", names=(environment,))
                context = _deploy_context(services, loaded, engine, _secrets(loaded, masker), run, "", asked)
                node = f"deploy/{environment}"
                services.publish(Started(node=node, name=f"rollback {environment}"))
                try:
                    found = run_rollback(context, environment, number, services.cancel)
                except errors.PipeError as error:
                    services.publish(Finished(node=node, outcome=Outcome.FAILED, error=str(error)))
                    raise
                services.publish(Finished(node=node, outcome=Outcome.DONE, detail=f"to {found[0]}"))
                outcome = "done"
                return found
        finally:
            journal.end(run, outcome)
