"""For tests of the pipeline: specs from text, an engine in memory, and a run without a command line."""

from __future__ import annotations

import io
import json
import tarfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipeline.artifacts import ArtifactStore
from pipeline.checks import check_pipeline
from pipeline.config.load import Surroundings, load_pipeline, sorted_problems
from pipeline.deploy.deploy import Approve, DeployContext
from pipeline.deploy.records import Deployments
from pipeline.engines import BuildOrder, BuiltImage, ContainerState, ImageFacts, OnOutput
from pipeline.event_log import EventLog
from pipeline.journal import Journal, Request
from pipeline.loaded import Loaded
from pipeline.mask import MaskedEmit, Secrets
from pipeline.plan import Goal, Kind, Plan, plan_run
from pipeline.results import Results
from pipeline.runner import Run, RunOptions, RunResult
from pipeline.secrets import SecretStore
from pipeline.spec import InvalidPipeline
from registry_client.oci.digest import digest_of
from runtime.cancel import Cancel
from runtime.containers.spec import ContainerSpec, ExecSpec, ExitStatus, NetworkAttachment
from runtime.errors import Conflict, NotFound
from runtime.events import Event
from runtime.store import Store


def loaded(
    tmp_path: Path, text: str, env: Mapping[str, str] | None = None, given: Mapping[str, str] | None = None
) -> Loaded:
    """A pipe.yaml in `tmp_path`, read and checked as the command line does."""
    path = tmp_path / "pipe.yaml"
    path.write_text(textwrap.dedent(text))
    surroundings = Surroundings(str(tmp_path), env or {}, given)
    spec = load_pipeline(str(path), surroundings)
    problems = check_pipeline(spec)
    if problems:
        raise InvalidPipeline(sorted_problems(list(problems)))
    return Loaded(spec=spec, surroundings=surroundings)


def planned(pipeline: Loaded, kind: Kind = Kind.STAGE, *names: str, tests: bool = True) -> Plan:
    return plan_run(pipeline.spec, Goal(kind=kind, names=names, tests=tests), pipeline.facts)


# --- an engine in memory --------------------------------------------------------------------------------------------


