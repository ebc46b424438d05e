"""`pipe bake`: the targets of a bake or Compose file, built together (FEATURES B-21).

Targets start the moment those whose results they take are there; what runs when one fails goes on to its end, and
nothing more is started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError, Unsupported

if TYPE_CHECKING:
    from builder.request import BuildRequest, BuildResult
    from pipeline.bake.definition import Target
    from pipeline.bake.targets import Baking
    from pipeline.services import Services


@click.command()
@click.argument("names", nargs=-1, metavar="[TARGET...]")
@click.option("-f", "--file", "files", multiple=True, help="A bake or Compose file, or - for standard input.")
@click.option(
    "--set", "settings", multiple=True, help="Override an attribute: TARGET.ATTRIBUTE[.NAME]=VALUE."
)
@click.option("--print", "printed", is_flag=True, help="Print what would be built, as JSON.")
@click.option("--call", help="Say what the Dockerfiles are about instead: check, outline or targets.")
@click.option("--check", is_flag=True, help="Short for --call=check.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--pull", is_flag=True, help="Ask the registry for the base images, also when they are here.")
@click.option("--push", is_flag=True, help="Push the images under their tags.")
@click.option("--load", is_flag=True, help="Put the images into the store (the default).")
@click.option("--provenance", help="As for `pipe build`, for all targets.")
@click.option("--sbom", help="As for `pipe build`, for all targets.")
@click.option("--allow", multiple=True, help="Allow network.host or security.insecure.")
@click.option("--metadata-file", help="Write what is known of the results to a JSON file.")
@click.option("--progress", help="How work is shown.")
@click.pass_obj
def bake(session: Session, /, names: tuple[str, ...], files: tuple[str, ...], **flags: Any) -> int:
    """Build the targets of a bake file (docker-bake.hcl, docker-bake.json) or the services of a Compose file."""
    from pipeline.bake.files import load_definition
    from pipeline.bake.targets import resolve_targets
    from pipeline.settings import PROGRESS, environment

    progress = flags.pop("progress")
    if progress is not None and progress not in PROGRESS:
        raise InvalidInput(f"--progress {progress!r}", hint=f"one of {', '.join(PROGRESS)}")
    env = environment()
    settings = flags.pop("settings")
    asked = "check" if flags.pop("check") else flags.pop("call")
    baking = resolve_targets(load_definition(files, env), names, (*settings, *_calls(asked)), env)
    if flags.pop("printed"):
        click.echo(json.dumps(printed(baking), indent=2))
        return 0
    if calls := {name: text for name in sorted(baking.asked) if (text := _call_of(baking.targets[name]))}:
        return _called(session, baking, calls, flags)
    for name in baking.targets:
        _request(session, baking, name, flags, {})  # mistakes are told before anything is built
    with session.work(containers=True, private_mounts=True, progress=progress) as services:
        results = _Bakery(session, services, baking, flags).run()
    if flags["metadata_file"]:
        from pipeline.cli.build import metadata_of, write_file

        record = {name: metadata_of(result) for name, result in results.items()}
        write_file(flags["metadata_file"], json.dumps(record, indent=2) + "\n")
    return 0


def _calls(asked: str | None) -> tuple[str, ...]:
    """The flag, for every target."""
    return (f"*.call={asked}",) if asked else ()


def _call_of(target: Target) -> str:
    """What is to be said of a target instead of building it; "" when it is to be built."""
    text = target.get("call", "")
    return "" if text == "build" else text


def _called(session: Session, baking: Baking, calls: Mapping[str, str], flags: Mapping[str, Any]) -> int:
    """Say it, target by target, as docker does: then nothing is built, also of those that say nothing."""
    from pipeline.cli.build_calls import parse_call, print_report, report_of

    parsed = {name: parse_call(text) for name, text in calls.items()}
    as_json = any(json for _, json in parsed.values())
    shown, worst = printed(baking)["target"], 0
    found: dict[str, Any] = {}
    for number, (name, (kind, _)) in enumerate(parsed.items()):
        report, code = report_of(session, kind, _request(session, baking, name, flags, {}), as_json)
        worst = max(worst, code)
        if as_json:
            kind = "check" if kind == "lint" else kind
            found[name] = {
                "build": {**shown[name], "call": "lint" if kind == "check" else kind},
                kind: report,
            }
            continue
        click.echo(f"{chr(10) if number else ''}{name}\n")
        print_report(report)
    if as_json:
        print_report({"group": {"default": {"targets": list(found)}}, "target": found})
    return worst


def _short(name: str, text: str) -> Any:
    """What a word alone means: a reference of a cache, a directory of an output."""
    if name.startswith("cache-"):
        return {"type": "registry", "ref": text}
    if name == "output":
        return {"type": "tar" if text == "-" else "local", "dest": text}
    return text


def printed(baking: Baking) -> dict[str, Any]:
    """As buildx prints it: what has fields as objects, and what is only needed by others without an output of its own."""
    import csv

    from pipeline.bake.definition import FIELDS

    def shown(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: escaped(each) for key, each in value.items() if each is not None}
        if name not in FIELDS or name == "ssh":
            return [escaped(each) for each in value] if isinstance(value, list) else escaped(value)
        found: list[Any] = []
        for text in map(escaped, value):
            if "=" in text:
                fields: dict[str, Any] = dict(
                    word.partition("=")[::2] for word in next(csv.reader([text]), [])
                )
                if name == "attest" and "disabled" in fields:
                    fields["disabled"] = fields["disabled"] == "true"
                found.append(fields)
            else:
                found.append(_short(name, text))
        return found

    def escaped(value: Any) -> Any:
        """For whoever reads it as a bake file again."""
        return value.replace("${", "$${").replace("%{", "%%{") if isinstance(value, str) else value

    targets = {}
    for title, target in sorted(baking.targets.items()):
        own = {"output": ["type=cacheonly"]} if title not in baking.asked else {}
        whole = {"context": ".", "dockerfile": "Dockerfile", **own, **target}
        made = {name: shown(name, value) for name, value in whole.items()}
        targets[title] = {name: value for name, value in made.items() if value not in ({}, [])}
    groups = {name: {"targets": list(members)} for name, members in baking.groups.items()}
    return {"group": groups, "target": targets}


def _request(
    session: Session, baking: Baking, name: str, flags: Mapping[str, Any], images: Mapping[str, BuildResult]
) -> BuildRequest:
    from pipeline.bake.request import flags_of
    from pipeline.cli.build_flags import build_request
    from pipeline.cli.build_table import parse
    from pipeline.settings import environment
    from registry_client.values import replace

    target = baking.targets[name]
    given = {**parse([])[1], **flags}
    if name not in baking.asked:  # somebody takes its result; it is nobody's image
        given["push"] = False
        target = {
            "output": ["type=cacheonly"],
            **{key: each for key, each in target.items() if key != "tags"},
        }
    context, own = flags_of(target, given, _contexts(baking, name, images))
    if context.startswith("target:"):
        raise Unsupported(f"target {name}: a target cannot be the main context", hint="name it in `contexts`")
    try:
        request = build_request(context, own, environment(), session.settings.epoch)
    except PipeError as error:
        error.message = f"target {name}: {error.message}"
        raise
    text = target.get("dockerfile-inline")
    if text is not None:
        request = replace(request, dockerfile_text=text.encode("utf-8", "surrogateescape"))
    return replace(request, node=f"bake/{name}")


def _contexts(baking: Baking, name: str, results: Mapping[str, BuildResult]) -> dict[str, str]:
    """Named contexts; another target's is its image, for several platforms the one of each."""
    found: dict[str, str] = {}
    for title, value in (baking.targets[name].get("contexts") or {}).items():
        result = results.get((value or "").removeprefix("target:"))
        if not value:
            continue
        if not value.startswith("target:") or result is None:
            found[title] = value.replace("target:", "docker-image://", 1) if result is None else value
            continue
        other = baking.targets[value.removeprefix("target:")]
        platforms = [each for text in other.get("platforms", ()) for each in text.split(",")]
        found[title] = f"docker-image://{result.image_id}"
        if len(platforms) > 1:
            for platform, image in zip(platforms, result.images, strict=True):
                found[f"{title}::{platform}"] = f"docker-image://{image}"
    return found


