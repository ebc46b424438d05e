"""The table of pipe.yaml: its keys, what they take, and the spec they become. `pipe schema` prints this very table."""

from __future__ import annotations

from typing import Any

from pipeline.config.conditions import CONDITION, with_condition
from pipeline.config.container import NOWHERE, SecretSpec
from pipeline.config.container_keys import parse_hosts
from pipeline.config.environments import environment_shape
from pipeline.config.scalars import Choice, Duration, Flag, Integer, Name, Size, Text
from pipeline.config.shapes import Convert, Json, Key, ListOf, MapOf, Record, Shape
from pipeline.config.stages import stage_shape
from pipeline.config.uses import SecretUses, secret_source
from pipeline.config.words import Environment, Pairs
from pipeline.spec import (
    ImageSpec,
    PipelineSpec,
)
from runtime.spans import Span


def _secret(name: str, span: Span) -> Shape[SecretSpec]:
    return secret_source(name, span, CONDITION, lambda **given: SecretSpec(**with_condition(given)))


_IMAGE_KEYS = {
    "context": Key(Text(), "directory, or URL, of the build context"),
    "dockerfile": Key(Text(), "Dockerfile, relative to the context"),
    "dockerfile_inline": Key(Text(raw=True), "the Dockerfile itself"),
    "target": Key(Text(), "stage of the Dockerfile to build"),
    "args": Key(Environment(), "build arguments"),
    "tags": Key(ListOf(Text()), "tags it is pushed under; `latest` without"),
    "labels": Key(Pairs(), "labels of the image"),
    "platforms": Key(ListOf(Text()), "os/arch to build for"),
    "additional_contexts": Key(Pairs(), "named contexts for FROM and COPY --from"),
    "secrets": Key(SecretUses(), "secrets for RUN --mount=type=secret"),
    "ssh": Key(ListOf(Text()), "agents for RUN --mount=type=ssh"),
    "network": Key(Choice(("default", "none", "host")), "network of RUN"),
    "extra_hosts": Key(Convert(Pairs("=:"), parse_hosts), "lines of /etc/hosts in RUN"),
    "shm_size": Key(Size(), "size of /dev/shm in RUN"),
    "no_cache": Key(Flag(), "build it anew every time"),
    "cache_from": Key(
        ListOf(Text()), "where steps are looked for: type=registry,ref=REF or type=local,src=DIR"
    ),
    "cache_to": Key(
        ListOf(Text()), "where the cache is written: type=registry,ref=REF,mode=max and the like"
    ),
    "rewrite_timestamp": Key(Flag(), "no file is newer than SOURCE_DATE_EPOCH says"),
    "pull": Key(Flag(), "ask the registry for newer base images"),
    "push": Key(Flag(), "push it with every deploy, though no service uses it"),
    "extends": Key(Text(later=False), "another image this one is like", "_extends"),
    **CONDITION,
}


def _image(name: str, span: Span) -> Shape[ImageSpec]:
    def build(*, _extends: str = "", **given: Any) -> ImageSpec:
        return ImageSpec(**with_condition(given))

    return Record(
        build, _IMAGE_KEYS, given=(("name", name), ("span", span)), what=f"image `{name}`", null=True
    )


PIPEFILE_KEYS = {
    "name": Key(
        Name(r"[a-z0-9][a-z0-9_.-]{0,62}", "a project name"),
        "the project; its directory's name without",
        "name",
    ),
    "registry": Key(Text(later=False), "prefix of pushed images; the embedded registry without"),
    "env": Key(Environment(), "variables of all stages"),
    "secrets": Key(MapOf(_secret, _secret("", NOWHERE)), "where secrets come from"),
    "images": Key(
        MapOf(_image, _image("", NOWHERE), r"[a-z0-9]+(?:[._-][a-z0-9]+)*", "an image name"),
        "images to build",
    ),
    "stages": Key(MapOf(stage_shape, stage_shape("", NOWHERE)), "test stages"),
    "deploy": Key(
        MapOf(environment_shape, environment_shape("", NOWHERE)), "environments to deploy to", "environments"
    ),
    "jobs": Key(Integer(1, 256), "how many nodes at once"),
    "timeout": Key(Duration(), "time for the whole run"),
    "version": Key(Convert(Text(), lambda _: None), "accepted and ignored", "_version"),
}


def pipefile_shape(root: str, file: str, default_name: str) -> Record[PipelineSpec]:
    def build(*, name: str = default_name, _version: None = None, **given: Any) -> PipelineSpec:
        return PipelineSpec(name=name, root=root, file=file, **given)

    return Record(build, PIPEFILE_KEYS, what="pipe.yaml", spanned=True)


def json_schema() -> Json:
    """pipe.yaml as JSON Schema (draft 2020-12)."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pipe.yaml"}
    return {**head, **pipefile_shape("", "", "").schema()}
