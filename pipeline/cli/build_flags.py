"""The flags of `pipe build` as a `BuildRequest`: docker's spelling, strict values (FEATURES B-22). Reads secret files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from builder.request import AttestWanted, BuildRequest, OutputWanted
from registry_client.oci.platform import Platform, parse_platform
from runtime.errors import HostFault, InvalidInput, NotFound, Unsupported, did_you_mean

if TYPE_CHECKING:
    from builder.policy import SourcePolicy
    from builder.ssh import AgentWanted
    from runtime.containers.spec import Limits, Rlimit

OUTPUT_TYPES = ("image", "registry", "oci", "docker", "local", "tar", "cacheonly")
ENTITLEMENTS = ("network.host", "security.insecure")
COMPRESSIONS = ("gzip", "zstd", "estargz", "uncompressed")
_POLICY = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"  # as buildx reads it
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _policy(path: str) -> SourcePolicy | None:
    if not path:
        return None
    from builder.policy import parse_policy

    try:
        with open(path, encoding="utf-8") as file:
            return parse_policy(file.read(1 << 24), path)
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"cannot read the source policy {path}: {error}") from error


def _own_dockerfile(context: str, path: str | None) -> bytes | None:
    """An absolute -f is a file of ours, also where the context is a URL; another is a name in that context."""
    if path is None or not path.startswith("/") or ("://" not in context and "@" not in context):
        return None
    from builder.context import DOCKERFILE_LIMIT, is_remote, read_limited

    return read_limited(path, DOCKERFILE_LIMIT) if is_remote(context) else None


def build_request(context: str, flags: Mapping[str, Any], env: Mapping[str, str], epoch: str) -> BuildRequest:
    """What the flags ask for."""
    from builder.build import parse_epoch

    outputs = _outputs(flags)
    return BuildRequest(
        context=context,
        dockerfile=flags["file"],
        dockerfile_text=_own_dockerfile(context, flags["file"]),
        target=flags["target"] or "",
        build_args=_build_args(flags["build_arg"], env),
        tags=_tags(flags["tag"]),
        platforms=_platforms(flags["platform"]),
        no_cache=flags["no_cache"],
        no_cache_filter=_comma_words(flags["no_cache_filter"]),
        pull="always" if flags["pull"] else "auto",
        secrets=dict(secret_given(text, env) for text in flags["secret"]),
        ssh=_ssh(flags["ssh"], env),
        labels={
            _utf8(name): _utf8(value) for name, value in _pairs(flags["label"], "--label", default="").items()
        },
        annotations=tuple(flags["annotation"]),
        attest=_with_vcs(attest_wanted(flags), context),
        metadata=bool(flags["metadata_file"]),
        network=_network(flags["network"]),
        outputs=outputs,
        build_contexts=_pairs(flags["build_context"], "--build-context"),
        epoch=parse_epoch(epoch) if epoch else None,
        rewrite_timestamp=any(output.rewrite_timestamp for output in outputs),
        add_hosts=tuple(_host(text) for text in flags["add_host"]),
        limits=_limits(flags),
        rlimits=tuple(_ulimit(text) for text in flags["ulimit"]),
        cgroup_parent=flags["cgroup_parent"] or "",
        allow=_allowed(flags["allow"]),
        pinned=bool(flags["pin_lock"]),
        policy=_policy(flags["source_policy_file"] or env.get(_POLICY, "")),
        **_shared_caches(flags, env),
    )


def _shared_caches(flags: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    to = list(flags["cache_to"])
    # Docker's older way to say it.
    if _build_args(flags["build_arg"], env).get("BUILDKIT_INLINE_CACHE", "0") in ("1", "true"):
        to.append("type=inline")
    if not flags["cache_from"] and not to:
        return {}
    from builder.sharing.wanted import parse_cache_from, parse_cache_to

    return {
        "cache_from": tuple(parse_cache_from(text) for text in flags["cache_from"]),
        "cache_to": tuple(parse_cache_to(text) for text in to),
    }


def _tags(texts: Iterable[str]) -> tuple[str, ...]:
    """The names as they were written; a wrong one is told before anything is built."""
    from registry_client.reference import parse_reference

    for text in texts:
        try:
            reference = parse_reference(text)
        except ValueError as error:
            raise InvalidInput(f"--tag: {error}") from error
        if reference.digest:
            raise InvalidInput(f"--tag {text}: an image is not named by a digest", hint="write NAME:TAG")
    return tuple(texts)


def _comma_words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split(",") if word)


def _pairs(texts: Iterable[str], flag: str, default: str | None = None) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or (not equals and default is None):
            raise InvalidInput(f"{flag} {text!r} is not NAME=VALUE")
        found[name] = value if equals else default or ""
    return found


def _build_args(texts: Iterable[str], env: Mapping[str, str]) -> dict[str, str]:
    """`NAME` alone takes the client's value; one the client has not stays unset."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidInput(f"--build-arg {text!r} has no name")
        if equals:
            found[name] = _utf8(value)
        elif name in env:
            found[name] = _utf8(env[name])
    return found


