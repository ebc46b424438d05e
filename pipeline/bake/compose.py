"""The builds of a Compose file as targets: each service with `build` is one, and all together are the group `default`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pipeline.bake.definition import Definition, Target, fields_text, merge, read_target
from runtime.errors import InvalidInput, Unsupported, did_you_mean

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-+?])(?P<word>[^}]*))?\}|(?P<wrong>))"
)
# Keys of `build` that are an attribute under another name, or under their own.
_SAME = {
    "dockerfile": "dockerfile", "dockerfile_inline": "dockerfile-inline", "target": "target", "cache_from": "cache-from",
    "cache_to": "cache-to", "tags": "tags", "platforms": "platforms", "no_cache": "no-cache", "pull": "pull",
    "network": "network", "shm_size": "shm-size", "ssh": "ssh", "entitlements": "entitlements",
}  # fmt: skip
_OWN = (
    "context", "args", "labels", "extra_hosts", "additional_contexts", "secrets", "ulimits", "privileged", "isolation",
    "x-bake", "provenance", "sbom",
)  # fmt: skip


def parse_compose(text: str, name: str, directory: str, env: Mapping[str, str]) -> Definition:
    """Paths are relative to the file's directory; variables come from the environment and the `.env` beside it."""
    import yaml

    try:
        record = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidInput(f"{name} is not YAML: {str(error).splitlines()[0]}") from error
    services = (record or {}).get("services") if isinstance(record, dict) else None
    if not isinstance(services, dict):
        raise InvalidInput(f"{name} has no `services`")
    if "include" in record:
        raise Unsupported(f"{name}: include is not followed", hint="name the files with -f")
    for title, service in services.items():
        if isinstance(service, dict) and "extends" in service:
            raise Unsupported(
                f"{name}: service {title}: extends is not followed", hint="use a YAML merge key (<<)"
            )
    known = {**_dotenv(directory), **env}
    secrets = record.get("secrets") or {}
    targets = {
        title: _target(f"{name}: service {title}", _filled(service, known, name), secrets, directory, known)
        for title, service in services.items()
        if isinstance(service, dict) and service.get("build") is not None
    }
    return Definition(targets, {"default": tuple(targets)} if targets else {})


def _target(
    where: str, service: dict[str, Any], secrets: Mapping[str, Any], directory: str, env: Mapping[str, str]
) -> Target:
    build = service["build"] if isinstance(service["build"], dict) else {"context": service["build"]}
    for key in build:
        if key not in _SAME and key not in _OWN:
            raise InvalidInput(
                f"{where}: unknown key {key!r} of build", hint=did_you_mean(key, (*_SAME, *_OWN))
            )
    if build.get("privileged"):
        raise Unsupported(f"{where}: privileged builds", hint="use RUN --security=insecure and entitlements")
    record: dict[str, Any] = {to: build[key] for key, to in _SAME.items() if build.get(key) is not None}
    record["context"] = _path(directory, str(build.get("context", ".")))
    for key in ("cache-from", "cache-to", "tags", "platforms", "ssh", "entitlements"):
        if isinstance(record.get(key), str):
            record[key] = [record[key]]
    if isinstance(record.get("ssh"), dict):
        record["ssh"] = [f"{key}={value}" if value else key for key, value in record["ssh"].items()]
    record["labels"] = _pairs(build.get("labels"))
    record["args"] = {
        key: env.get(key) if value is None else value for key, value in _pairs(build.get("args")).items()
    }
    record["extra-hosts"] = _pairs(build.get("extra_hosts"), separators="=:")
    record["contexts"] = {
        key: _context(directory, str(value))
        for key, value in _pairs(build.get("additional_contexts")).items()
    }
    record["secret"] = [_secret(where, each, secrets, directory) for each in build.get("secrets") or ()]
    record["ulimits"] = [_ulimit(key, value) for key, value in (build.get("ulimits") or {}).items()]
    record["attest"] = [
        f"type={kind},{_attested(build[kind])}" for kind in ("provenance", "sbom") if build.get(kind)
    ]
    if "tags" not in record and service.get("image"):
        record["tags"] = [service["image"]]
    target = read_target(where, {key: value for key, value in record.items() if value not in ({}, [])})
    return merge(target, _extension(where, build.get("x-bake")))


