"""What `--change` of an import means: instructions that change only the config (FEATURES C-8)."""

from __future__ import annotations

from collections.abc import Sequence

from registry_client.oci.config import ContainerConfig
from runtime.errors import InvalidInput


def changed_config(changes: Sequence[str]) -> ContainerConfig:
    """The config that the instructions make."""
    if not changes:
        return ContainerConfig()
    from builder.dockerfile import parse_dockerfile
    from builder.lower import LowerOptions, lower

    text = "\n".join(("FROM scratch", *changes))
    graph = lower(parse_dockerfile(text, "--change"), LowerOptions(), {})
    if graph.root != graph.base:
        raise InvalidInput(
            "--change takes no instruction that changes files",
            hint="use CMD, ENTRYPOINT, ENV, EXPOSE, LABEL …",
        )
    return graph.config.config
