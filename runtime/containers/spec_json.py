"""A ContainerSpec and an image's ContainerConfig as JSON and back, for the database. Only what differs from the default is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registry_client.oci.config import ContainerConfig, Healthcheck
from registry_client.values import differing, is_value
from runtime.containers.spec import (
    ContainerSpec,
    Limits,
    Mount,
    NetworkAttachment,
    PortBinding,
    RestartPolicy,
    Rlimit,
    Throttle,
)

_INNER: dict[str, Any] = {
    "mounts": Mount,
    "networks": NetworkAttachment,
    "ports": PortBinding,
    "rlimits": Rlimit,
    "throttles": Throttle,
    "limits": Limits,
    "restart": RestartPolicy,
    "healthcheck": Healthcheck,
}


def dump_spec(spec: ContainerSpec) -> str:
    return json.dumps(_record(spec), separators=(",", ":"))


def load_spec(text: str) -> ContainerSpec:
    spec: ContainerSpec = _value(ContainerSpec, json.loads(text))
    return spec


def dump_image_config(config: ContainerConfig) -> str:
    return json.dumps(_record(config), separators=(",", ":"))


def load_image_config(text: str) -> ContainerConfig:
    config: ContainerConfig = _value(ContainerConfig, json.loads(text))
    return config


def _record(value: Any) -> Any:
    if is_value(value):
        return {name: _record(own) for name, own in differing(value).items()}
    if isinstance(value, tuple):
        return [_record(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _value(kind: Any, record: dict[str, Any]) -> Any:
    return kind(**{name: _field(name, value) for name, value in record.items()})


def _field(name: str, value: Any) -> Any:
    kind = _INNER.get(name)
    if isinstance(value, list):
        return tuple(_value(kind, item) if kind else _frozen(item) for item in value)
    if isinstance(value, dict) and kind:
        return _value(kind, value)
    return value


def _frozen(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item
