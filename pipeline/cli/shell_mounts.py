"""What a build step saw beside its root, once more: for a shell in it after the build (FEATURES B-27).

Caches are the very directories, files of contexts and other stages the snapshots the step was shown; what is written to the
latter is thrown away. Secrets and agents are there if they are given again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pipeline.secrets import memory_directory
from registry_client.values import frozen
from runtime.containers.spec import Mount

if TYPE_CHECKING:
    from builder.failed import KeptMount, Situation
    from builder.ssh import AgentWanted
    from runtime.store.store import Store

_SECRET_VARIABLES = "/run/pipe-shell"


@frozen(kw_only=True)
class Surroundings:
    """`secret_variables` are (name, file in the container): a value is to be in no spec. `missing` is for people."""

    mounts: tuple[Mount, ...] = ()
    env: tuple[str, ...] = ()
    secret_variables: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()

    def command(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """`words` with the secrets that are variables set before."""
        if not self.secret_variables:
            return words
        reads = [f'{name}="$(cat {path})"; export {name};' for name, path in self.secret_variables]
        return ("/bin/sh", "-c", f'{" ".join(reads)} exec "$@"', "sh", *words)


@contextmanager
def surroundings_of(
    store: Store, situation: Situation, secrets: Mapping[str, bytes], agents: Mapping[str, AgentWanted]
) -> Iterator[Surroundings]:
    """Everything is there as long as the block lasts."""
    with ExitStack() as stack:
        arranging = _Arranging(store, stack, secrets, agents)
        for mount in situation.mounts:
            arranging.add(mount)
        for name, data in situation.files:
            arranging.bind(arranging.write(data, 0o755, 0, 0), f"/dev/pipes/{name}", readonly=True)
        yield arranging.result()


class _Arranging:
    def __init__(
        self, store: Store, stack: ExitStack, secrets: Mapping[str, bytes], agents: Mapping[str, AgentWanted]
    ) -> None:
        self._store, self._stack, self._secrets, self._agents = store, stack, secrets, agents
        self._mounts: list[Mount] = []
        self._env: list[str] = []
        self._variables: list[tuple[str, str]] = []
        self._missing: list[str] = []
        self._directory = ""
        self._numbers = 0

    def result(self) -> Surroundings:
        return Surroundings(
            mounts=tuple(self._mounts),
            env=tuple(self._env),
            secret_variables=tuple(self._variables),
            missing=tuple(self._missing),
        )

    def add(self, mount: KeptMount) -> None:
        kinds: dict[str, Callable[[KeptMount], None]] = {
            "bind": self._bind,
            "cache": self._cache,
            "secret": self._secret,
            "ssh": self._agent,
            "tmpfs": self._tmpfs,
        }
        kinds[mount.type](mount)

    def bind(self, source: str, target: str, *, readonly: bool) -> None:
        self._mounts.append(Mount(type="bind", source=source, target=target, readonly=readonly))

    def write(self, data: bytes, mode: int, uid: int, gid: int) -> str:
        """A file in memory."""
        path = self._new_name()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        return path

    def _new_name(self) -> str:
        if not self._directory:
            self._directory = self._stack.enter_context(memory_directory())
        self._numbers += 1
        return os.path.join(self._directory, str(self._numbers))

    def _tmpfs(self, mount: KeptMount) -> None:
        self._mounts.append(Mount(type="tmpfs", target=mount.target))

    def _cache(self, mount: KeptMount) -> None:
        data = os.path.join(self._store.root, "cachemounts", mount.source, "data")
        if mount.source and os.path.isdir(data):
            self.bind(data, mount.target, readonly=mount.readonly)
        else:
            self._tmpfs(mount)

    def _bind(self, mount: KeptMount) -> None:
        from builder.operations.roots import Root

        snapshots = self._store.snapshots
        if not mount.snapshot or snapshots.find(mount.snapshot) is None:
            self._missing.append(f"{mount.target}: the files mounted there are not in the store any more")
            return
        if mount.readonly:
            top = self._stack.enter_context(snapshots.mounted(mount.snapshot))
        else:
            draft = self._stack.enter_context(snapshots.prepare(mount.snapshot))
            top = self._stack.enter_context(draft.merged())
        self.bind(os.path.join(top, Root(top).resolve(mount.source)), mount.target, readonly=mount.readonly)

    def _secret(self, mount: KeptMount) -> None:
        value = self._secrets.get(mount.id)
        if value is None:
            self._missing.append(f"secret {mount.id}: give it again with --secret id={mount.id},src=FILE")
            return
        if mount.target:
            source = self.write(value, mount.mode, mount.uid, mount.gid)
            self.bind(source, mount.target, readonly=True)
        if mount.env:
            target = f"{_SECRET_VARIABLES}/{len(self._variables)}"
            self.bind(self.write(value, 0o444, 0, 0), target, readonly=True)
            self._variables.append((mount.env, target))

    def _agent(self, mount: KeptMount) -> None:
        wanted = self._agents.get(mount.id)
        if wanted is None:
            self._missing.append(f"ssh agent {mount.id}: forward it again with --ssh {mount.id}")
            return
        from builder.operations.agents import forwarded, started

        upstream = wanted.socket or self._stack.enter_context(started(self._new_name(), wanted.keys))
        source = self._new_name()
        serving = forwarded(upstream, source, uid=mount.uid, gid=mount.gid, mode=mount.mode)
        self._stack.enter_context(serving)
        self.bind(source, mount.target, readonly=False)
        self._env.append(f"SSH_AUTH_SOCK={mount.target}")
