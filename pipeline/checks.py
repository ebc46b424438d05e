"""What a pipe.yaml means, checked as a whole: names that must exist, contexts that must be known, things that would collide.

Pure; `pipeline.config` has checked each key already. Problems are collected so that all are shown at once; warnings are
what is legal and probably not meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.config.container import SecretUse, ServiceSpec
from pipeline.matrix import combination_name, combinations
from pipeline.plan import service_order, stage_nodes
from pipeline.spec import EnvironmentSpec, ImageSpec, PipelineSpec, StageSpec
from registry_client.reference import parse_reference
from runtime.errors import InvalidInput, closest, did_you_mean
from runtime.spans import Span


def check_pipeline(spec: PipelineSpec) -> tuple[InvalidInput, ...]:
    """All problems of a spec, in the order of its parts."""
    problems: list[InvalidInput] = []
    if spec.registry:
        problems += _caught(lambda: _check_reference(f"{spec.registry}/x", spec.span, "registry"))
    for image in spec.images:
        problems += _image_problems(image, spec)
    for stage in spec.stages:
        problems += _stage_problems(stage, spec)
    for environment in spec.environments:
        problems += _environment_problems(environment, spec)
    return tuple(problems) + tuple(_reference_problems(spec))


def _caught(check: object) -> list[InvalidInput]:
    try:
        check()  # type: ignore[operator]
    except InvalidInput as problem:
        return [problem]
    return []


def _check_reference(text: str, span: Span, what: str) -> None:
    try:
        parse_reference(text)
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}", span) from error


def _image_problems(image: ImageSpec, spec: PipelineSpec) -> Iterator[InvalidInput]:
    if image.dockerfile and image.dockerfile_inline:
        yield InvalidInput(f"image `{image.name}` has `dockerfile` and `dockerfile_inline`", image.span)
    yield from _secret_problems(image.secrets, spec)


def _stage_problems(stage: StageSpec, spec: PipelineSpec) -> Iterator[InvalidInput]:
    for need in stage.needs:
        if not stage_nodes(spec, need.stage):
            hint = did_you_mean(need.stage.partition("@")[0], [other.name for other in spec.stages])
            if spec.image(need.stage):
                hint = "a stage waits for its image by itself; `needs` names stages"
            yield InvalidInput(
                f"stage `{stage.name}` needs the unknown stage `{need.stage}`", need.span, hint=hint
            )
    yield from _secret_problems(stage.secrets, spec)
    yield from _service_problems(stage.services, spec)
    if stage.container.command is not None and stage.run:
        yield InvalidInput(
            f"stage `{stage.name}` has `command` and `run`",
            stage.span,
            hint="`run` is a script, `command` replaces the image's CMD",
        )
    if not stage.run and (stage.before or stage.after):
        yield InvalidInput(f"stage `{stage.name}` has `before` or `after` but no `run`", stage.span)
    try:
        names = [combination_name(stage.name, row) for row in combinations(stage.matrix)]
    except InvalidInput as problem:
        yield problem
        return
    if len(set(names)) != len(names):
        yield InvalidInput(f"two combinations of `{stage.name}` look the same", (stage.matrix or stage).span)
    if not names:
        yield InvalidInput(
            f"`exclude` leaves nothing of the matrix of `{stage.name}`", (stage.matrix or stage).span
        )


def _environment_problems(environment: EnvironmentSpec, spec: PipelineSpec) -> Iterator[InvalidInput]:
    for need in environment.needs or ():
        if not spec.environment(need.stage) and not stage_nodes(spec, need.stage):
            known = [e.name for e in spec.environments] + [s.name for s in spec.stages]
            hint = did_you_mean(need.stage, known)
            yield InvalidInput(
                f"environment `{environment.name}` needs the unknown `{need.stage}`", need.span, hint=hint
            )
    yield from _service_problems(environment.services, spec)
    if not environment.services and not environment.kubernetes:
        yield InvalidInput(f"environment `{environment.name}` has no services", environment.span)
    if environment.health.service and environment.health.service not in [
        s.name for s in environment.services
    ]:
        yield InvalidInput(
            f"`health` names the unknown service `{environment.health.service}`", environment.health.span
        )
    networks = {network.name for network in environment.networks} | {"default"}
    volumes = {volume.name for volume in environment.volumes}
    for service in environment.services:
        for use in service.networks:
            if use.name not in networks:
                hint = did_you_mean(use.name, networks) or "declare it under `networks:`"
                yield InvalidInput(
                    f"service `{service.name}` uses the unknown network `{use.name}`", service.span, hint=hint
                )
        for mount in service.container.volumes:
            if mount.type == "volume" and mount.source and mount.source not in volumes:
                hint = did_you_mean(mount.source, volumes) or "declare it under `volumes:`"
                yield InvalidInput(
                    f"service `{service.name}` uses the unknown volume `{mount.source}`",
                    service.span,
                    hint=hint,
                )


def _service_problems(services: tuple[ServiceSpec, ...], spec: PipelineSpec) -> Iterator[InvalidInput]:
    names = [service.name for service in services]
    for service in services:
        yield from _secret_problems(service.secrets, spec)
        for need in service.depends_on:
            if need.service not in names and need.required:
                hint = did_you_mean(need.service, names)
                yield InvalidInput(
                    f"service `{service.name}` depends on the unknown service `{need.service}`",
                    need.span,
                    hint=hint,
                )
    yield from _caught(lambda: service_order(services))


def _secret_problems(uses: Iterable[SecretUse], spec: PipelineSpec) -> Iterator[InvalidInput]:
    known = [secret.name for secret in spec.secrets]
    for use in uses:
        if use.source is None and use.name not in known:
            hint = did_you_mean(use.name, known) or "declare it under `secrets:`"
            yield InvalidInput(f"unknown secret `{use.name}`", use.span, hint=hint)


def _reference_problems(spec: PipelineSpec) -> Iterator[InvalidInput]:
    for reference in spec.references:
        context, name = reference.path.split(".")[:2]
        kind, _, owner = reference.owner.partition("/")
        if context == "images" and not spec.image(name):
            hint = did_you_mean(name, [image.name for image in spec.images])
            yield InvalidInput(
                f"`{reference.path}` names the unknown image `{name}`", reference.span, hint=hint
            )
        elif context == "stages":
            yield from _stage_reference(spec, reference.path, name, kind, owner, reference.span)
        elif context == "matrix":
            stage = spec.stage(owner) if kind == "stage" else None
            axes = {key for row in combinations(stage.matrix) for key, _ in row} if stage else set()
            if name not in axes:
                hint = did_you_mean(name, axes) or ("" if axes else "there is no matrix here")
                yield InvalidInput(
                    f"`{reference.path}` names the unknown axis `{name}`", reference.span, hint=hint
                )


def _stage_reference(
    spec: PipelineSpec, path: str, name: str, kind: str, owner: str, span: Span
) -> Iterator[InvalidInput]:
    stage = spec.stage(name)
    if stage is None:
        hint = did_you_mean(name, [other.name for other in spec.stages])
        yield InvalidInput(f"`{path}` names the unknown stage `{name}`", span, hint=hint)
    elif kind == "image":
        yield InvalidInput(f"image `{owner}` cannot use `{path}`: stages come after images", span)
    elif name == owner:
        yield InvalidInput(f"stage `{owner}` uses its own output `{path}`", span)
    elif stage.matrix and ".outputs." in path:
        yield InvalidInput(f"`{path}` is ambiguous: stage `{name}` has a matrix", span)


def warnings_of(spec: PipelineSpec) -> tuple[tuple[str, Span], ...]:
    """Legal, and probably not meant: an `image:` that is nearly one of ours."""
    names = [image.name for image in spec.images]
    found = list(spec.warnings)
    for stage in spec.stages:
        for container, span in (
            (stage.container, stage.span),
            *((s.container, s.span) for s in stage.services),
        ):
            if container.image not in names and (near := closest(container.image, names)):
                found.append(
                    (
                        f"`{container.image}` is not in `images:`, so it is pulled; did you mean `{near}`?",
                        span,
                    )
                )
    return tuple(found)
