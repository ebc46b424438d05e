"""`pipe build --check` and `--call=outline|targets`: what the Dockerfile says, without building anything."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    from contextlib import ExitStack

    from builder.context import Context
    from builder.lower import BaseWanted, ResolvedBase
    from builder.request import BuildRequest

CALLS = ("check", "lint", "outline", "targets")
Report = str | dict[str, Any]


def call(session: Session, context: str, flags: Mapping[str, Any]) -> int:
    """Say it on standard output; 1 when the checks found something, as docker does."""
    from pipeline.cli.build_flags import build_request
    from pipeline.settings import environment

    kind, as_json = parse_call(flags["call"] or "check")
    request = build_request(context, flags, environment(), session.settings.epoch)
    report, code = report_of(session, kind, request, as_json or flags["format"] == "json")
    print_report(report)
    return code


def parse_call(text: str) -> tuple[str, bool]:
    """What is to be said, and whether as JSON."""
    kind, _, more = text.partition(",")
    if kind not in CALLS:
        raise InvalidInput(
            f"--call {kind!r} is not known", hint=did_you_mean(kind, CALLS) or ", ".join(CALLS)
        )
    return kind, "format=json" in more


def report_of(session: Session, kind: str, request: BuildRequest, as_json: bool) -> tuple[Report, int]:
    """What is said of one build, and the exit code."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        found = _opened(session, request, stack)
        return _report(session, kind, found.text, found.name, request, found.tree.ignore, as_json)


def _opened(session: Session, request: BuildRequest, stack: ExitStack) -> Context:
    """The context. A directory needs no store, and standard input only a place to unpack it."""
    from builder.context import ContextOpener

    def new_directory() -> str:
        from runtime.temporary import temporary_directory

        return stack.enter_context(temporary_directory("pipe-context-"))

    def fetch(url: str) -> tuple[str, int | None]:
        from builder.asked import facilities_of
        from builder.operations.remotes import fetch_context
        from builder.operations.step import Setting
        from builder.workshop import Workshop

        services = stack.enter_context(session.work(containers=False, progress="none"))
        setting = Setting(cancel=session.cancel)
        workshop = stack.enter_context(Workshop(services.store, None, None, facilities_of(request)))
        path, _, time = fetch_context(
            services.store, setting, request.secrets, workshop.agent, url, request.keeps_git_dir
        )
        return path, time

    return ContextOpener(request, sys.stdin.buffer, new_directory, fetch, lambda url: fetch(url)[0]).open()


def _report(
    session: Session, kind: str, text: bytes, name: str, request: BuildRequest, ignore: Any, as_json: bool
) -> tuple[Report, int]:
    from builder.checks import check_source, outline_of, targets_of
    from builder.checks import report as reports
    from builder.dockerfile import parse_dockerfile
    from builder.lower import LowerOptions

    options = LowerOptions(
        target=request.target,
        build_args=request.build_args,
        contexts=request.build_contexts,
        network=request.network,
        platform=next(iter(request.platforms), None),
    )
    if kind in ("check", "lint"):
        result = check_source(text, name, options, ignore=ignore)
        if configs := _known_bases(session, result.bases):
            result = check_source(text, name, options, configs, ignore)
        code = 1 if result.findings or result.error or result.failed else 0
        if as_json:
            return reports.check_json_report(result, text, name), code
        return reports.check_text_report(result), code
    dockerfile = parse_dockerfile(text, name)
    if kind == "outline":
        outline = outline_of(dockerfile, options)
        if as_json:
            return reports.outline_json_report(outline, text), 0
        return reports.outline_text_report(outline), 0
    targets = targets_of(dockerfile)
    if as_json:
        return reports.targets_json_report(targets, text), 0
    return reports.targets_text_report(targets), 0


def _known_bases(session: Session, wanted: Iterable[BaseWanted]) -> dict[BaseWanted, ResolvedBase]:
    """The base images that are here: what they set makes the checks say more. None is fetched."""
    from builder.lower import ResolvedBase
    from runtime.errors import PipeError

    found: dict[BaseWanted, ResolvedBase] = {}
    with session.work(containers=False, progress="none") as services:
        for base in wanted:
            try:
                image = services.images.resolve(base.reference, platform=None, pull="never")
            except PipeError:
                continue
            found[base] = ResolvedBase(image.manifest_digest or image.id, image.config)
    return found


def print_report(report: Report) -> None:
    import json

    click.echo(
        report if isinstance(report, str) else json.dumps(report, indent=2), nl=not isinstance(report, str)
    )
