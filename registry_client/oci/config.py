"""The image configuration (image-spec config.md) with Docker's extensions (FEATURES C-4).

Unknown keys are never an error and `null` means absent. `dump_config` is deterministic: its digest is the image id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registry_client.oci.digest import Digest, parse_digest
from registry_client.oci.manifest import canonical_json
from registry_client.oci.platform import Platform
from registry_client.values import field, frozen


@frozen
class Healthcheck:
    """Docker's HEALTHCHECK. Times are in nanoseconds, 0 means the default; `test` is `("NONE",)`, `("CMD", …)` or `("CMD-SHELL", text)`."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@frozen
class ContainerConfig:
    """How a container of this image is started. `None` for `cmd` or `entrypoint` is "not set", `()` is "set to nothing"."""

    user: str = ""
    env: tuple[str, ...] = ()  # "NAME=value", in order of definition
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()  # "80/tcp", sorted
    volumes: tuple[str, ...] = ()  # sorted
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()


@frozen
class History:
    created: str = ""  # RFC 3339
    created_by: str = ""
    empty_layer: bool = False
    comment: str = ""
    author: str = ""


@frozen
class ImageConfig:
    platform: Platform = field(default_factory=Platform)
    config: ContainerConfig = field(default_factory=ContainerConfig)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    extra: Mapping[str, Any] = field(
        default_factory=dict, hash=False
    )  # e.g. os.version, os.features, cache records


def parse_config(raw: bytes) -> ImageConfig:
    """Read an image config; ValueError when it is not one."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"image config is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("image config is not a JSON object")
    rootfs = _record(record, "rootfs")
    platform = Platform(
        str(record.get("os") or "linux"),
        str(record.get("architecture") or "amd64"),
        str(record.get("variant") or ""),
    )
    return ImageConfig(
        platform=platform,
        config=_container_config(_record(record, "config")),
        diff_ids=tuple(parse_digest(text) for text in _texts(rootfs.get("diff_ids"))),
        history=tuple(_history(entry) for entry in _records(record.get("history"))),
        created=str(record.get("created") or ""),
        author=str(record.get("author") or ""),
        extra={
            key: value
            for key, value in record.items()
            if key.startswith(("os.", "moby.")) and value is not None
        },
    )


def _container_config(record: dict[str, Any]) -> ContainerConfig:
    return ContainerConfig(
        user=str(record.get("User") or ""),
        env=_texts(record.get("Env")),
        entrypoint=None if record.get("Entrypoint") is None else _texts(record["Entrypoint"]),
        cmd=None if record.get("Cmd") is None else _texts(record["Cmd"]),
        working_dir=str(record.get("WorkingDir") or ""),
        exposed_ports=_names(record.get("ExposedPorts")),
        volumes=_names(record.get("Volumes")),
        labels={name: str(value) for name, value in _record(record, "Labels").items()},
        stop_signal=str(record.get("StopSignal") or ""),
        healthcheck=_healthcheck(_record(record, "Healthcheck")),
        shell=None if record.get("Shell") is None else _texts(record["Shell"]),
        on_build=_texts(record.get("OnBuild")),
    )


def _record(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; null and none are an empty one."""
    value = record.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"expected an object for {key} in the image config, got {value!r:.80}")
    return value


def _records(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value or [], list) or not all(isinstance(entry, dict) for entry in value or ()):
        raise ValueError(f"expected a list of objects in the image config, got {value!r:.80}")
    return value or []


def _names(value: Any) -> tuple[str, ...]:
    """The keys of an object, as ports and volumes are written; some tools wrote a list."""
    return tuple(sorted(value if isinstance(value, dict) else _texts(value)))


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise ValueError(f"expected a list of strings in the image config, got {value!r:.80}")
    return tuple(str(item) for item in value)


def _healthcheck(record: dict[str, Any]) -> Healthcheck | None:
    """None where nothing is said, as where there is no health check at all."""

    def number(key: str) -> int:
        value = record.get(key) or 0
        if not isinstance(value, int):
            raise ValueError(f"expected a whole number for {key} in the image config, got {value!r:.80}")
        return int(value)

    found = Healthcheck(
        _texts(record.get("Test")),
        number("Interval"),
        number("Timeout"),
        number("StartPeriod"),
        number("StartInterval"),
        number("Retries"),
    )
    return None if found == Healthcheck() else found


def _history(record: dict[str, Any]) -> History:
    return History(
        str(record.get("created") or ""),
        str(record.get("created_by") or ""),
        bool(record.get("empty_layer")),
        str(record.get("comment") or ""),
        str(record.get("author") or ""),
    )


def dump_config(image: ImageConfig) -> bytes:
    """The config's bytes; equal values give equal bytes."""
    record: dict[str, Any] = {"architecture": image.platform.architecture, "os": image.platform.os}
    if image.platform.variant:
        record["variant"] = image.platform.variant
    if image.created:
        record["created"] = image.created
    if image.author:
        record["author"] = image.author
    record["config"] = container_config_to_json(image.config)
    record["rootfs"] = {"type": "layers", "diff_ids": list(image.diff_ids)}
    record["history"] = [_history_to_json(entry) for entry in image.history]
    record.update(sorted(image.extra.items()))
    return canonical_json(record)


def container_config_to_json(config: ContainerConfig) -> dict[str, Any]:
    """Docker's spelling of a container config; absent values are left out."""
    record: dict[str, Any] = {}
    if config.user:
        record["User"] = config.user
    if config.exposed_ports:
        record["ExposedPorts"] = {port: {} for port in sorted(config.exposed_ports)}
    if config.env:
        record["Env"] = list(config.env)
    if config.entrypoint is not None:
        record["Entrypoint"] = list(config.entrypoint)
    if config.cmd is not None:
        record["Cmd"] = list(config.cmd)
    if config.volumes:
        record["Volumes"] = {path: {} for path in sorted(config.volumes)}
    if config.working_dir:
        record["WorkingDir"] = config.working_dir
    if config.labels:
        record["Labels"] = dict(sorted(config.labels.items()))
    if config.stop_signal:
        record["StopSignal"] = config.stop_signal
    if config.healthcheck is not None:
        record["Healthcheck"] = healthcheck_to_json(config.healthcheck)
    if config.shell is not None:
        record["Shell"] = list(config.shell)
    if config.on_build:
        record["OnBuild"] = list(config.on_build)
    return record


def healthcheck_to_json(health: Healthcheck) -> dict[str, Any]:
    """Docker's spelling of a health check; defaults are left out."""
    record: dict[str, Any] = {"Test": list(health.test)} if health.test else {}
    numbers = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
        "Retries": health.retries,
    }
    record.update({key: value for key, value in numbers.items() if value})
    return record


def _history_to_json(entry: History) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if entry.created:
        record["created"] = entry.created
    if entry.author:
        record["author"] = entry.author
    if entry.created_by:
        record["created_by"] = entry.created_by
    if entry.comment:
        record["comment"] = entry.comment
    if entry.empty_layer:
        record["empty_layer"] = True
    return record
