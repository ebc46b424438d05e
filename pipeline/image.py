"""Run one image node: from an ImageSpec to an order for the engine. And the names images have here and in a registry.

A build is known here as `PROJECT-IMAGE:latest`. Only a push gives it the names of its tags, `REGISTRY/IMAGE:TAG`, or
`PROJECT/IMAGE:TAG` in the embedded registry, which is this store: so nothing untested ever has a name others pull.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.containers import filled, merge_variables
from pipeline.engines import BuildOrder, Engine
from pipeline.plan import Node
from pipeline.results import NodeResult
from pipeline.secrets import SecretStore
from pipeline.spec import ImageSpec, PipelineSpec
from runtime.cancel import Cancel
from runtime.events import Outcome

if TYPE_CHECKING:
    from builder.ssh import AgentWanted

Lookup = Callable[[str], str | None]


def local_name(spec: PipelineSpec, image: str) -> str:
    """What a build is called in this store."""
    return f"{spec.name}-{image}:latest"


def pushed_names(spec: PipelineSpec, image: ImageSpec, lookup: Lookup) -> tuple[str, ...]:
    """The references a push gives the image."""
    prefix = (spec.registry or spec.name).rstrip("/")
    tags = [_tag(filled(tag, lookup, image.span)) for tag in image.tags]
    return tuple(f"{prefix}/{image.name}:{tag}" for tag in dict.fromkeys(filter(None, tags))) or (
        f"{prefix}/{image.name}:latest",
    )


def _tag(text: str) -> str:
    """A tag as registries allow it: a branch `feature/x` becomes `feature-x`; empty stays empty and is left out."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip(".-")[:128]


def build_order(
    spec: PipelineSpec,
    image: ImageSpec,
    node: str,
    lookup: Lookup,
    outside: Mapping[str, str],
    secrets: SecretStore,
    *,
    no_cache: bool,
) -> BuildOrder:
    """The order for the engine: placeholders filled, paths absolute, secrets fetched."""
    image = filled(image, lookup, image.span)
    context = _path(spec.root, image.context)
    return BuildOrder(
        name=image.name,
        node=node,
        context=context,
        dockerfile=os.path.join(context, image.dockerfile)
        if image.dockerfile and "://" not in context
        else image.dockerfile or None,
        dockerfile_inline=image.dockerfile_inline,
        target=image.target,
        args=tuple(merge_variables(outside, image.args).items()),
        labels=image.labels,
        tags=(local_name(spec, image.name),),
        platforms=image.platforms,
        contexts=tuple((name, _context(spec, value)) for name, value in image.additional_contexts),
        secrets={use.name: secrets.value(use) for use in image.secrets},
        ssh=_agents(spec.root, image, outside),
        network=image.network,
        extra_hosts=image.extra_hosts,
        shm_size=image.shm_size,
        no_cache=image.no_cache or no_cache,
        **_shared_caches(spec.root, image),
        rewrite_timestamp=image.rewrite_timestamp,
        pull=image.pull,
    )


def _shared_caches(root: str, image: ImageSpec) -> dict[str, Any]:
    if not image.cache_from and not image.cache_to:
        return {}
    from builder.sharing.wanted import below, parse_cache_from, parse_cache_to

    return {
        "cache_from": tuple(below(root, parse_cache_from(text)) for text in image.cache_from if text),
        "cache_to": tuple(below(root, parse_cache_to(text)) for text in image.cache_to if text),
    }


def _agents(root: str, image: ImageSpec, outside: Mapping[str, str]) -> dict[str, AgentWanted]:
    """`ssh:` as `--ssh`; paths are relative to pipe.yaml."""
    if not image.ssh:
        return {}
    from builder.ssh import parse_ssh

    found = {}
    for text in image.ssh:
        name, equals, value = text.partition("=")
        paths = ",".join(_path(root, path) for path in value.split(",") if path)
        key, agent = parse_ssh(f"{name}{equals}{paths}", outside)
        found[key] = agent
    return found


def _path(root: str, text: str) -> str:
    if "://" in text or text.startswith("git@"):
        return text
    return os.path.normpath(os.path.join(root, os.path.expanduser(text)))


def _context(spec: PipelineSpec, value: str) -> str:
    kind, colon, name = value.partition(":")
    if colon and kind in ("image", "service") and spec.image(name):
        return f"docker-image://{local_name(spec, name)}"
    return value if "://" in value else _path(spec.root, value)


def run_image(
    engine: Engine,
    spec: PipelineSpec,
    node: Node,
    lookup: Lookup,
    outside: Mapping[str, str],
    secrets: SecretStore,
    cancel: Cancel,
    *,
    no_cache: bool = False,
) -> NodeResult:
    """Build it."""
    assert isinstance(node.subject, ImageSpec)
    started = time.time()
    order = build_order(spec, node.subject, node.name, lookup, outside, secrets, no_cache=no_cache)
    built = engine.build(order, cancel)
    return NodeResult(
        node=node.name,
        kind=node.kind,
        outcome=Outcome.CACHED if built.cached else Outcome.DONE,
        image=built.id,
        detail=short_id(built.id),
        started=started,
        finished=time.time(),
    )


def short_id(image: str) -> str:
    return image.partition(":")[2][:12]
