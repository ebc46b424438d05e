"""From Compose's container keys to a runtime ContainerSpec: texts filled in, files of variables read, paths made absolute.

Which network, names, labels and secrets a container gets is its owner's business (a stage or a deployment): they pass
them in as `replace` arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipeline.config.container import ContainerKeys, DeployKeys, EnvFile
from pipeline.config.dotenv import parse_dotenv
from pipeline.config.interpolate import fill, has_placeholder
from registry_client.values import frozen, replace
from runtime.containers.spec import ContainerSpec, Mount
from runtime.errors import InvalidInput, Unsupported
from runtime.spans import Span

Lookup = Callable[[str], str | None]
T = TypeVar("T")
Variables = tuple[tuple[str, str | None], ...]


@frozen
class Place:
    """Where a container is described: `root` resolves paths, `outside` gives values to variables without one."""

    root: str
    outside: Mapping[str, str]
    lookup: Lookup
    volume_prefix: str = ""
    real_volumes: Mapping[str, str] | None = None

    def volume(self, name: str) -> str:
        """The store's name of a volume of the file; anonymous ones stay so."""
        if not name:
            return ""
        return (self.real_volumes or {}).get(name) or f"{self.volume_prefix}{name}"


def filled(value: T, lookup: Lookup, span: Span | None = None) -> T:
    """A value with the placeholders in all its texts replaced, however deep."""
    if isinstance(value, str):
        text = fill(value, lookup, span)
        if has_placeholder(text):
            from pipeline.config.interpolate import placeholders

            raise InvalidInput(f"`{placeholders(text)[0]}` is not known here", span)
        return text  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(filled(item, lookup, span) for item in value)  # type: ignore[return-value]
    from dataclasses import fields, is_dataclass

    if is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Span):
        changes: dict[str, Any] = {}
        for field in fields(value):
            before = getattr(value, field.name)
            after = filled(before, lookup, span)
            if after is not before and after != before:
                changes[field.name] = after
        return replace(value, **changes) if changes else value
    return value


def read_env_files(files: tuple[EnvFile, ...], root: str) -> dict[str, str]:
    """The variables of `env_file:`; the last file wins."""
    found: dict[str, str] = {}
    for file in files:
        path = os.path.join(root, os.path.expanduser(file.path))
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        except FileNotFoundError:
            if file.required:
                raise InvalidInput(
                    f"no env_file {file.path}", file.span, hint="`{path: …, required: false}` may be missing"
                ) from None
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read env_file {file.path}: {error}", file.span) from error
        found.update(parse_dotenv(text, file.path, raw=file.raw))
    return found


def merge_variables(outside: Mapping[str, str], *layers: Variables | Mapping[str, str]) -> dict[str, str]:
    """Variables, the later layer winning; one without a value is taken from outside, and absent when not set there."""
    found: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items() if isinstance(layer, Mapping) else layer:
            if value is not None:
                found[name] = value
            elif name in outside:
                found[name] = outside[name]
    return found


def container_spec(
    keys: ContainerKeys,
    place: Place,
    *,
    image: str,
    env: Mapping[str, str],
    deploy: DeployKeys | None = None,
    **changes: Any,
) -> ContainerSpec:
    """The runtime's spec of a container."""
    options = _security(keys.security_opt)
    spec = ContainerSpec(
        image=image,
        command=keys.command,
        entrypoint=keys.entrypoint,
        env=tuple(f"{name}={value}" for name, value in env.items()),
        user=keys.user,
        groups=keys.groups,
        working_dir=keys.working_dir,
        hostname=keys.hostname,
        domainname=keys.domainname,
        tty=keys.tty,
        stdin=keys.stdin_open,
        init=keys.init,
        mounts=tuple(_mount(mount, place) for mount in (*keys.volumes, *keys.tmpfs)),
        read_only=keys.read_only,
        network_mode=_network_mode(keys.network_mode),
        expose=keys.expose,
        dns=keys.dns,
        dns_search=keys.dns_search,
        dns_options=keys.dns_options,
        extra_hosts=keys.extra_hosts,
        limits=keys.limits(deploy),
        rlimits=keys.ulimits,
        sysctls=dict(keys.sysctls),
        cap_add=keys.cap_add,
        cap_drop=keys.cap_drop,
        privileged=keys.privileged,
        devices=keys.devices,
        pid_mode=keys.pid_mode,
        ipc_mode=keys.ipc_mode,
        stop_signal=keys.stop_signal,
        stop_timeout=keys.stop_grace_period,
        log_driver=keys.logging.driver if keys.logging else "json-file",
        log_options=dict(keys.logging.options) if keys.logging else {},
        runtime=keys.runtime,
        **options,
    )
    return replace(spec, **changes)


def _mount(mount: Mount, place: Place) -> Mount:
    if mount.type == "bind":
        source = os.path.normpath(os.path.join(place.root, os.path.expanduser(mount.source)))
        return replace(mount, source=source)
    if mount.type == "volume":
        return replace(mount, source=place.volume(mount.source))
    return mount


def _network_mode(mode: str) -> str:
    if mode.startswith("service:"):
        raise Unsupported(f"network_mode {mode!r}", hint="put both on one network and use its name")
    return mode or "bridge"


def _security(options: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        match name:
            case "no-new-privileges":
                found["no_new_privileges"] = value in ("", "true")
            case "seccomp":
                found["seccomp"] = value
            case "systempaths":
                found["unmask_paths"] = value == "unconfined"
            case "apparmor" | "label":
                continue  # without an LSM of that kind there is nothing to do
            case _:
                raise InvalidInput(
                    f"unknown security_opt {option!r}",
                    hint="no-new-privileges, seccomp=…, systempaths=unconfined",
                )
    return found
