"""SLSA provenance v1 (slsa.dev/spec/v1.1/provenance): who built what, from what, as what was asked (B-15).

The fields are those BuildKit fills in, under its names; the steps of `mode=max` are our own graph. `min` leaves out what
may be private: build arguments, labels, secrets' names, the Dockerfile. Values of secrets are in neither. With an epoch
nothing depends on the clock, so the same build is attested by the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.attest.materials import all_materials, context_material
from builder.attest.statement import SLSA_PROVENANCE, Attestation
from builder.built import Built, Occasion
from builder.cache import Cache
from builder.graph import Exec, LocalSource, RunMount
from builder.lower.remotes import without_credentials
from builder.result import rfc3339
from builder.solver import reachable
from registry_client.oci.manifest import Manifest
from registry_client.oci.platform import host_platform

BUILD_TYPE = "urn:pipe:dockerfile:v1"
BUILDER_ID = "urn:pipe:builder"
FRONTEND = "dockerfile.v0"
_PRIVATE = ("build-arg:", "label:")


def provenance(
    cache: Cache,
    occasion: Occasion,
    built: Built,
    mode: str,
    finished_ns: int,
    manifest: Manifest | None = None,
) -> Attestation:
    """What is known of how `built` came about; `manifest` says as which blobs its layers went out."""
    wanted = occasion.request.attest
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "configSource": _config_source(cache, occasion),
            "request": _request(occasion, built, mode),
        },
        "internalParameters": _internal(built, mode),
        "resolvedDependencies": [each.to_json() for each in all_materials(cache, occasion, built)],
    }
    details = {
        "builder": {"id": wanted.builder_id or BUILDER_ID},
        "metadata": _metadata(cache, occasion, built, mode, finished_ns, manifest),
    }
    return Attestation(SLSA_PROVENANCE, {"buildDefinition": definition, "runDetails": details})


# --- what was asked -----------------------------------------------------------------------------------------------


def _config_source(cache: Cache, occasion: Occasion) -> dict[str, Any]:
    context = context_material(cache, occasion)
    return {**(context.to_json() if context else {}), "path": occasion.dockerfile_name.rpartition("/")[2]}


def _arguments(occasion: Occasion) -> dict[str, str]:
    """The request in the names BuildKit's front end has for it."""
    request = occasion.request
    found = {f"build-arg:{name}": value for name, value in request.build_args.items()}
    found |= {f"label:{name}": value for name, value in request.labels.items()}
    found |= {
        f"context:{name}": without_credentials(value)
        for name, value in request.build_contexts.items()
        if ":" in value
    }
    if occasion.context_key:
        found["context"] = without_credentials(request.context)
    if request.target:
        found["target"] = request.target
    if request.platforms:
        found["platform"] = ",".join(map(str, request.platforms))
    if request.no_cache or request.no_cache_filter:
        found["no-cache"] = ",".join(sorted(request.no_cache_filter))
    if request.network != "default":
        found["force-network-mode"] = request.network
    if request.add_hosts:
        found["add-hosts"] = ",".join(f"{name}={address}" for name, address in request.add_hosts)
    return dict(sorted(found.items()))


def _request(occasion: Occasion, built: Built, mode: str) -> dict[str, Any]:
    found: dict[str, Any] = {"frontend": FRONTEND}
    if arguments := _arguments(occasion):
        found["args"] = _shown(arguments, mode)
    if mode == "max":
        found |= {kind: _ids(built, mount) for kind, mount in (("secrets", "secret"), ("ssh", "ssh"))}
    found["locals"] = [{"name": name} for name in _locals(occasion, built)]
    return found


def _shown(arguments: Mapping[str, str], mode: str) -> dict[str, str]:
    return {
        name: value for name, value in arguments.items() if mode == "max" or not name.startswith(_PRIVATE)
    }


def _ids(built: Built, kind: str) -> list[dict[str, Any]]:
    """Which secrets or agents steps could ask for; never what they are."""
    mounts: list[RunMount] = [
        mount
        for vertex in reachable([built.graph.root])
        if isinstance(vertex.operation, Exec)
        for mount in vertex.operation.mounts
        if mount.type == kind
    ]
    needed = {mount.id: not mount.required for mount in sorted(mounts, key=lambda each: each.required)}
    return [{"id": name, "optional": True} if needed[name] else {"id": name} for name in sorted(needed)]


def _locals(occasion: Occasion, built: Built) -> list[str]:
    """Directories of the client: what is in them has no digest anybody else could check."""
    names = {
        vertex.operation.name
        for vertex in reachable([built.graph.root])
        if isinstance(vertex.operation, LocalSource)
    }
    return sorted(names - {"context"}) if occasion.context_key else sorted(names | {"dockerfile"})


# --- how it went --------------------------------------------------------------------------------------------------


def _internal(built: Built, mode: str) -> dict[str, Any]:
    found: dict[str, Any] = {"builderPlatform": str(host_platform())}
    if mode == "max":
        from builder.attest.steps import build_config

        found["buildConfig"] = build_config(built)
    return found


def _metadata(
    cache: Cache, occasion: Occasion, built: Built, mode: str, finished_ns: int, manifest: Manifest | None
) -> dict[str, Any]:
    arguments = _arguments(occasion)
    found: dict[str, Any] = {"invocationId": occasion.invocation}
    if occasion.epoch is None:
        found |= {"startedOn": rfc3339(occasion.started_ns), "finishedOn": rfc3339(finished_ns)}
    told: dict[str, Any] = {}
    if occasion.request.attest.vcs:  # a hint only: nobody checked that the directory is that commit
        told["vcs"] = {
            name: without_credentials(value) for name, value in occasion.request.attest.vcs.items()
        }
    if mode == "max":
        from builder.attest.steps import build_metadata

        told |= build_metadata(occasion, built, manifest)
    if told:
        found["buildkit_metadata"] = told
    found["buildkit_hermetic"] = _is_hermetic(built)
    found["buildkit_completeness"] = {
        "request": _shown(arguments, mode) == arguments,
        "resolvedDependencies": not _locals(occasion, built),
    }
    found["buildkit_reproducible"] = occasion.request.attest.reproducible
    return found


def _is_hermetic(built: Built) -> bool:
    """Whether no step could reach a network."""
    return all(
        vertex.operation.network == "none"
        for vertex in reachable([built.graph.root])
        if isinstance(vertex.operation, Exec)
    )
