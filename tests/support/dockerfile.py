"""Lowering without registries: every base image that is asked for gets a config made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.dockerfile import Dockerfile, parse_dockerfile
from builder.graph import StageGraph
from builder.lower import BaseWanted, LowerOptions, ResolvedBase, bases, lower
from registry_client.oci.config import ContainerConfig, ImageConfig
from registry_client.oci.platform import Platform

AMD64 = Platform("linux", "amd64")


def options_with(**fields: Any) -> LowerOptions:
    """Options of a build on a machine whose architecture does not matter."""
    return LowerOptions(**{"build_platform": AMD64, **fields})


def resolved(
    dockerfile: Dockerfile, options: LowerOptions, images: Mapping[str, ContainerConfig] | None = None
) -> dict[BaseWanted, ResolvedBase]:
    """All base images, asked for until no trigger wants another one."""
    known: dict[BaseWanted, ResolvedBase] = {}
    while True:
        wanted = bases(dockerfile, options, known)
        new = [base for base in wanted if base not in known]
        if not new:
            return known
        for base in new:
            known[base] = ResolvedBase(
                "sha256:" + f"{len(known) + 1:064x}", image(base, (images or {}).get(base.reference))
            )


def image(base: BaseWanted, config: ContainerConfig | None) -> ImageConfig:
    return ImageConfig(
        platform=base.platform, config=config or ContainerConfig(env=("PATH=/bin",), cmd=("sh",))
    )


def lowered(text: str, images: Mapping[str, ContainerConfig] | None = None, **fields: Any) -> StageGraph:
    """The graph of a Dockerfile given as text."""
    dockerfile, options = parse_dockerfile(text), options_with(**fields)
    return lower(dockerfile, options, resolved(dockerfile, options, images))


def created(graph: StageGraph) -> list[str]:
    """The history texts."""
    return [instruction.created_by for instruction in graph.instructions]
