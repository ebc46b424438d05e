"""`pipe build`, `pipe cache`, `pipe why`.

With a path or a flag that only makes sense for one Dockerfile, `pipe build` is `docker build`; otherwise it builds the
images of pipe.yaml. Nothing of the builder is imported before it is known which.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from builder.request import BuildRequest, BuildResult
    from registry_client.oci.digest import Digest
    from runtime.events import Event

Command = TypeVar("Command", bound=Callable[..., Any])
PIPE_FILES = ("pipe.yaml", "pipe.yml")
# Flags that go with one Dockerfile, not with a whole pipe.yaml.
_OWN_FLAGS = (
    "file", "tag", "target", "output", "build_arg", "build_context", "iidfile", "metadata_file", "check", "call", "push",
    "label", "annotation", "attest", "provenance", "sbom", "platform", "add_host", "cache_from", "cache_to",
    "verify_reproducible", "on_failure",
)  # fmt: skip


def _many(*names: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option(*names, multiple=True, **settings)


@click.command()
@click.argument("names", nargs=-1, metavar="[PATH | URL | - | IMAGE...]")
@_many("--add-host", help="Add NAME:ADDRESS to /etc/hosts of build steps.")
@_many("--allow", help="Allow network.host or security.insecure.")
@_many(
    "--annotation",
    help="Annotate the manifest, or [manifest|index|manifest-descriptor|index-descriptor]:KEY=VALUE.",
)
@_many("--attest", help="Attest the result: type=provenance[,mode=max] or type=sbom.")
@_many("--build-arg", help="Set a build argument: NAME=VALUE, or NAME from the environment.")
@_many("--build-context", help="A further context: NAME=PATH, URL, docker-image://REF or oci-layout://DIR.")
@_many("--cache-from", help="Look for steps in type=registry,ref=REF or type=local,src=DIR.")
@_many(
    "--cache-to",
    help="Write the cache: type=registry,ref=REF[,mode=max], type=local,dest=DIR or type=inline.",
)
@click.option(
    "--call", help="check, outline or targets: say something about the Dockerfile instead of building."
)
@click.option("--check", is_flag=True, help="Check the Dockerfile; the same as --call=check.")
@click.option("--cgroup-parent", help="The control group build steps run below.")
@click.option("--cpu-period", type=int, help="Length of a CPU period in microseconds.")
@click.option("--cpu-quota", type=int, help="CPU time per period in microseconds.")
@click.option("-c", "--cpu-shares", type=int, help="CPU weight.")
@click.option("--cpuset-cpus", help="The CPUs build steps may use.")
@click.option("--cpuset-mems", help="The memory nodes build steps may use.")
@click.option("-f", "--file", help="The Dockerfile, or - for standard input.")
@click.option("--iidfile", help="Write the image id to a file.")
@_many("--label", help="Set a label of the image.")
@click.option("--load", is_flag=True, help="Put the image into the store (the default).")
@click.option("-m", "--memory", help="Memory limit of build steps.")
@click.option("--metadata-file", help="Write what is known of the result to a JSON file.")
@click.option("--network", help="Network of build steps: default, none or host.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@_many("--no-cache-filter", help="Run every step of these stages again.")
@click.option(
    "--on-failure", type=click.Choice(["shell"]), help="Open a shell in the sandbox of a step that failed."
)
@_many("-o", "--output", help="Where the result goes: type=oci,dest=FILE or a directory.")
@_many("--platform", help="Build for a platform, for example linux/arm64.")
@click.option("--progress", help="auto, tty, plain, jsonl, quiet or none.")
@click.option(
    "--provenance", help="Say how it was built beside the result: true, false, mode=min or mode=max."
)
@click.option("--pull", is_flag=True, help="Ask the registry for the base images, also when they are here.")
@click.option("--push", is_flag=True, help="Push the image under its tags.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image id only.")
@click.option("--sbom", help="Say which software is in it beside the result: true or false.")
@_many("--secret", help="A secret for build steps: id=NAME[,src=FILE|,env=VARIABLE].")
@click.option("--shm-size", help="Size of /dev/shm in build steps.")
@_many("--ssh", help="Forward an ssh agent: default or NAME[=SOCKET].")
@_many("-t", "--tag", help="Name the image.")
@click.option("--target", help="The stage to build.")
@_many("--ulimit", help="A resource limit of build steps: NAME=SOFT[:HARD].")
@click.option("--verify-reproducible", is_flag=True, help="Build twice as if on two machines, and compare.")
@click.option("--format", "call_format", default="text", help="text or json, with --call and --check.")
@click.pass_obj
def build(session: Session, /, names: tuple[str, ...], **flags: Any) -> int:
    """Build the images of pipe.yaml, or an image from a Dockerfile."""
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
    from pipeline.commands import run_pipeline

    result = run_pipeline(
        session, kind="build", names=names, no_cache=flags["no_cache"], progress=flags["progress"]
    )
    return int(result)


def _build_dockerfile(session: Session, context: str, flags: dict[str, Any]) -> int:
    from pipeline.cli.build_flags import build_request
    from pipeline.settings import environment

    if flags["check"] or flags["call"] not in (None, "build"):
        from pipeline.cli.build_calls import call

        return call(session, context, flags)
    if flags["verify_reproducible"]:
        from pipeline.cli.verify import verify

        return verify(session, context, flags, build.params)
    # Imports make much and leave no garbage: collecting between them is a tenth of a cached build.
    gc.disable()
    try:
        request = build_request(context, flags, environment(), session.settings.epoch)
        progress = "none" if flags["quiet"] else flags["progress"]
        if flags["on_failure"] and progress in (None, "auto", "tty"):
            progress = "plain"  # the shell and a moving display cannot share the terminal
        result, missed = _look_up(session, request, progress)
    finally:
        gc.enable()
    if result is None:
        with session.work(containers=True, private_mounts=True, progress=progress) as services:
            if flags["on_failure"]:
                from pipeline.cli.failed_step import enter

                services.builder.on_failure = enter
            services.builder.missed = missed
            result = _build(services, request)
    if flags["iidfile"] or flags["metadata_file"]:
        _write_results(result, flags)
    if flags["quiet"] and not any(output.dest == "-" for output in request.outputs):
        click.echo(result.image_id)
    return 0


def _look_up(
    session: Session, request: BuildRequest, progress: str | None
) -> tuple[BuildResult | None, frozenset[Digest]]:
    """The result if every step is cached: then no process, thread or mount namespace has to be made for it.

    Else the step that is not, so that its files need not be looked at twice.
    """
    from builder.build import Builder
    from pipeline.services import Services

    told: list[Event] = []
    services = Services(session.settings, session.cancel, told.append)
    try:
        builder = Builder(services.store, services.images, None, None, services.publish, session.cancel)
        result = builder.look_up(request)
    finally:
        services.close()
    if result is not None and progress != "none":
        with session.work(containers=False, progress=progress) as shown:
            shown.publish(_begin(request))
            for event in told:
                shown.publish(event)
            shown.publish(_end(request, result))
    return result, builder.missed


def _begin(request: BuildRequest) -> Event:
    from runtime.events import Started

    return Started(node=request.node, name=f"build {request.context}")


def _end(request: BuildRequest, result: BuildResult) -> Event:
    from runtime.events import Finished, Outcome

    outcome = Outcome.CACHED if result.cached else Outcome.DONE
    names = ", ".join(_familiar(tag) for tag in result.tags)
    return Finished(node=request.node, outcome=outcome, detail=f"{result.image_id}  {names}".rstrip())


def _build(services: Any, request: BuildRequest) -> BuildResult:
    from runtime.errors import Cancelled, PipeError
    from runtime.events import Finished, Outcome

    services.publish(_begin(request))
    try:
        result: BuildResult = services.builder.build(request)
    except PipeError as error:
        outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.FAILED
        services.publish(Finished(node=request.node, outcome=outcome, error=error.message))
        raise
    services.publish(_end(request, result))
    return result


def _familiar(tag: str) -> str:
    from registry_client.reference import parse_reference

    return parse_reference(tag).familiar


def _write_results(result: BuildResult, flags: dict[str, Any]) -> None:
    if flags["iidfile"]:
        _write(flags["iidfile"], result.image_id)
    if flags["metadata_file"]:
        import json

        _write(flags["metadata_file"], json.dumps(_metadata(result), indent=2) + "\n")


def _metadata(result: BuildResult) -> dict[str, Any]:
    """The result in buildx's words; provenance of several platforms has a key for each."""
    record: dict[str, Any] = {}
    for platform, predicate in result.provenance.items():
        only = len(result.provenance) == 1
        record["buildx.build.provenance" if only else f"buildx.build.provenance/{platform}"] = predicate
    if result.warnings:
        record["buildx.build.warnings"] = [{"short": warning.message} for warning in result.warnings]
    record["containerimage.config.digest"] = result.image_id
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


def _write(path: str, text: str) -> None:
    from runtime.store.durable import faults_of_the_host

    with faults_of_the_host(f"cannot write {path}"), open(path, "w", encoding="utf-8") as file:
        file.write(text)