def _utf8(text: str) -> str:
    """Bytes that are no UTF-8 become U+FFFD, as in a Dockerfile: configs and records are JSON."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    found = []
    for text in texts:
        for word in filter(None, text.split(",")):
            try:
                found.append(parse_platform(word))
            except ValueError as error:
                raise InvalidInput(f"--platform: {error}", hint="for example linux/amd64") from error
    return tuple(dict.fromkeys(found))


def fields(
    text: str,
    flag: str,
    known: Iterable[str],
    alone: str = "",
    extra: Callable[[str], bool] = lambda _: False,
) -> dict[str, str]:
    """`a=b,c=d` (CSV, so values may be quoted); a word without `=` is the field `alone`. `extra` are known too."""
    from runtime.fields import comma_fields

    found: dict[str, str] = {}
    names = tuple(known)
    for word in comma_fields(text, flag):
        name, equals, value = word.partition("=")
        if not equals and alone and alone not in found:
            name, value = alone, word
        elif name not in names and not extra(name):
            raise InvalidInput(f"{flag} {text!r}: unknown field {name!r}", hint=did_you_mean(name, names))
        found[name] = value
    return found


def secret_given(text: str, env: Mapping[str, str]) -> tuple[str, bytes]:
    given = fields(text, "--secret", ("id", "src", "source", "env", "type"))
    name = given.get("id", "")
    source, variable = given.get("src") or given.get("source") or "", given.get("env", "")
    if not name:
        raise InvalidInput("--secret needs an id", hint="for example --secret id=token,src=token.txt")
    if given.get("type", "file") not in ("file", "env"):
        raise InvalidInput(f"--secret {text!r}: unknown type {given['type']!r}", hint="want file or env")
    if given.get("type") == "env" and not variable:
        source, variable = "", source or name
    if not source and not variable:
        # As docker: the variable of that name, else the file of that name.
        variable, source = (name, "") if name in env else ("", name)
    if variable:
        if variable not in env:
            raise NotFound(f"secret {name!r}: the environment has no {variable}")
        return name, env[variable].encode("utf-8", "surrogateescape")
    try:
        with open(source, "rb") as file:
            return name, file.read()
    except OSError as error:
        raise NotFound(f"secret {name!r}: cannot read {source}: {error.strerror}") from error


def _ssh(texts: Iterable[str], env: Mapping[str, str]) -> dict[str, AgentWanted]:
    if not texts:
        return {}
    from builder.ssh import parse_ssh

    return dict(parse_ssh(text, env) for text in texts)


def _network(text: str | None) -> str:
    if text not in (None, "", "default", "none", "host", "bridge"):
        raise InvalidInput(f"--network {text!r}: want default, none or host")
    return "default" if text in (None, "", "bridge") else str(text)


def _host(text: str) -> tuple[str, str]:
    """`name:address` or `name=address`; the address may be bracketed, IPv6, or `host-gateway`."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not name or not found or not address:
        raise InvalidInput(f"--add-host {text!r} is not NAME:ADDRESS")
    address = address.strip("[]")
    if address != "host-gateway" and not _is_address(address):
        raise InvalidInput(f"--add-host {text!r}: {address!r} is not an IP address")
    return name, address


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def parse_size(text: str, flag: str) -> int:
    """`64m`, `1g`, `1.5gb`, bytes without a unit."""
    word = text.strip().lower().removesuffix("ib").removesuffix("b")
    number = word.rstrip("kmgt")
    unit = word[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{flag} {text!r} is not a size", hint="for example 64m or 2g") from error


_LIMITS = ("memory", "shm_size", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus", "cpuset_mems")


def _limits(flags: Mapping[str, Any]) -> Limits | None:
    if not any(flags.get(name) for name in _LIMITS):
        return None
    from runtime.containers.spec import Limits

    def size(name: str, default: int = 0) -> int:
        text = flags.get(name)
        return parse_size(text, f"--{name.replace('_', '-')}") if text else default

    return Limits(
        memory=size("memory"),
        shm_size=size("shm_size", 64 << 20),
        cpu_shares=flags.get("cpu_shares") or 0,
        cpu_quota=flags.get("cpu_quota") or 0,
        cpu_period=flags.get("cpu_period") or 0,
        cpuset_cpus=flags.get("cpuset_cpus") or "",
        cpuset_mems=flags.get("cpuset_mems") or "",
    )


def _allowed(texts: Iterable[str]) -> frozenset[str]:
    for text in texts:
        if text not in ENTITLEMENTS:
            hint = did_you_mean(text, ENTITLEMENTS) or f"one of {', '.join(ENTITLEMENTS)}"
            raise InvalidInput(f"--allow {text!r}: unknown entitlement", hint=hint)
    return frozenset(texts)


def _ulimit(text: str) -> Rlimit:
    import resource

    from runtime.containers.spec import Rlimit

    name, _, value = text.partition("=")
    names = [each[7:].lower() for each in dir(resource) if each.startswith("RLIMIT_")]
    if name.lower() not in names:
        raise InvalidInput(f"--ulimit {text!r}: unknown limit {name!r}", hint=did_you_mean(name, names))
    soft, colon, hard = value.partition(":")
    try:
        limit = Rlimit(name=name, soft=int(soft), hard=int(hard) if colon else int(soft))
    except ValueError as error:
        raise InvalidInput(f"--ulimit {text!r} is not NAME=SOFT[:HARD]") from error
    if -1 != limit.hard < limit.soft:
        raise InvalidInput(f"--ulimit {text!r}: the soft limit is above the hard one")
    return limit


_ATTESTATIONS = {
    "provenance": ("type", "mode", "builder-id", "reproducible", "version", "disabled"),
    "sbom": ("type", "generator", "disabled"),
}


def attest_wanted(flags: Mapping[str, Any]) -> AttestWanted:
    """`--attest type=…`, `--provenance` and `--sbom`, of which the last one of a kind counts. Nothing is the default."""
    texts = list(flags["attest"])
    for kind in _ATTESTATIONS:
        if flags[kind] is not None:
            texts.append(_attest_text(kind, flags[kind]))
    given: dict[str, dict[str, str]] = {}
    for text in texts:
        kind = fields(text, "--attest", _ATTESTATIONS["provenance"], extra=lambda _: True).get("type", "")
        if kind not in _ATTESTATIONS:
            raise InvalidInput(
                f"--attest {text!r}: unknown type {kind!r}",
                hint=f"want type={' or type='.join(_ATTESTATIONS)}",
            )
        given[kind] = fields(text, "--attest", _ATTESTATIONS[kind])
    on = {kind: each for kind, each in given.items() if each.get("disabled", "false").lower() == "false"}
    about = on.get("provenance", {})
    if about.get("version", "v1") != "v1":
        raise Unsupported(f"provenance of version {about['version']!r}", hint="want v1")
    mode = about.get("mode", "min")
    if mode not in ("min", "max"):
        raise InvalidInput(f"provenance mode {mode!r} is not known", hint="want min or max")
    return AttestWanted(
        provenance=mode if "provenance" in on else "",
        builder_id=about.get("builder-id", ""),
        reproducible=about.get("reproducible", "").lower() == "true",
        sbom="sbom" in on,
        generator=on.get("sbom", {}).get("generator", ""),
    )


def _with_vcs(wanted: AttestWanted, context: str) -> AttestWanted:
    """Provenance of a directory also says which commit its work tree is at."""
    if not wanted.provenance or not os.path.isdir(context):
        return wanted
    from pipeline.gitfacts import GitFacts
    from registry_client.values import replace

    facts = GitFacts(context)
    try:
        return replace(wanted, vcs=facts.vcs)
    except HostFault:
        return wanted  # without git the commit stays unsaid; it is a hint, and no reason not to build
    finally:
        facts.close()


def _attest_text(kind: str, text: str) -> str:
    """`--provenance=true|false|min|max|mode=max,…` and `--sbom=true|false` in the words of `--attest`."""
    if text.lower() in ("true", "1"):
        return f"type={kind}"
    if text.lower() in ("false", "0"):
        return f"type={kind},disabled=true"
    return f"type={kind},mode={text}" if text in ("min", "max") else f"type={kind},{text}"


def _outputs(flags: Mapping[str, Any]) -> tuple[OutputWanted, ...]:
    found = [_output(text) for text in flags["output"]]
    if flags["push"]:
        found.append(OutputWanted(type="registry"))
    if flags["load"] and found:
        found.append(OutputWanted(type="image"))  # without outputs it is what a build is for
    if flags["annotation"] and not found:
        found.append(OutputWanted(type="image"))  # the image in the store is what is annotated
    if flags["annotation"] or any(output.options for output in found):
        from builder.export.options import check_options

        for output in found:
            check_options(output, flags["annotation"])
    if any(output.type == "registry" and not output.name for output in found) and not flags["tag"]:
        raise InvalidInput("a push needs a name", hint="give one with -t")
    if sum(output.dest == "-" for output in found) > 1:
        raise InvalidInput("only one output can go to standard output")
    return tuple(found)


def _output(text: str) -> OutputWanted:
    if not text:
        raise InvalidInput("--output is empty", hint="give a directory, or type=…")
    if "=" not in text:
        return OutputWanted(type="tar", dest="-") if text == "-" else OutputWanted(type="local", dest=text)
    from builder.export.annotations import is_field
    from builder.export.options import FIELDS

    given = fields(text, "--output", FIELDS, extra=is_field)
    kind = given.get("type", "")
    if kind not in OUTPUT_TYPES:
        raise InvalidInput(
            f"--output {text!r}: unknown type {kind!r}",
            hint=did_you_mean(kind, OUTPUT_TYPES) or f"want one of {', '.join(OUTPUT_TYPES)}",
        )
    if kind == "image" and given.get("push", "").lower() == "true":
        kind = "registry"
    dest = given.get("dest", "-" if kind in ("oci", "docker", "tar") else "")
    if kind == "docker" and "dest" not in given:
        kind, dest = "image", ""  # as with the daemon: the store itself
    if kind == "local" and not dest:
        raise InvalidInput(f"--output {text!r}: a local output needs dest=DIRECTORY")
    compression = given.get("compression", "gzip")
    if compression not in COMPRESSIONS:
        raise InvalidInput(
            f"--output {text!r}: unknown compression {compression!r}", hint=", ".join(COMPRESSIONS)
        )
    return OutputWanted(
        type=kind,
        dest=dest,
        name=given.get("name", ""),
        compression=compression,
        rewrite_timestamp=given.get("rewrite-timestamp", "").lower() == "true",
        options=given,
    )
