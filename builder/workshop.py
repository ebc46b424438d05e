"""What the RUN steps of one build share: the sandbox, networks, secrets, cache mounts and a place for small files.

Opened at first use, because a build that only finds cached steps needs none of it. Everything lies in one scratch
directory that bears this process's name, so that after a kill the garbage collector knows it for garbage.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from builder.operations.skeleton import Target, make_skeleton
from registry_client.values import field, frozen
from runtime.errors import Unsupported
from runtime.events import Emit, Warned
from runtime.store.durable import remove_tree
from runtime.store.owners import own_token
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.ssh import AgentWanted
    from runtime.containers.spec import Limits, Rlimit
    from runtime.networks.networks import Networks
    from runtime.networks.pool import NetnsPool
    from runtime.sandbox.spawner import Spawner


@frozen(kw_only=True)
class Facilities:
    """What the caller gave for RUN steps. Values of secrets are bytes."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, AgentWanted] = field(default_factory=dict)
    extra_hosts: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    limits: Limits | None = None
    rlimits: tuple[Rlimit, ...] = ()
    cgroup_parent: str = ""
    allow: frozenset[str] = frozenset()
    cache_namespace: str = ""


class Workshop:
    """A context manager, for one build."""

    def __init__(
        self,
        store: Store,
        spawner: Spawner | None,
        networks: Callable[[], Networks] | None,
        facilities: Facilities,
    ) -> None:
        self.store, self.facilities = store, facilities
        self._spawner, self._networks = spawner, networks
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._skeletons: dict[tuple[Target, ...], str] = {}
        self._filters: dict[tuple[str, ...], str] = {}
        self._numbers = 0
        self._told = False
        self._runs_left = 0

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def spawner(self) -> Spawner:
        if self._spawner is None:
            raise Unsupported("this build has RUN steps, but was given no sandbox to run them in")
        return self._spawner

    @property
    def helper(self) -> Spawner | None:
        """Who can fork a helper for a COPY, if anybody."""
        return self._spawner

    @cached_property
    def scratch(self) -> str:
        """A directory of this build, gone with it."""
        path = os.path.join(self.store.root, "drafts", f"{os.urandom(8).hex()}.{own_token()}")
        os.mkdir(path, 0o711)
        self._stack.callback(remove_tree, path)
        return path

    def new_name(self, kind: str) -> str:
        """A path in the scratch directory that is not there yet."""
        with self._lock:
            self._numbers += 1
            return os.path.join(self.scratch, f"{kind}-{self._numbers}")

    def write_file(self, kind: str, data: bytes, mode: int = 0o644) -> str:
        path = self.new_name(kind)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(handle, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        return path

    def skeleton(self, targets: Sequence[Target]) -> str:
        """The lowest lower directory of a step with these mount points."""
        key = tuple(sorted(set(targets)))
        with self._lock:
            if key not in self._skeletons:
                self._skeletons[key] = make_skeleton(self.new_name("skeleton"), key)
            return self._skeletons[key]

    def copies_roots(self, emit: Emit, node: str) -> bool:
        """Whether roots are copied because overlay is refused here; the first step says so."""
        reason = self.store.snapshots.copied_because
        with self._lock:
            told, self._told = self._told, True
        if reason and not told:
            emit(Warned(node=node, message=f"roots of RUN steps are copied, which is slower: {reason}"))
        return bool(reason)

    def seccomp(self, config: dict[str, Any], unconfined: bool) -> str:
        """The compiled system call filter of a step; "" is none."""
        if unconfined:
            return ""
        held = tuple(config["process"]["capabilities"]["bounding"])
        with self._lock:
            if held not in self._filters:
                from runtime.sandbox.seccomp import program

                self._filters[held] = program(os.path.join(self.store.root, "seccomp"), held)
            return self._filters[held]

    # --- network --------------------------------------------------------------------------------------------------

    @cached_property
    def pool(self) -> NetnsPool:
        from runtime.networks.pool import NetnsPool

        if self._networks is None:
            raise Unsupported("this build has RUN steps with a network, but was given none")
        networks = self._networks()
        networks.sweep()
        return self._stack.enter_context(NetnsPool(networks))

    def network_pool(self) -> NetnsPool:
        with self._lock:
            return self.pool

    def get_ahead(self) -> None:
        """Have the first RUN's own process made. What fails here fails again, and is told, when the step needs it."""
        if self._spawner is None:
            return
        from runtime.containers.config import build_step_config
        from runtime.sandbox.errors import SandboxError

        config = build_step_config(
            argv=("true",),
            env=(),
            cgroup=self.cgroup,
            network="" if self.facilities.network == "none" else "of the pool",
            rlimits=self.facilities.rlimits,
            limits=self.facilities.limits,
        )
        with suppress(SandboxError):
            self._spawner.get_ahead(config)

    def warm_up(self) -> None:
        """Have a network namespace ready before the first RUN needs it."""
        if self._spawner is None or self._networks is None or self.facilities.network != "default":
            return
        self.network_pool().prepare()

    # --- the sandbox ----------------------------------------------------------------------------------------------

    @property
    def cgroup(self) -> str:
        """Below which the spawner makes the control groups of steps."""
        return f"{self.facilities.cgroup_parent.strip('/') or 'pipe'}/"

    def expect_runs(self, count: int) -> None:
        """So many RUN steps are in the graph."""
        with self._lock:
            self._runs_left = count

    def run_begins(self) -> None:
        """One of them is being looked for or carried out."""
        with self._lock:
            self._runs_left -= 1

    @property
    def more_runs(self) -> bool:
        """Whether some have not begun: the spawner may make ready for the next."""
        return self._runs_left > 0

    @cached_property
    def _resolv_conf_texts(self) -> dict[str, str]:
        return {}

    def resolv_conf(self, network: str) -> str:
        """The file to be /etc/resolv.conf of a step."""
        with self._lock:
            known = self._resolv_conf_texts
            if network not in known:
                from runtime.networks import names

                if network == "none":
                    text = ""
                elif network == "host":
                    text = names.read_host_resolv_conf()
                else:
                    text = self.pool.resolv_conf
                known[network] = self.write_file("resolv.conf", text.encode())
            return known[network]

    def hosts(self, hostname: str, gateway: str) -> str:
        """The file to be /etc/hosts of a step: localhost, `--add-host`, and the step's own name."""
        with self._lock:
            known = self._hosts_texts
            key = f"{hostname} {gateway}"
            if key not in known:
                from runtime.networks import names

                text = names.hosts(
                    hostname,
                    addresses=("127.0.1.1",),
                    extra=self.facilities.extra_hosts,
                    host_gateway=gateway,
                )
                known[key] = self.write_file("hosts", text.encode())
            return known[key]

    @cached_property
    def _hosts_texts(self) -> dict[str, str]:
        return {}

    # --- secrets --------------------------------------------------------------------------------------------------

    @cached_property
    def _secret_directory(self) -> str:
        """A tmpfs of our own mount namespace: nothing of a secret touches a disk, and it is gone with this process."""
        from runtime.linux import mounts

        path = self.new_name("secrets")
        os.mkdir(path, 0o700)
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        mounts.mount("tmpfs", path, "tmpfs", flags, "mode=0700,size=64m")
        self._stack.callback(mounts.umount, path, mounts.MNT_DETACH)
        return path

    def secret_file(self, value: bytes, mode: int, uid: int, gid: int) -> str:
        with self._lock:
            self._numbers += 1
            path = os.path.join(self._secret_directory, str(self._numbers))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(value)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        return path

    @cached_property
    def _agents(self) -> dict[str, str]:
        return {}

    def agent(self, name: str) -> str | None:
        """The socket of an ssh agent; one that has to be started for keys is there until the build ends."""
        wanted = self.facilities.ssh.get(name)
        if wanted is None:
            return None
        if wanted.socket:
            return wanted.socket
        with self._lock:
            if name not in self._agents:
                from builder.operations.agents import started

                self._agents[name] = self._stack.enter_context(started(self.new_name("agent"), wanted.keys))
            return self._agents[name]

    def secret_values(self) -> tuple[bytes, ...]:
        return tuple(self.facilities.secrets.values())
