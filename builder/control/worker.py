"""What this builder says it is and can do. Clients choose by it what they ask for."""

from __future__ import annotations

from builder.control.messages.common import Platform, Version, Worker
from registry_client.oci.platform import host_platform

# The label means to buildx: images with several platforms, attestations, archives and caches can be had here.
_LABELS = {
    "org.mobyproject.buildkit.worker.executor": "pipe",
    "org.mobyproject.buildkit.worker.snapshotter": "pipe",
}
_PACKAGE = "github.com/moby/buildkit"
_VERSION = "v0.25.2"  # whose API this is

FRONTEND = (
    "solve.base", "return", "returnmap", "proto.refarray", "frontend.inputs", "frontend.caps", "importcaches",
    "reference.output", "gateway.solve.metadata", "gateway.solve.evaluate", "gateway.evaluate",
)  # fmt: skip
LLB = (
    "source.image", "source.image.resolvemode", "source.local", "source.local.unique", "source.local.sessionid",
    "source.local.includepatterns", "source.local.followpaths", "source.local.excludepatterns",
    "source.local.sharedkeyhint", "source.local.differ", "source.git", "source.http",
    "exec.meta.base", "exec.meta.network", "exec.meta.security", "exec.meta.ulimit", "exec.meta.cgroup.parent",
    "exec.mount.bind", "exec.mount.cache", "exec.mount.tmpfs", "exec.mount.secret", "exec.mount.ssh", "exec.secretenv",
    "file.base", "constraints", "platform", "meta.ignorecache", "meta.description", "meta.exportcache",
    "exporter.image.annotations", "exporter.image.attestations", "exporter.sourcedateepoch", "exporter.multiple",
)  # fmt: skip


def version(own: str) -> Version:
    return Version(_PACKAGE, _VERSION, f"pipe-{own}" if own else "pipe")


def worker(own: str) -> Worker:
    here = host_platform()
    platform = Platform(here.architecture, here.os, here.variant or "")
    return Worker("pipe", dict(_LABELS), [platform], version(own))
