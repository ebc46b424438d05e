"""What a client asks for, in BuildKit's attributes, as a `BuildRequest`. Pure; the spelling is that of the Dockerfile front end.

Attributes we do not know are passed over, as BuildKit does: clients send many that are only hints.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from builder.control.messages.common import CacheEntry
from builder.control.messages.control import Exporter
from builder.request import AttestWanted, BuildRequest, OutputWanted
from registry_client.oci.platform import Platform, parse_platform
from registry_client.values import frozen
from runtime.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from builder.control.sources import Sources
    from builder.sharing.wanted import CacheFrom, CacheTo
    from runtime.containers.spec import Limits, Rlimit

ENTITLEMENTS = ("network.host", "security.insecure")
IMAGES = ("moby", "image")  # the image itself, in the store of whoever builds it
FILES = ("oci", "docker", "tar", "local")  # what goes back to the client
_PULLS: Mapping[str, Literal["auto", "always"]] = {"pull": "always"}
_TRUE = ("1", "t", "true")
_INLINE = ("registry", "oci")  # outputs that carry attestations within


@frozen(kw_only=True)
class Output:
    """One exporter. `path` is where it is made before it is sent to the client, "" for what stays here.

    `as_layout`: the client takes the blobs of the OCI layout that lies there.
    """

    number: int
    wanted: OutputWanted
    path: str = ""
    as_layout: bool = False


def outputs_of(exporters: Sequence[Exporter], scratch: str) -> tuple[tuple[str, ...], tuple[Output, ...]]:
    """The names of the image in the store, and the outputs."""
    tags: list[str] = []
    found: list[Output] = []
    for number, exporter in enumerate(exporters):
        attrs = exporter.attrs
        name = attrs.get("name", "")
        if exporter.type in IMAGES:
            pushed = attrs.get("push", "").lower() in _TRUE
            tags += [each for each in name.split(",") if each and each != "*"]
            wanted = _wanted("registry" if pushed else "image", attrs, name if pushed else "")
            found.append(Output(number=number, wanted=wanted))
        elif exporter.type in FILES:
            as_layout = attrs.get("tar", "true").lower() not in _TRUE
            path = f"{scratch}/output-{number}"
            wanted = _wanted(exporter.type, attrs, name, path)
            found.append(Output(number=number, wanted=wanted, path=path, as_layout=as_layout))
        elif exporter.type not in ("", "cacheonly"):
            raise Unsupported(
                f"output type {exporter.type!r} is not known", hint=f"one of {', '.join((*IMAGES, *FILES))}"
            )
    return tuple(dict.fromkeys(tags)), tuple(found)


def _wanted(kind: str, attrs: Mapping[str, str], name: str, dest: str = "") -> OutputWanted:
    from builder.export.options import check_options

    wanted = OutputWanted(
        type=kind,
        dest=dest,
        name=name,
        compression=attrs.get("compression", "gzip"),
        rewrite_timestamp=attrs.get("rewrite-timestamp", "").lower() in _TRUE,
        options={"type": kind, **{key: value for key, value in attrs.items() if key not in ("dest", "name")}},
    )
    check_options(wanted, ())
    return wanted


def request_of(
    attrs: Mapping[str, str],
    *,
    sources: Sources,
    tags: tuple[str, ...],
    outputs: Iterable[OutputWanted],
    cache_from: Iterable[CacheEntry],
    cache_to: Iterable[CacheEntry],
    entitlements: Iterable[str],
) -> BuildRequest:
    """The build of what was sent. Caches of `type=local` name directories here."""
    outputs, dockerfile = tuple(outputs), sources.dockerfile
    return BuildRequest(
        context=sources.context,
        dockerfile=dockerfile[0] if dockerfile else attrs.get("filename"),
        dockerfile_text=dockerfile[1] if dockerfile else None,
        ignore_text=sources.ignore,
        target=attrs.get("target", ""),
        build_args=_prefixed(attrs, "build-arg:"),
        labels=_prefixed(attrs, "label:"),
        tags=tags,
        platforms=_platforms(attrs.get("platform", "")),
        no_cache=attrs.get("no-cache") == "",
        no_cache_filter=frozenset(filter(None, attrs.get("no-cache", "").split(","))),
        pull=_PULLS.get(attrs.get("image-resolve-mode", ""), "auto"),
        network=_network(attrs.get("force-network-mode", "")),
        build_contexts=sources.contexts,
        add_hosts=tuple(_pair(text, "add-hosts") for text in _words(attrs.get("add-hosts", ""))),
        limits=_limits(attrs.get("shm-size", "")),
        rlimits=tuple(_rlimit(text) for text in _words(attrs.get("ulimit", ""))),
        cgroup_parent=attrs.get("cgroup-parent", ""),
        attest=_attest(attrs, outputs),
        allow=frozenset(entitlements) & frozenset(ENTITLEMENTS),
        cache_from=_cache_from(cache_from),
        cache_to=_cache_to(cache_to),
        outputs=outputs,
        rewrite_timestamp=any(output.rewrite_timestamp for output in outputs),
    )


def named_contexts(attrs: Mapping[str, str]) -> dict[str, str]:
    """`context:NAME`: what each name stands for."""
    return _prefixed(attrs, "context:")


def _prefixed(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in attrs.items() if key.startswith(prefix)}


def _words(text: str) -> list[str]:
    """One line of CSV."""
    return next(csv.reader([text]), []) if text else []


def _pair(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"{what}: {text!r} is not NAME=VALUE")
    return name, value.strip("[]")


def _platforms(text: str) -> tuple[Platform, ...]:
    try:
        return tuple(dict.fromkeys(parse_platform(word) for word in text.split(",") if word))
    except ValueError as error:
        raise InvalidInput(f"platform: {error}", hint="for example linux/amd64") from error


def _network(text: str) -> str:
    if text not in ("", "default", "none", "host"):
        raise InvalidInput(f"network mode {text!r}: want default, none or host")
    return text or "default"


def _limits(shm_size: str) -> Limits | None:
    if not shm_size:
        return None
    from runtime.containers.spec import Limits

    return Limits(shm_size=_number(shm_size, "shm-size"))


def _number(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(f"{what}: {text!r} is no number") from error


def _rlimit(text: str) -> Rlimit:
    from runtime.containers.spec import Rlimit

    name, value = _pair(text, "ulimit")
    soft, colon, hard = value.partition(":")
    return Rlimit(name=name, soft=_number(soft, "ulimit"), hard=_number(hard if colon else soft, "ulimit"))


def _attest(attrs: Mapping[str, str], outputs: Sequence[OutputWanted]) -> AttestWanted:
    """`attest:provenance` and `attest:sbom`. `inline-only` is what nobody asked for: without a place for it, it is left out."""
    given = {kind: _fields(text) for kind, text in _prefixed(attrs, "attest:").items()}
    for fields in given.values():
        fields.pop("type", None)
    on = {kind: fields for kind, fields in given.items() if fields.get("disabled", "").lower() not in _TRUE}
    about, bom = on.get("provenance"), on.get("sbom")
    if about is not None and about.get("inline-only", "").lower() in _TRUE:
        about = about if any(output.type in _INLINE for output in outputs) else None
    mode = "" if about is None else about.get("mode") or "min"
    if mode not in ("", "min", "max"):
        raise InvalidInput(f"provenance mode {mode!r}", hint="want min or max")
    return AttestWanted(
        provenance=mode,
        builder_id=(about or {}).get("builder-id", ""),
        reproducible=(about or {}).get("reproducible", "").lower() in _TRUE,
        sbom=bom is not None,
        generator=(bom or {}).get("generator", ""),
        vcs={key: value for key, value in _prefixed(attrs, "vcs:").items() if key in ("source", "revision")},
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in _words(text))}


def cache_imports(attrs: Mapping[str, str], entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """A client repeats among the attributes what it says in the request; older ones say it only there."""
    found = list(entries)
    try:
        for record in json.loads(attrs.get("cache-imports") or "[]"):
            found.append(CacheEntry(record["Type"], dict(record.get("Attrs") or {})))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"cache-imports: {attrs['cache-imports']!r} cannot be read") from error
    return [entry for number, entry in enumerate(found) if entry not in found[:number]]


def _cache_from(entries: Iterable[CacheEntry]) -> tuple[CacheFrom, ...]:
    texts = [_spelled(entry) for entry in entries]
    if not texts:
        return ()
    from builder.sharing.wanted import parse_cache_from

    return tuple(dict.fromkeys(parse_cache_from(text) for text in texts))


def _cache_to(entries: Iterable[CacheEntry]) -> tuple[CacheTo, ...]:
    texts = [_spelled(entry) for entry in entries]
    if not texts:
        return ()
    from builder.sharing.wanted import parse_cache_to

    return tuple(dict.fromkeys(parse_cache_to(text) for text in texts))


def _spelled(entry: CacheEntry) -> str:
    """As the flag has it."""
    words = [
        f"type={entry.type}",
        *(f"{name}={value}" for name, value in sorted(entry.attrs.items()) if name != "type"),
    ]
    return ",".join(f'"{word}"' if "," in word else word for word in words)
