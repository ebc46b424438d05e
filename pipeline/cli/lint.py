"""`pipe lint`: all that is wrong with a pipe.yaml and the Dockerfiles it names, at once. Nothing is opened or changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pipeline.cli.session import Session
from runtime.errors import InvalidInput, PipeError

if TYPE_CHECKING:
    from pipeline.loaded import Loaded
    from pipeline.spec import ImageSpec


@click.command()
@click.argument("file", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.option("--strict", is_flag=True, help="Warnings count as mistakes.")
@click.pass_obj
def lint(session: Session, file: str, as_json: bool, strict: bool) -> int:
    """Check pipe.yaml and the Dockerfiles it names; 2 when something is wrong."""
    from pipeline.checks import warnings_of
    from pipeline.commands import KINDS
    from pipeline.loaded import load
    from pipeline.plan import Goal, plan_run
    from pipeline.settings import environment
    from pipeline.spec import InvalidPipeline

    problems: list[PipeError] = []
    warnings: list[PipeError] = []
    try:
        loaded = load(environment(), file=file)
        warnings += [InvalidInput(message, span) for message, span in warnings_of(loaded.spec)]
        wrong, doubtful = _look_at_dockerfiles(loaded)
        problems, warnings = problems + wrong, warnings + doubtful
        plan_run(loaded.spec, Goal(kind=KINDS["test"]), loaded.facts)
        loaded.surroundings.git.close()
    except InvalidPipeline as error:
        problems += error.problems
    except InvalidInput as error:
        problems.append(error)
    for severity, found in (("error", problems), ("warning", warnings)):
        for problem in found:
            click.echo(_json(severity, problem) if as_json else _text(severity, problem))
    if problems or (strict and warnings):
        return 2
    if not as_json and not warnings:
        click.echo("no mistakes found")
    return 0


def _look_at_dockerfiles(loaded: Loaded) -> tuple[list[PipeError], list[PipeError]]:
    """Mistakes and warnings; two images of one Dockerfile are wrong once."""
    problems: dict[str, PipeError] = {}
    warnings: dict[str, PipeError] = {}
    for image in loaded.spec.images:
        try:
            for warning in _check_dockerfile(image, loaded.spec.root):
                warnings.setdefault(str(warning), warning)
        except PipeError as error:
            problems.setdefault(str(error), error)
    return list(problems.values()), list(warnings.values())


def _check_dockerfile(image: ImageSpec, root: str) -> list[PipeError]:
    """Raise the mistake; what the build checks say are warnings."""
    from builder.checks import check_source
    from builder.dockerfile import parse_dockerfile
    from builder.lower import LowerOptions
    from pipeline.config.interpolate import has_placeholder

    if has_placeholder(image.context) or "://" in image.context:
        return []
    text, name = _read_dockerfile(image, root)
    ast = parse_dockerfile(text, name)
    _check_target(image, [stage.name or "" for stage in ast.stages])
    arguments = {key: value for key, value in image.args if value is not None}
    result = check_source(text, name, LowerOptions(target=image.target, build_args=arguments))
    if result.failed and result.error is None:  # the Dockerfile says that findings are errors
        found = result.findings[0]
        raise InvalidInput(
            f"{found.rule.name}: {found.message}", found.span, hint="error=true makes it a mistake"
        )
    return [
        InvalidInput(f"{finding.rule.name}: {finding.message}", finding.span) for finding in result.findings
    ]


def _read_dockerfile(image: ImageSpec, root: str) -> tuple[bytes, str]:
    if image.dockerfile_inline:
        return image.dockerfile_inline.encode(), f"{image.name} (dockerfile_inline)"
    if not os.path.isdir(os.path.join(root, image.context)):
        raise InvalidInput(f"image `{image.name}`: no directory {image.context}", image.span)
    name = os.path.normpath(os.path.join(image.context, image.dockerfile or "Dockerfile"))
    try:
        with open(os.path.join(root, name), "rb") as file:
            return file.read(), name
    except OSError as error:
        hint = "`dockerfile:` names another one" if not image.dockerfile else ""
        raise InvalidInput(
            f"image `{image.name}`: cannot read {name}: {error.strerror}", image.span, hint=hint
        ) from error


def _check_target(image: ImageSpec, stages: list[str]) -> None:
    from pipeline.config.interpolate import has_placeholder
    from runtime.errors import did_you_mean

    target = image.target
    if not target or has_placeholder(target) or target.isdigit():
        return
    if target.lower() not in [stage.lower() for stage in stages]:
        hint = (
            did_you_mean(target, filter(None, stages))
            or f"stages: {', '.join(filter(None, stages)) or 'none has a name'}"
        )
        raise InvalidInput(
            f"image `{image.name}`: no stage `{target}` in its Dockerfile", image.span, hint=hint
        )


def _text(severity: str, problem: PipeError) -> str:
    lines = [f"{severity}: {problem}"]
    if problem.span is not None and problem.span.source.text:
        lines.append(problem.span.excerpt(context=0))
    if problem.hint:
        lines.append(f"  hint: {problem.hint}")
    return "\n".join(lines)


def _json(severity: str, problem: PipeError) -> str:
    import json

    span = problem.span
    place = {"file": span.source.name, "line": span.line, "column": span.column} if span else {}
    return json.dumps({"severity": severity, "message": problem.message, "hint": problem.hint, **place})
