"""The settings, and the one place that reads the environment.

One table says everything about a setting: name, type, default, variable, TOML key, help. A value comes from the flag,
else the environment, else `.pipe.toml` of the project, else the user's `config.toml`, else the default. What people
write is read strictly: an unknown key is an error that names the nearest known one. Below `pipeline` nobody sees a
`Settings`: functions take values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from registry_client.values import as_dict, frozen
from runtime.errors import InvalidInput, did_you_mean


@frozen
class Setting:
    name: str
    default: str
    variable: str
    help: str
    parse: Callable[[str], Any] = str


def _flag(text: str) -> bool:
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    raise ValueError("want true or false")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("want a number from 0 up")
    return number


def _progress(text: str) -> str:
    if text not in PROGRESS:
        raise ValueError(f"want one of {', '.join(PROGRESS)}")
    return text


def _snapshots(text: str) -> str:
    if text not in SNAPSHOTS:
        raise ValueError(f"want one of {', '.join(SNAPSHOTS)}")
    return text


SNAPSHOTS = ("auto", "overlay", "copy")  # as in runtime.store.place, which not every command needs
PROGRESS = ("auto", "tty", "plain", "jsonl", "rawjson", "quiet", "none")

TABLE = (
    Setting("root", "", "PIPE_ROOT", "the store's directory (default /var/lib/pipe, or below XDG_DATA_HOME when not root)"),
    Setting("snapshots", "auto", "PIPE_SNAPSHOTS", "how layers are put together: auto, overlay, copy (slower, works where overlay is refused)", _snapshots),
    Setting("progress", "auto", "PIPE_PROGRESS", "how work is shown: auto, tty, plain, jsonl, rawjson, quiet, none", _progress),
    Setting("jobs", "0", "PIPE_JOBS", "how many steps run at once (0: as many as there are processors, at least 4)", _count),
    Setting("runtime", "", "PIPE_RUNTIME", "the OCI runtime: empty for the built-in sandbox, or crun, runc, a path"),
    Setting("registry_address", "127.0.0.1:5050", "PIPE_REGISTRY_ADDRESS", "where `pipe registry serve` listens"),
    Setting("docker_config", "", "DOCKER_CONFIG", "the directory of Docker's config.json (default ~/.docker)"),
    Setting("ca_bundle", "", "SSL_CERT_FILE", "certificates that registries are checked against (default: the system's)"),
    Setting("insecure_registries", "", "PIPE_INSECURE_REGISTRIES", "hosts spoken to without TLS, separated by commas"),
    Setting("platform", "", "DOCKER_DEFAULT_PLATFORM", "the platform to build and pull for (default: this host's)"),
    Setting("epoch", "", "SOURCE_DATE_EPOCH", "seconds since 1970 that all times in images are set to"),
    Setting("debug", "false", "PIPE_DEBUG", "log to stderr and show tracebacks", _flag),
)  # fmt: skip


@frozen
class Settings:
    root: str
    snapshots: str
    progress: str
    jobs: int
    runtime: str
    registry_address: str
    docker_config: str
    ca_bundle: str
    insecure_registries: str
    platform: str
    epoch: str
    debug: bool


def environment() -> Mapping[str, str]:
    """The process's environment, for those whose business it is: interpolation, secrets, `-e NAME`."""
    return os.environ


def no_color() -> bool:
    """NO_COLOR (no-color.org): any non-empty value."""
    return bool(os.environ.get("NO_COLOR"))


def load_settings(flags: Mapping[str, str], env: Mapping[str, str], directory: str = ".") -> Settings:
    """The settings in force; InvalidInput names the setting, where it came from and what it may be."""
    files = [_read_toml(path) for path in (os.path.join(directory, ".pipe.toml"), _user_file(env))]
    values = {}
    for setting in TABLE:
        origin, text = _find(setting, flags, env, files)
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            raise InvalidInput(f"{origin} is {text!r}: {error}") from error
    values["root"] = values["root"] or _default_root(env)
    values["docker_config"] = values["docker_config"] or os.path.join(env.get("HOME", "/root"), ".docker")
    return Settings(**values)


def _find(
    setting: Setting,
    flags: Mapping[str, str],
    env: Mapping[str, str],
    files: list[tuple[str, dict[str, str]]],
) -> tuple[str, str]:
    if setting.name in flags:
        return f"--{setting.name.replace('_', '-')}", flags[setting.name]
    if env.get(setting.variable):
        return setting.variable, env[setting.variable]
    for path, content in files:
        if setting.name in content:
            return f"`{setting.name}` in {path}", content[setting.name]
    return f"the default of {setting.name}", setting.default


def _user_file(env: Mapping[str, str]) -> str:
    home = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME", "/root"), ".config")
    return os.path.join(home, "pipe", "config.toml")


def _read_toml(path: str) -> tuple[str, dict[str, str]]:
    if not os.path.exists(path):
        return path, {}
    import tomllib

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    known = [setting.name for setting in TABLE]
    for key in content:
        if key not in known:
            raise InvalidInput(f"unknown setting `{key}` in {path}", hint=did_you_mean(key, known))
    return path, {key: _text(value) for key, value in content.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _default_root(env: Mapping[str, str]) -> str:
    if os.geteuid() == 0:
        return "/var/lib/pipe"
    data = env.get("XDG_DATA_HOME") or os.path.join(env.get("HOME", "/tmp"), ".local", "share")
    return os.path.join(data, "pipe")


def describe(settings: Settings) -> list[tuple[str, str]]:
    """Name and value of every setting, for `pipe config`."""
    return [(name, str(content)) for name, content in as_dict(settings).items()]
