"""What a request comes to before anything was looked at: facilities, setting, the flags lowering reads. Pure values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.epoch import NAME as EPOCH
from builder.epoch import Moments, is_declared, resolve_epoch
from builder.keys import Surroundings
from builder.operations.step import Setting
from builder.request import BuildRequest, OutputWanted
from builder.workshop import Facilities
from registry_client.values import replace
from runtime.errors import InvalidInput
from runtime.events import Emit, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.dockerfile import Dockerfile
    from builder.failed import FailedStep
    from builder.lower import LowerOptions
    from registry_client.oci.platform import Platform
    from runtime.cancel import Cancel

BUILD_HOSTNAME = "buildkitsandbox"


def is_plain(request: BuildRequest) -> bool:
    """Only a directory, only what is here, only an image: all else takes more than a look."""
    return (
        os.path.isdir(request.context)
        and request.dockerfile != "-"
        and not request.no_cache
        and request.pull in ("auto", "missing", "never")
        and len(request.platforms) <= 1
        and not request.annotations
        and not request.cache_to
        and not request.attest.generator
        and all(
            wanted.type in ("image", "cacheonly") and not _annotates(wanted) for wanted in request.outputs
        )
    )


def _annotates(wanted: OutputWanted) -> bool:
    return any(name.startswith("annotation") for name in wanted.options)


def facilities_of(request: BuildRequest) -> Facilities:
    return Facilities(
        secrets=request.secrets,
        ssh=request.ssh,
        extra_hosts=request.add_hosts,
        network=request.network,
        limits=request.limits,
        rlimits=request.rlimits,
        cgroup_parent=request.cgroup_parent,
        allow=request.allow | ({"network.host"} if request.network == "host" else set()),
        cache_namespace="",
    )


def setting_of(
    request: BuildRequest,
    cancel: Cancel,
    emit: Emit = ignore,
    on_failure: Callable[[FailedStep], None] | None = None,
) -> Setting:
    """Without a time: that may depend on the context and the Dockerfile."""
    return Setting(
        surroundings=Surroundings(
            hostname=request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or BUILD_HOSTNAME,
            host_names=tuple(name for name, _ in request.add_hosts),
            rlimits=tuple(f"{limit.name}={limit.soft}:{limit.hard}" for limit in request.rlimits),
            cgroup_parent=request.cgroup_parent,
        ),
        cancel=cancel,
        emit=emit,
        on_failure=on_failure,
    )


def timed(setting: Setting, request: BuildRequest, dockerfile: Dockerfile, moments: Moments) -> Setting:
    """The setting with the time everything is set to, and what of it is part of keys."""
    epoch = resolve_epoch(dockerfile, lower_options(request, None, None), request.epoch, moments)
    rewrite = request.rewrite_timestamp or any(out.rewrite_timestamp for out in request.outputs)
    if rewrite and epoch is None:
        raise InvalidInput("rewrite-timestamp needs a time", hint=f"set {EPOCH}")
    surroundings = replace(setting.surroundings, epoch=epoch, rewrite_epoch=epoch if rewrite else None)
    return replace(setting, surroundings=surroundings, epoch=epoch, rewrite=rewrite)


def lower_options(request: BuildRequest, platform: Platform | None, epoch: str | None) -> LowerOptions:
    """`epoch` is what SOURCE_DATE_EPOCH is to the Dockerfile; None leaves the build arguments as they are."""
    from builder.lower import LowerOptions

    build_args = dict(request.build_args)
    if epoch is not None:
        build_args[EPOCH] = epoch
    return LowerOptions(
        target=request.target,
        build_args=build_args,
        platform=platform,
        contexts=request.build_contexts,
        labels=request.labels,
        no_cache=request.no_cache,
        no_cache_filter=request.no_cache_filter,
        network=request.network,
        multi_platform=request.as_several,
        policy=request.policy,
    )


def epoch_argument(request: BuildRequest, dockerfile: Dockerfile, epoch: int | None) -> str | None:
    """What SOURCE_DATE_EPOCH is to the Dockerfile; None leaves it as it was given."""
    if epoch is not None:
        return str(epoch)
    # It said `context`, and that has no time.
    return "" if EPOCH in request.build_args or is_declared(dockerfile) else None