class _Bakery:
    """Builds the targets in their order, side by side where they do not need each other."""

    def __init__(
        self, session: Session, services: Services, baking: Baking, flags: Mapping[str, Any]
    ) -> None:
        self._session, self._services = session, services
        self._baking, self._flags = baking, flags
        self._results: dict[str, BuildResult] = {}

    def run(self) -> dict[str, BuildResult]:
        from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
        from graphlib import CycleError, TopologicalSorter

        from pipeline.bake.targets import needs

        order = TopologicalSorter({name: needs(target) for name, target in self._baking.targets.items()})
        try:
            order.prepare()
        except CycleError as error:
            raise InvalidInput(
                f"targets take each other as contexts: {' -> '.join(error.args[1])}"
            ) from error
        _ = self._services.builder  # opened by one thread
        fault: PipeError | None = None
        running: dict[Future[BuildResult], str] = {}
        with ThreadPoolExecutor(self._services.jobs, thread_name_prefix="target") as pool:
            while order.is_active() and (running or fault is None):
                for name in order.get_ready() if fault is None else ():
                    request = _request(self._session, self._baking, name, self._flags, self._results)
                    running[pool.submit(self._build, request, name)] = name
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for task in done:
                    name = running.pop(task)
                    try:
                        self._results[name] = task.result()
                        order.done(name)
                    except PipeError as error:
                        fault = fault or error
        if fault is not None:
            raise fault
        return self._results

    def _build(self, request: BuildRequest, name: str) -> BuildResult:
        from pipeline.cli.build import build_told

        return build_told(self._services, request, f"bake {name}")