@dataclass
class Behaviour:
    """What a container does: lines it prints, files it leaves, how it ends. `gate`: it ends only when this is set."""

    code: int = 0
    output: tuple[tuple[str, bytes], ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    writes: bytes = b""  # to $PIPE_OUTPUT
    gate: threading.Event | None = None
    runs_on: bool = False  # a service: stays until it is stopped
    health: str = ""
    started: threading.Event = field(default_factory=threading.Event)


@dataclass
class FakeContainer:
    id: str
    spec: ContainerSpec
    name: str
    behaviour: Behaviour
    status: str = "created"
    code: int = 0
    output: OnOutput | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    copied_in: list[tuple[str, list[str]]] = field(default_factory=list)


Behave = Callable[[ContainerSpec], Behaviour]


class FakeEngine:
    """Implements `pipeline.engines.Engine`. `log` tells what was asked of it, in order."""

    def __init__(self, behave: Behave | None = None) -> None:
        self.behave: Behave = behave or (lambda spec: Behaviour())
        self.log: list[str] = []
        self.orders: list[BuildOrder] = []
        self.tags: dict[str, str] = {}
        self.pushed: list[str] = []
        self.made: dict[str, FakeContainer] = {}
        self.network_labels: dict[str, Mapping[str, str]] = {}
        self.volume_labels: dict[str, Mapping[str, str]] = {}
        self.build_error: Exception | None = None
        self.content: dict[str, str] = {}  # image name -> what makes its id
        self._lock = threading.RLock()
        self._count = 0

    def _say(self, text: str) -> None:
        with self._lock:
            self.log.append(text)

    def build(self, order: BuildOrder, cancel: Cancel) -> BuiltImage:
        self._say(f"build {order.name}")
        self.orders.append(order)
        if self.build_error is not None:
            raise self.build_error
        image = digest_of(f"{order.name} {self.content.get(order.name, '')}".encode())
        for tag in order.tags:
            self.tags[tag] = image
        return BuiltImage(image)

    def image(self, name: str, pull: str, cancel: Cancel, platform: str = "") -> ImageFacts:
        if name in self.tags:
            return ImageFacts(self.tags[name])
        if pull == "never":
            raise NotFound(f"no image {name}")
        return ImageFacts(digest_of(name.encode()))

    def tag(self, image_id: str, reference: str) -> None:
        self._say(f"tag {reference}")
        self.tags[reference] = image_id

    def push(self, reference: str, cancel: Cancel) -> str:
        self.pushed.append(reference)
        return str(digest_of(reference.encode()))

    def create(self, spec: ContainerSpec) -> str:
        with self._lock:
            self._count += 1
            name = spec.name or f"c{self._count}"
            if any(container.name == name for container in self.made.values()):
                raise Conflict(f"the name {name} is taken")
            container = FakeContainer(f"id{self._count}", spec, name, self.behave(spec))
            self.made[container.id] = container
            self._say(f"create {name}")
            return container.id

    def start(self, container_id: str, output: OnOutput | None = None) -> None:
        container = self.made[container_id]
        container.status, container.output = "running", output
        container.ended.clear()
        self._say(f"start {container.name}")
        container.behaviour.started.set()
        if not container.behaviour.runs_on:
            threading.Thread(target=self._live, args=(container,), daemon=True).start()

    def _live(self, container: FakeContainer) -> None:
        behaviour = container.behaviour
        for stream, data in behaviour.output:
            if container.output:
                container.output(stream, data)
        if behaviour.writes:
            mount = next(m for m in container.spec.mounts if m.target == "/run/pipe")
            with open(f"{mount.source}/output", "ab") as file:
                file.write(behaviour.writes)
        if behaviour.gate is not None:
            behaviour.gate.wait(60)
        self._end(container, behaviour.code)

    def _end(self, container: FakeContainer, code: int) -> None:
        with self._lock:
            if container.status != "exited":
                container.status, container.code = "exited", code
                self.log.append(f"end {container.name} {code}")
            container.ended.set()

    def wait(self, container_id: str, timeout: float | None = None) -> ExitStatus | None:
        container = self.made[container_id]
        if not container.ended.wait(60 if timeout is None else timeout):
            return None
        return ExitStatus(code=container.code)

    def stop(self, container_id: str, timeout: float) -> None:
        self._say(f"stop {self.made[container_id].name}")
        self._end(self.made[container_id], 143)

    def kill(self, container_id: str, signal: int) -> None:
        self._end(self.made[container_id], 128 + signal)

    def remove(self, container_id: str, *, volumes: bool = True) -> None:
        with self._lock:
            container = self.made.pop(container_id, None)
        if container is not None:
            self._say(f"remove {container.name}")
            container.ended.set()

    def rename(self, container_id: str, name: str) -> None:
        self._say(f"rename {self.made[container_id].name} {name}")
        self.made[container_id].name = name

    def state(self, container_id: str) -> ContainerState | None:
        container = self.made.get(container_id)
        return self._state(container) if container else None

    def _state(self, container: FakeContainer) -> ContainerState:
        return ContainerState(
            id=container.id,
            name=container.name,
            status=container.status,
            exit_code=container.code,
            health=container.behaviour.health if container.status == "running" else "",
            image=self.tags.get(container.spec.image, container.spec.image),
            labels=container.spec.labels,
        )

    def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        with self._lock:
            return [self._state(c) for c in self.made.values() if labels.items() <= c.spec.labels.items()]

    def logs(self, container_id: str, tail: int = 50) -> bytes:
        return b"".join(data for _, data in self.made[container_id].behaviour.output)

    def execute(self, container_id: str, spec: ExecSpec, output: OnOutput | None = None) -> int:
        container = self.made[container_id]
        self._say(f"exec {container.name} {' '.join(spec.argv)}")
        if spec.argv[-1] == "kill -TERM -1":
            self._end(container, 143)
        return 0

    @contextmanager
    def copy_out(self, container_id: str, path: str) -> Iterator[BinaryIO]:
        files = self.made[container_id].behaviour.files
        found = {
            name: data
            for name, data in files.items()
            if name == path or name.startswith(path.rstrip("/") + "/")
        }
        if not found:
            raise NotFound(f"no {path}")
        base = path.rsplit("/", 1)[0]
        yield make_tar({name[len(base) :].lstrip("/"): data for name, data in found.items()})

    def copy_in(self, container_id: str, directory: str, archive: BinaryIO) -> None:
        with tarfile.open(fileobj=archive) as tar:
            self.made[container_id].copied_in.append((directory, tar.getnames()))

    def connect(self, container_id: str, attachment: NetworkAttachment) -> None:
        self._say(f"connect {container_id} {attachment.network}")

    def network(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        internal: bool = False,
        subnet: str = "",
        gateway: str = "",
    ) -> None:
        self.network_labels.setdefault(name, labels)

    def remove_network(self, name: str) -> None:
        self.network_labels.pop(name, None)

    def networks(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        return (
            (name, own) for name, own in list(self.network_labels.items()) if labels.items() <= own.items()
        )

    def volume(self, name: str, *, labels: Mapping[str, str], options: Mapping[str, str]) -> None:
        self.volume_labels.setdefault(name, labels)

    def remove_volume(self, name: str) -> None:
        self.volume_labels.pop(name, None)

    def volumes(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        return (
            (name, own) for name, own in list(self.volume_labels.items()) if labels.items() <= own.items()
        )


def make_tar(files: Mapping[str, bytes]) -> BinaryIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def by_stage(**behaviours: Behaviour) -> Behave:
    """Behaviours by the stage's title or the service's name; everything else ends well at once."""

    def behave(spec: ContainerSpec) -> Behaviour:
        label = (
            spec.labels.get("pipe.service")
            or spec.labels.get("com.docker.compose.service")
            or spec.labels.get("pipe.stage", "")
        )
        return behaviours.get(label) or behaviours.get(label.partition(" ")[0]) or Behaviour()

    return behave


# --- a run without a command line -----------------------------------------------------------------------------------


@dataclass
class Bench:
    """A store, a fake engine, and everything seen on the event stream."""

    tmp_path: Path
    store: Store
    engine: FakeEngine
    events: list[Event] = field(default_factory=list)
    cancel: Cancel = field(default_factory=Cancel)
    last: str = ""

    @property
    def journal(self) -> Journal:
        return Journal(self.store)

    def run(
        self,
        pipeline: Loaded,
        kind: Kind = Kind.STAGE,
        *names: str,
        tests: bool = True,
        approve: Approve | None = None,
        resume: str = "",
        **options: object,
    ) -> RunResult:
        """Plan and run, as `pipeline.commands` does."""
        plan, journal = planned(pipeline, kind, *names, tests=tests), self.journal
        run = resume or journal.begin(pipeline.spec.name, str(self.tmp_path), Request(str(kind), names), "")
        reuse = (
            {name: r.key for name, r in journal.results(run).items() if r.green and r.key} if resume else {}
        )
        self.last = run
        masker = Secrets()
        with EventLog(journal.path(run), self.events.append) as log:
            emit = MaskedEmit(log, masker)
            surroundings = pipeline.surroundings
            secrets = SecretStore(
                pipeline.spec.secrets, str(self.tmp_path), surroundings.variables, masker, pipeline.facts
            )
            deploy = DeployContext(
                spec=pipeline.spec,
                engine=self.engine,
                deployments=Deployments(self.store.db, pipeline.spec.name),
                secrets=secrets,
                emit=emit,
                outside=surroundings.variables,
                store=self.store.root,
                run=run,
                who="tester",
                approve=approve or (lambda environment, summary: None),
            )
            result = Run(
                id=run,
                plan=plan,
                directory=journal.path(run),
                engine=self.engine,
                journal=journal,
                results=Results(self.store.db),
                artifacts=ArtifactStore(self.store.root),
                secrets=secrets,
                surroundings=surroundings,
                deploy=deploy,
                emit=emit,
                cancel=self.cancel,
                options=RunOptions(**{"jobs": 4, "reuse": reuse, **options}),  # type: ignore[arg-type]
            ).run()
        journal.end(run, str(result.outcome))
        return result

    def outcomes(self, result: RunResult) -> dict[str, str]:
        return {name: str(node.outcome) for name, node in result.nodes.items()}

    def journal_text(self) -> str:
        return (Path(self.journal.path(self.last)) / "events.jsonl").read_text()


@contextmanager
def bench(tmp_path: Path, behave: Behave | None = None) -> Iterator[Bench]:
    with Store.open(str(tmp_path / "store")) as store:
        yield Bench(tmp_path, store, FakeEngine(behave))


def schema_json() -> dict[str, object]:
    from pipeline.config.pipefile import json_schema

    return dict(json.loads(json.dumps(json_schema())))
