"""A compose file: its services, networks and volumes, as far as one host can run them. Parsing only."""

from __future__ import annotations

from typing import Any

from pipeline.config.container import ServiceSpec
from pipeline.config.container_keys import SERVICES
from pipeline.config.document import Mapping, kind_of, parse_document
from pipeline.config.environments import NETWORKS, VOLUMES
from pipeline.config.scalars import Name, Text
from pipeline.config.shapes import Convert, Key, Reader, Record
from pipeline.spec import NetworkSpec, VolumeSpec
from registry_client.values import frozen
from runtime.errors import InvalidInput


@frozen(kw_only=True)
class ComposeFile:
    name: str = ""
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()


def _build(*, _version: None = None, **given: Any) -> ComposeFile:
    return ComposeFile(**given)


_KEYS = {
    "name": Key(Name(r"[a-z0-9][a-z0-9_-]*", "a project name"), "the project"),
    "version": Key(Convert(Text(), lambda _: None), "accepted and ignored", "_version"),
    "services": Key(SERVICES, "the services", required=True),
    "networks": Key(NETWORKS, "networks"),
    "volumes": Key(VOLUMES, "volumes"),
}
COMPOSE: Record[ComposeFile] = Record(_build, _KEYS, what="a compose file")


def load_compose(text: str, name: str, reader: Reader) -> ComposeFile:
    """The file's values; problems are noted in the reader."""
    try:
        document = parse_document(text, name)
        if not isinstance(document, Mapping):
            raise InvalidInput(f"{name} must be a mapping, not {kind_of(document)}", document.span)
        return COMPOSE.parse(document, reader)
    except InvalidInput as problem:
        reader.problems.append(problem)
        return ComposeFile()
