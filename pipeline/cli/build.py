"""`pipe build`, `pipe cache`, `pipe why`.

With a path or a flag that only makes sense for one Dockerfile, `pipe build` is `docker build`; otherwise it builds the
images of pipe.yaml. Nothing of the builder is imported before it is known which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.cli.session import Session
from registry_client.values import replace
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.executor import Missed
    from builder.request import BuildRequest, BuildResult
    from pipeline.recording import Recording
    from pipeline.services import Services
    from registry_client.oci.digest import Digest
    from runtime.events import Event, Finished

PIPE_FILES = ("pipe.yaml", "pipe.yml")
# Flags that go with one Dockerfile, not with a whole pipe.yaml.
_OWN_FLAGS = (
    "file", "tag", "target", "output", "build_arg", "build_context", "iidfile", "metadata_file", "check", "call", "push",
    "label", "annotation", "attest", "provenance", "sbom", "platform", "add_host", "cache_from", "cache_to",
    "on_failure", "pin_lock", "source_policy_file",
)  # fmt: skip


def build_directly(session: Session, arguments: tuple[str, ...]) -> int | None:
    """`pipe build` by the table of its flags alone; None when click has to help or to complain."""
    from pipeline.cli.build_table import parse

    if "-h" in arguments or "--help" in arguments:
        return None
    try:
        names, flags = parse(arguments)
    except InvalidInput:
        return None
    return build(session, names, flags)


def build(session: Session, names: tuple[str, ...], flags: dict[str, Any]) -> int:
    """Build the images of pipe.yaml, or an image from a Dockerfile."""
    from pipeline.cli.build_table import without_effect

    if flags["debug"]:
        session.settings = replace(session.settings, debug=True)
    for text in without_effect(flags):
        print(f"warning: {text}", file=sys.stderr)
    if not is_docker_build(names, flags):
        return _build_pipeline(session, names, flags)
    if len(names) > 1:
        raise InvalidInput(f"`pipe build` takes one context, not {len(names)}: {' '.join(names)}")
    return _build_dockerfile(session, names[0] if names else ".", flags)


def is_docker_build(names: tuple[str, ...], flags: dict[str, Any]) -> bool:
    """Whether one Dockerfile is meant rather than the images of pipe.yaml (DESIGN.md)."""
    if not any(os.path.exists(name) for name in PIPE_FILES):
        return True
    if any(flags.get(name) for name in _OWN_FLAGS):
        return True
    return len(names) == 1 and (names[0] == "-" or "/" in names[0] or names[0] in (".", ".."))


def _build_pipeline(session: Session, names: tuple[str, ...], flags: dict[str, Any]) -> int:
    if flags["verify_reproducible"]:
        from pipeline.cli.verify_project import verify_project

        return verify_project(session, names, flags["progress"])
    from pipeline.commands import run_pipeline

    result = run_pipeline(
        session, kind="build", names=names, no_cache=flags["no_cache"], progress=flags["progress"]
    )
    return int(result)


def _build_dockerfile(session: Session, context: str, flags: dict[str, Any]) -> int:
    if flags["check"] or flags["call"] not in (None, "build"):
        from pipeline.cli.build_calls import call

        return call(session, context, flags)
    if flags["verify_reproducible"]:
        from pipeline.cli.build_command import build as command
        from pipeline.cli.verify import verify

        return verify(session, context, flags, command.params)
    progress = "none" if flags["quiet"] else flags["progress"]
    if flags["on_failure"] and progress in (None, "auto", "tty"):
        progress = "plain"  # the shell and a moving display cannot share the terminal
    request = result = None
    missed: Mapping[Digest, Missed] = {}
    if not flags["no_cache"]:
        request = _request(session, context, flags)
        result, missed = _look_up(session, request, progress)
    if request is None or result is None:
        # Where there is nothing to look up the spawner is forked at once: it gets ready beside our own imports, and a
        # small process is cheaper to fork, for each step again.
        with session.work(containers=True, private_mounts=True, progress=progress) as services:
            services.spawner.get_ready()
            request = request or _request(session, context, flags)
            if flags["on_failure"]:
                from pipeline.cli.failed_step import enter

                services.builder.on_failure = enter
            services.builder.missed = missed
            result = build_told(services, request)
    if flags["iidfile"] or flags["metadata_file"] or flags["pin_lock"]:
        _write_results(result, flags)
    if (flags["quiet"] or progress == "quiet") and not any(output.dest == "-" for output in request.outputs):
        print(result.image_id, flush=True)
    return 0


def _request(session: Session, context: str, flags: dict[str, Any]) -> BuildRequest:
    from pipeline.cli.build_flags import build_request
    from pipeline.settings import environment

    return build_request(context, flags, environment(), session.settings.epoch)


def _look_up(
    session: Session, request: BuildRequest, progress: str | None
) -> tuple[BuildResult | None, Mapping[Digest, Missed]]:
    """The result if every step is cached: then no process, thread or mount namespace has to be made for it.

    Else the step that is not, so that its files need not be looked at twice.
    """
    from builder.build import Builder

    told: list[Event] = []
    services = session.services(told.append)
    begin = _begin(request)
    try:
        builder = Builder(services.store, services.images, None, None, services.publish, session.cancel)
        result = builder.look_up(request)
    finally:
        services.close()
    if result is not None:
        end = _end(request, result)
        events = (begin, *told, end)
        if progress != "none":
            from pipeline.ui.stream import show

            settings = session.settings
            show(events, progress or settings.progress, expand=settings.debug)
        from pipeline.recording import Recording

        recording = Recording(services.store.root, request)
        for event in events:
            recording.note(event)
        result = replace(result, ref=recording.end(result, end.outcome))
    return result, builder.missed


def _begin(request: BuildRequest, name: str = "") -> Event:
    from runtime.events import Started

    if not name:
        name = f"build {request.context}"
        if "@" in name:
            from builder.lower.remotes import without_credentials

            name = f"build {without_credentials(request.context)}"
    return Started(node=request.node, name=name)


def _end(request: BuildRequest, result: BuildResult) -> Finished:
    from runtime.events import Finished, Outcome

    outcome = Outcome.CACHED if result.cached else Outcome.DONE
    names = ", ".join(_familiar(tag) for tag in result.tags)
    return Finished(node=request.node, outcome=outcome, detail=f"{result.image_id}  {names}".rstrip())


def build_told(services: Services, request: BuildRequest, name: str = "") -> BuildResult:
    """Build, tell when it begins and how it ends, and write it down; `name` is what people call it."""
    from runtime.errors import Cancelled, PipeError
    from runtime.events import Finished, Outcome

    with _recorded(services, request) as recording:
        services.publish(_begin(request, name))
        try:
            result: BuildResult = services.builder.build(request)
        except PipeError as error:
            outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.FAILED
            services.publish(Finished(node=request.node, outcome=outcome, error=error.message))
            recording.end(None, outcome, error.message)
            raise
        end = _end(request, result)
        services.publish(end)
        return replace(result, ref=recording.end(result, end.outcome))


@contextmanager
def _recorded(services: Services, request: BuildRequest) -> Iterator[Recording]:
    """Have the events of this build kept as they pass."""
    from pipeline.recording import Recording

    recording = Recording(services.store.root, request)
    services.listeners.append(recording.note)
    try:
        yield recording
    finally:
        services.listeners.remove(recording.note)


def _familiar(tag: str) -> str:
    from registry_client.reference import parse_reference

    return parse_reference(tag).familiar


def _write_results(result: BuildResult, flags: dict[str, Any]) -> None:
    if flags["iidfile"]:
        write_file(flags["iidfile"], result.image_id)
    if flags["pin_lock"]:
        import json

        write_file(flags["pin_lock"], json.dumps(result.pins, indent=2) + "\n")
    if flags["metadata_file"]:
        import json

        write_file(flags["metadata_file"], json.dumps(metadata_of(result), indent=2) + "\n")


def metadata_of(result: BuildResult) -> dict[str, Any]:
    """The result in buildx's words; provenance of several platforms has a key for each."""
    record: dict[str, Any] = {}
    for platform, predicate in result.provenance.items():
        only = len(result.provenance) == 1
        record["buildx.build.provenance" if only else f"buildx.build.provenance/{platform}"] = predicate
    if result.ref:
        record["buildx.build.ref"] = result.ref
    if result.warnings:
        from builder.checks.report import warning_record

        record["buildx.build.warnings"] = [warning_record(warning) for warning in result.warnings]
    # With eStargz layers the image that went out has a config of its own.
    record["containerimage.config.digest"] = next(
        (each.config for each in result.outputs if each.config), result.image_id
    )
    if len(result.images) > 1:
        record["pipe.images"] = list(result.images)  # of each platform
    if described := next((each.descriptor for each in result.outputs if each.descriptor), None):
        record["containerimage.descriptor"] = described
    # Without a registry or archive there is no manifest yet; docker's image store says the config digest then.
    record["containerimage.digest"] = result.manifest_digest or result.image_id
    if names := _names(result):
        record["image.name"] = ",".join(names)
    return record


def _names(result: BuildResult) -> tuple[str, ...]:
    named = [each.dest for each in result.outputs if each.type in ("image", "registry") and each.dest]
    return result.tags or tuple(named[:1])


def write_file(path: str, text: str) -> None:
    from runtime.store.durable import faults_of_the_host

    with faults_of_the_host(f"cannot write {path}"), open(path, "w", encoding="utf-8") as file:
        file.write(text)
