"""Builds for clients of the Engine API: each with a store object, logins and events of its own, all in one process.

Steps that two of them need at once are done once: the lock of a step is between builds, wherever they run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from builder.build import Builder
from builder.classic.transcript import Transcript
from builder.context import check_sent
from builder.request import BuildRequest
from registry_client.credentials import Credentials
from registry_client.oci.config import ContainerConfig
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.containers.inspect import moment
from runtime.containers.spec import Limits, Rlimit
from runtime.daemon.build_query import BuildAsked, PruneAsked
from runtime.daemon.engine import Engine
from runtime.daemon.streams import Tell
from runtime.errors import InvalidInput
from runtime.events import Changed, Emit

if TYPE_CHECKING:
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner
    from runtime.store import Store

_KINDS = {
    "regular": ("exec", "copy", "makedirectory"),
    "exec.cachemount": ("cache mount",),
    "source.git.checkout": ("git",),
}


class ClassicBuilds:
    """`runtime.daemon.building.ImageBuilder`. `networks` opens the networks of a store."""

    def __init__(
        self,
        engine: Engine,
        spawner: Spawner | None,
        networks: Callable[[Store, Emit], Networks],
        jobs: int,
    ) -> None:
        self._engine, self._spawner, self._networks, self._jobs = engine, spawner, networks, jobs
        self._numbers = itertools.count(1)

    def build(self, asked: BuildAsked, credentials: Credentials, tell: Tell, cancel: Cancel) -> None:
        node = f"build-{next(self._numbers)}"
        # The steps of an image that is here are known; only elsewhere is there anything to learn from a name.
        caches = tuple(name for name in asked.cache_from if self._engine.images.find(name) is None)
        request = request_of(replace(asked, cache_from=caches), node)
        transcript = Transcript(tell, node, quiet=asked.quiet, labels=asked.labels)
        with self._engine.working(credentials, transcript.emit) as images:
            store = images.store
            builder = Builder(
                store,
                images,
                lambda: self._networks(store, images.emit),
                self._spawner,
                images.emit,
                cancel,
                jobs=self._jobs,
            )
            builder.on_lowered = transcript.begin
            try:
                result = builder.build(request)
            except BaseException as error:
                transcript.fail(error)
                raise
            transcript.end(result, images.get(result.image_id))

    def prune(self, asked: PruneAsked) -> tuple[list[str], int]:
        from builder.prune import Policy, prune

        policy = Policy(
            everything=asked.everything,
            unused_seconds=max(0.0, time.time() - asked.unused_since) if asked.unused_since else 0.0,
            ids=asked.ids,
            kinds=tuple(kind for name in asked.kinds for kind in _KINDS.get(name, (name,))),
            max_used=asked.max_used,
            reserved=asked.reserved,
            min_free=asked.min_free,
        )
        with self._engine.working() as images:
            pruned = prune(images.store, policy)
        self._engine.happened.note(
            Changed(kind="builder", id="", action="prune", attributes={"reclaimed": str(pruned.freed)})
        )
        return [entry.id for entry in pruned.entries], pruned.freed

    def config_of(self, changes: Sequence[str]) -> ContainerConfig:
        from builder.changes import changed_config

        return changed_config(changes)

    def cached(self) -> list[dict[str, Any]]:
        from builder.prune import MOUNT, entries

        return [
            {
                "ID": entry.id,
                "Type": "exec.cachemount" if entry.kind == MOUNT else "regular",
                "Description": entry.label,
                "InUse": False,
                "Shared": entry.shared,
                "Size": entry.size,
                "CreatedAt": moment(entry.made / 1e9),
                "LastUsedAt": moment(entry.used / 1e9),
                "UsageCount": entry.uses,
            }
            for entry in entries(self._engine.store)
        ]


def request_of(asked: BuildAsked, node: str) -> BuildRequest:
    """What the parameters mean to our builder. The classic builder attests nothing and exports into the store."""
    return BuildRequest(
        context=check_sent(asked.remote) if asked.remote else "-",
        archive=asked.archive,
        dockerfile=asked.dockerfile or None,
        target=asked.target,
        build_args=asked.arguments,
        tags=asked.tags,
        platforms=(asked.platform,) if asked.platform else (),
        no_cache=asked.no_cache,
        pull="always" if asked.pull else "auto",
        labels=asked.labels,
        network=asked.network,
        allow=frozenset({"network.host"} if asked.network == "host" else ()),
        add_hosts=asked.hosts,
        limits=_limits(asked),
        rlimits=tuple(Rlimit(name=name, soft=soft, hard=hard) for name, soft, hard in asked.ulimits),
        cgroup_parent=asked.cgroup_parent,
        cache_from=_caches(asked.cache_from),
        node=node,
    )


def _caches(texts: tuple[str, ...]) -> Any:
    from builder.sharing.wanted import parse_cache_from

    return tuple(parse_cache_from(text) for text in texts)


def _limits(asked: BuildAsked) -> Limits | None:
    limits = Limits(
        memory=asked.memory,
        memory_swap=asked.memory_swap,
        shm_size=asked.shm_size or 64 << 20,
        cpu_shares=asked.cpu_shares,
        cpu_quota=asked.cpu_quota,
        cpu_period=asked.cpu_period,
        cpuset_cpus=asked.cpuset_cpus,
        cpuset_mems=asked.cpuset_mems,
    )
    if limits.memory < 0 or limits.cpu_shares < 0:
        raise InvalidInput("a limit of a build cannot be negative")
    return None if limits == Limits() else limits