def _extension(where: str, record: Any) -> Target:
    """`x-bake`: attributes as the JSON form has them, a single one where a list is wanted too."""
    if record is None:
        return {}
    from pipeline.bake.definition import ATTRIBUTES

    if not isinstance(record, dict):
        raise InvalidInput(f"{where}: x-bake is not an object")
    listed = {
        key: [value]
        if key in ATTRIBUTES and ATTRIBUTES[key].kind == "list" and not isinstance(value, list)
        else value
        for key, value in record.items()
    }
    return read_target(f"{where}: x-bake", listed)


def _pairs(value: Any, separators: str = "=") -> dict[str, Any]:
    """`{A: b}` or `["A=b"]`; a name alone has no value."""
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    found: dict[str, Any] = {}
    for entry in value or ():
        place = next((n for n, letter in enumerate(str(entry)) if letter in separators), -1)
        key, rest = (str(entry), None) if place < 0 else (str(entry)[:place], str(entry)[place + 1 :])
        found[key] = rest
    return found


def _path(directory: str, text: str) -> str:
    if "://" in text or text.startswith("git@") or os.path.isabs(text):
        return text
    return os.path.normpath(os.path.join(directory, os.path.expanduser(text)))


def _context(directory: str, text: str) -> str:
    kind, colon, name = text.partition(":")
    if colon and kind == "service":
        return f"target:{name}"
    return text if "://" in text else _path(directory, text)


def _secret(where: str, entry: Any, secrets: Mapping[str, Any], directory: str) -> str:
    use = entry if isinstance(entry, dict) else {"source": entry}
    name = str(use.get("source", ""))
    given = secrets.get(name)
    if not isinstance(given, dict):
        raise InvalidInput(
            f"{where}: secret {name!r} is not among the file's `secrets`", hint=did_you_mean(name, secrets)
        )
    fields = {"id": name}
    if "environment" in given:
        fields["env"] = str(given["environment"])
    elif "file" in given:
        fields["src"] = _path(directory, str(given["file"]))
    else:
        raise Unsupported(f"{where}: secret {name!r} has neither file nor environment")
    return fields_text(fields)


def _ulimit(name: str, value: Any) -> str:
    return f"{name}={value['soft']}:{value['hard']}" if isinstance(value, dict) else f"{name}={value}"


def _attested(value: Any) -> str:
    return value if isinstance(value, str) and "=" in value else "disabled=false"


# --- variables ----------------------------------------------------------------------------------------------------


def _dotenv(directory: str) -> dict[str, str]:
    try:
        with open(os.path.join(directory, ".env"), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (
        line.removeprefix("export ").partition("=")
        for line in map(str.strip, lines)
        if line and line[0] != "#"
    )
    return {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}


def _filled(value: Any, known: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _replacement(match, known, where), value)
    if isinstance(value, list):
        return [_filled(each, known, where) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, known, where) for key, each in value.items()}
    return value


def _replacement(match: re.Match[str], known: Mapping[str, str], where: str) -> str:
    """As the shell: `-` gives a default, `+` another value, `?` an error; with `:` an empty value counts as none."""
    if match["escaped"]:
        return "$"
    name, operator, word = match["named"] or match["braced"], match["operator"] or "", match["word"] or ""
    if name is None:
        raise InvalidInput(f"{where}: `$` stands before no name", hint="write $$ for a dollar sign")
    value = known.get(name)
    given = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return _filled_word(word, known, where) if given else ""
    if operator.endswith("?") and not given:
        raise InvalidInput(f"{where}: {name}: {word or 'is not set'}")
    if operator.endswith("-") and not given:
        return _filled_word(word, known, where)
    return value or ""


def _filled_word(word: str, known: Mapping[str, str], where: str) -> str:
    return str(_filled(word, known, where))
