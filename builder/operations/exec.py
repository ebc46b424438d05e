"""RUN: a command in a sandbox on top of the root (FEATURES B-25, A-56…A-63).

The step's root is an overlay of the draft's upper, the lower snapshots and, beneath all, the skeleton of mount points; where
overlay is refused it is a copy of them (runtime/store/copies.py).
Files that every container has (/etc/hosts, /etc/resolv.conf) are mounts; what is mounted never lands in the layer.
"""

from __future__ import annotations

import json
import os
import select as polling
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from builder.cache import Cache
from builder.content import EMPTY_CONTENT, Content, combined, content_of
from builder.graph import Exec, RunMount
from builder.keys import Shape, exec_shape
from builder.masking import Masker
from builder.operations.cachemounts import cache_mount
from builder.operations.clamp import clamp_times
from builder.operations.mountviews import Views
from builder.operations.roots import clean
from builder.operations.selection import select
from builder.operations.skeleton import Target, clean_stubs
from builder.operations.step import Outcome, Setting
from builder.state import FilesState, State
from builder.trees import Trees
from builder.workshop import Workshop
from registry_client.oci.platform import host_platform, parse_platform, rank
from runtime.errors import Denied, InvalidInput, StepFailed
from runtime.events import Output
from runtime.sandbox_errors import translated
from runtime.spans import Span
from runtime.store.durable import full_hint
from runtime.store.snapshots import Draft

if TYPE_CHECKING:
    from builder.failed import FailedStep
    from runtime.containers.config import MountPoint
    from runtime.sandbox.plan import ExitInfo
    from runtime.sandbox.spawner import Process

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_EXECUTABLE = 126
_TAIL = 16 << 10
_LOG_LIMIT = 2 << 20  # as BuildKit's
_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"
_PIECE = 64 << 10


class _Arrangement:
    """What the mounts of one step come to."""

    def __init__(self) -> None:
        self.points: list[MountPoint] = []
        self.files: list[dict[str, Any]] = []
        self.targets: list[Target] = []
        self.env: dict[str, str] = {}
        self.tree = ""  # the root as one directory, where overlay is refused


class ExecStep:
    independent = False

    def __init__(
        self,
        operation: Exec,
        inputs: Sequence[State],
        setting: Setting,
        trees: Trees,
        cache: Cache,
        workshop: Workshop,
        *,
        node: str,
        label: str,
        span: Span | None,
    ) -> None:
        self._operation, self._inputs, self._setting = operation, inputs, setting
        self._trees, self._cache, self._workshop = trees, cache, workshop
        self._node, self._label, self._span = node, label, span
        self._views = Views(workshop.store, trees, cache, setting)
        self.binds: dict[str, tuple[str | None, str]] = {}  # by target: the snapshot, the path in it
        self.shape: Shape = exec_shape(operation, setting.surroundings)

    # --- the key --------------------------------------------------------------------------------------------------

    def content(self, *, keep_lines: bool = False) -> Content:
        """What bind mounts show: part of the key, unlike caches and secrets (A-57)."""
        binds = [mount for mount in self._operation.mounts if mount.type == "bind"]
        if not binds:
            return EMPTY_CONTENT
        return combined([self._content_of(mount, keep_lines) for mount in binds])

    def _content_of(self, mount: RunMount, keep_lines: bool) -> Content:
        state = self._inputs[mount.input]
        if isinstance(state, FilesState):
            return self._views.content(state, mount.source, keep_lines=keep_lines)
        chain = state.chain()
        if not clean(mount.source):
            return Content(chain)
        selector = json.dumps(["bind", clean(mount.source)])
        known = self._cache.content_digest(chain, selector)
        if known is None:
            with self._trees.opened(state) as tree:
                groups = select(tree, [mount.source])
                known = content_of(groups, self._trees.memory(state), keep_owner=True).digest
            self._cache.remember_content(chain, selector, known)
        return Content(known)

    # --- the work -------------------------------------------------------------------------------------------------

    def execute(self, draft: Draft) -> Outcome:
        content = self.content(keep_lines=True)
        with ExitStack() as stack:
            arrangement = self._arrange(stack)
            network = self._network(stack, arrangement)
            if self._workshop.copies_roots(self._setting.emit, self._node):
                arrangement.tree = stack.enter_context(self._copied(draft, arrangement))
            exit_info, tail = self._run(draft, arrangement, network)
            if exit_info.code != 0 and self._setting.on_failure is not None:
                self._setting.on_failure(self._failed(draft, arrangement, network))
        if exit_info.code != 0:
            raise self._failure(exit_info, tail, draft.upper)
        if not os.listdir(draft.upper):
            return Outcome(content, empty=True)
        clean_stubs(draft.upper, draft.lowers, arrangement.targets)
        if self._setting.newest_ns is not None:
            clamp_times(draft.upper, self._setting.newest_ns)
        return Outcome(content, empty=not os.listdir(draft.upper))

    def _failed(self, draft: Draft, arrangement: _Arrangement, network: str) -> FailedStep:
        """The means to run something where the command failed."""
        from builder.failed import FailedStep, shell_of
        from runtime.containers.roots import forget_volatile

        def start(argv: Sequence[str], rows: int, columns: int) -> Process:
            plan = self._plan(draft, arrangement, network)
            process = plan.config["process"]
            process |= {"args": list(argv), "terminal": True}
            process["consoleSize"] = {"height": rows, "width": columns}
            # The first sandbox's mark; its mount is gone or will not be written to any more.
            forget_volatile(draft.work)
            with translated():
                return self._workshop.spawner.create(plan)

        return FailedStep(self._label, shell_of(self._operation.argv), start)

    def _copied(self, draft: Draft, arrangement: _Arrangement) -> AbstractContextManager[str]:
        """The root as a directory; when the block ends what was changed in it is in the draft."""
        skeleton = self._workshop.skeleton(arrangement.targets)
        return draft.copied(skeleton=skeleton, check=self._setting.cancel.check)

    def _arrange(self, stack: ExitStack) -> _Arrangement:
        arrangement = _Arrangement()
        for mount in self._operation.mounts:
            match mount.type:
                case "bind":
                    self._arrange_bind(stack, mount, arrangement)
                case "cache":
                    self._arrange_cache(stack, mount, arrangement)
                case "tmpfs":
                    self._arrange_tmpfs(mount, arrangement)
                case "secret":
                    self._arrange_secret(mount, arrangement)
                case "ssh":
                    self._arrange_ssh(stack, mount, arrangement)
        for name, data in self._operation.files:
            source = self._workshop.write_file("heredoc", data, 0o755)
            arrangement.files.append({"path": f"/dev/pipes/{name}", "source": source, "readonly": True})
        return arrangement

    def _arrange_bind(self, stack: ExitStack, mount: RunMount, arrangement: _Arrangement) -> None:
        located = self.binds[mount.target] = self._views.located(self._inputs[mount.input], mount.source)
        insecure = self._operation.security == "insecure"
        # A view of hard links is the layers themselves, and who has all capabilities can make any mount writable.
        shared = mount.readonly and not (insecure and self._workshop.store.snapshots.copied_because)
        source = stack.enter_context(self._views.shown(*located, shared, mount.source))
        is_directory = stat.S_ISDIR(os.stat(source).st_mode)
        options = ("rbind", "ro") if mount.readonly else ("rbind", "rw")
        self._add_point(arrangement, mount.target, "bind", source, options, is_directory)

    def _arrange_cache(self, stack: ExitStack, mount: RunMount, arrangement: _Arrangement) -> None:
        fill = None
        if mount.input >= 0:
            state = self._inputs[mount.input]

            def fill(place: str) -> None:
                self._views.copy(state, mount.source, place)

        source = stack.enter_context(
            cache_mount(
                self._workshop.store,
                mount,
                self._workshop.facilities.cache_namespace,
                fill,
                self._setting.cancel,
            )
        )
        options = ("rbind", "ro") if mount.readonly else ("rbind", "rw")
        self._add_point(arrangement, mount.target, "bind", source, options, True)

    def _arrange_tmpfs(self, mount: RunMount, arrangement: _Arrangement) -> None:
        size = (f"size={mount.size}",) if mount.size else ()
        options = ("nosuid", "nodev", "mode=1777", *size)
        self._add_point(arrangement, mount.target, "tmpfs", "tmpfs", options, True)

    def _arrange_secret(self, mount: RunMount, arrangement: _Arrangement) -> None:
        value = self._workshop.facilities.secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise InvalidInput(
                    f"secret {mount.id!r} is required",
                    self._span,
                    hint=f"give it with --secret id={mount.id},src=FILE",
                )
            return
        if mount.env:
            arrangement.env[mount.env] = value.decode("utf-8", "surrogateescape")
        if mount.target:
            mode = 0o400 if mount.mode is None else mount.mode
            source = self._workshop.secret_file(value, mode, mount.uid, mount.gid)
            self._add_point(arrangement, mount.target, "bind", source, ("bind", "ro"), False)

    def _arrange_ssh(self, stack: ExitStack, mount: RunMount, arrangement: _Arrangement) -> None:
        agent = self._workshop.agent(mount.id)
        if agent is None:
            if mount.required:
                hint = f"forward one with --ssh {mount.id}"
                raise InvalidInput(f"no ssh agent {mount.id!r} was given", self._span, hint=hint)
            return
        from builder.operations.agents import forwarded

        source, mode = self._workshop.new_name("ssh"), 0o600 if mount.mode is None else mount.mode
        stack.enter_context(forwarded(agent, source, uid=mount.uid, gid=mount.gid, mode=mode))
        self._add_point(arrangement, mount.target, "bind", source, ("bind", "rw"), False)
        arrangement.env["SSH_AUTH_SOCK"] = mount.target

    @staticmethod
    def _add_point(
        arrangement: _Arrangement,
        target: str,
        kind: str,
        source: str,
        options: Sequence[str],
        is_directory: bool,
    ) -> None:
        from runtime.containers.config import MountPoint

        arrangement.points.append(MountPoint(target, kind, source, tuple(options)))
        arrangement.targets.append((clean(target), is_directory))

    def _network(self, stack: ExitStack, arrangement: _Arrangement) -> str:
        """The network namespace of the step: "" is a new and lonely one. Adds the files that go with it."""
        mode = self._operation.network
        if mode in ("", "default"):
            mode = self._workshop.facilities.network
        gateway, path = "", ""
        if mode == "host":
            if self._operation.network == "host" and "network.host" not in self._workshop.facilities.allow:
                raise Denied(
                    "RUN --network=host is not allowed", self._span, hint="allow it with --allow network.host"
                )
            path = "host"
        elif mode != "none":
            mode = "default"
            insecure = self._operation.security == "insecure"
            namespace = stack.enter_context(self._workshop.network_pool().lend(spoiled=insecure))
            path, gateway = namespace.path, namespace.gateway
        hosts = self._workshop.hosts(self._setting.surroundings.hostname, gateway)
        resolv = self._workshop.resolv_conf(mode)
        arrangement.files.append({"path": "/etc/hosts", "source": hosts, "readonly": True})
        arrangement.files.append({"path": "/etc/resolv.conf", "source": resolv, "readonly": True})
        return path

    def _plan(self, draft: Draft, arrangement: _Arrangement, network: str) -> Any:
        from runtime.containers.config import build_step_config
        from runtime.sandbox.plan import Plan, RootFs

        operation, facilities = self._operation, self._workshop.facilities
        insecure = operation.security == "insecure"
        if insecure and "security.insecure" not in facilities.allow:
            raise Denied(
                "RUN --security=insecure is not allowed",
                self._span,
                hint="allow it with --allow security.insecure",
            )
        config = build_step_config(
            argv=operation.argv,
            env=self._environment(arrangement.env),
            cwd=operation.cwd or "/",
            user=operation.user,
            cgroup=self._workshop.cgroup,
            mounts=arrangement.points,
            network=network,
            hostname=self._setting.surroundings.hostname,
            privileged=insecure,
            rlimits=facilities.rlimits,
            limits=facilities.limits,
        )
        if arrangement.tree:
            rootfs = RootFs([], arrangement.tree)
        else:
            skeleton = self._workshop.skeleton(arrangement.targets)
            rootfs = RootFs([*draft.lowers, skeleton], draft.upper, draft.work, volatile=True)
        return Plan(config, rootfs, files=arrangement.files, seccomp=self._workshop.seccomp(config, insecure))

    def _environment(self, extra: Mapping[str, str]) -> list[str]:
        env = {"PATH": DEFAULT_PATH, **dict(self._operation.env), **extra}
        return [f"{name}={value}" for name, value in env.items()]

    def _run(self, draft: Draft, arrangement: _Arrangement, network: str) -> tuple[ExitInfo, bytes]:
        plan = self._plan(draft, arrangement, network)
        cancel = self._setting.cancel
        cancel.check()
        with _Pipes() as pipes:
            with translated():
                more = self._workshop.more_runs
                process = self._workshop.spawner.create_step(plan, *pipes.write_ends, more=more)
            pipes.close_write_ends()
            with cancel.on_cancel(lambda: process.kill(9)):
                # The layer is hashed next; what that needs can be loaded while the command runs.
                import runtime.store.layers.diff  # noqa: F401

                tail = self._read(pipes)
                exit_info = process.wait()
        cancel.check()
        assert exit_info is not None
        return exit_info, tail

    def _read(self, pipes: _Pipes) -> bytes:
        """Pass the output on until the command and all it started have ended; its last bytes."""
        tail, size = b"", 0
        secrets = self._workshop.secret_values() if self._operation.mounts else ()
        maskers = {stream: Masker(secrets) for stream in ("stdout", "stderr")}
        for stream, data in pipes.read():
            masked = maskers[stream].feed(data) if data else maskers[stream].flush()
            if masked:
                tail = (tail + masked)[-_TAIL:]
                size += len(masked)
                self._tell(stream, masked, size)
        return tail

    def _tell(self, stream: str, data: bytes, size: int) -> None:
        """Show output, up to a limit: a screen takes less than a command can give, and what waits for it takes memory."""
        over = max(0, size - _LOG_LIMIT)
        if shown := data[: max(0, len(data) - over)]:
            self._setting.emit(Output(node=self._node, stream=stream, data=shown))
        if 0 < over <= len(data):  # it is this piece that does not fit
            self._setting.emit(Output(node=self._node, stream=stream, data=_CLIPPED))

    def _failure(self, exit_info: ExitInfo, tail: bytes, upper: str) -> StepFailed:
        words = self._operation.argv
        shown = words[-1] if len(words) == 3 and words[1] == "-c" else " ".join(words)
        masker = Masker(self._workshop.secret_values())
        shown = (masker.feed(shown.encode("utf-8", "surrogateescape")) + masker.flush()).decode(
            "utf-8", "replace"
        )
        reason = f": {exit_info.error}" if exit_info.error else ""
        killed = " (out of memory)" if exit_info.oom_killed else ""
        return StepFailed(
            f"`{shown.strip()[:200]}` failed with exit code {exit_info.code}{killed}{reason}",
            self._span,
            exit_code=exit_info.code,
            output=tail.decode("utf-8", "replace"),
            hint=self._foreign_hint() if exit_info.code == _NOT_EXECUTABLE else full_hint(upper),
        )

    def _foreign_hint(self) -> str:
        """What to do when the program is of another architecture than this host (A-96)."""
        host, text = host_platform(), self._operation.platform
        if not text or rank(host, parse_platform(text)) is not None:
            return ""
        return (
            f"the step is for {text} and this host runs {host}: install binfmt handlers (qemu-user-static), "
            "or do the work in a stage `FROM --platform=$BUILDPLATFORM` and COPY its result"
        )


class _Pipes:
    """Standard output and error of a step."""

    def __init__(self) -> None:
        self._read_ends: dict[int, str] = {}
        self.write_ends: list[int] = []
        for stream in ("stdout", "stderr"):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self._read_ends[reading] = stream
            self.write_ends.append(writing)

    def close_write_ends(self) -> None:
        for handle in self.write_ends:
            os.close(handle)
        self.write_ends.clear()

    def read(self) -> Iterator[tuple[str, bytes]]:
        """`(stream, data)` as it comes; `b""` at the end of a stream."""
        poll = polling.poll()
        for handle in self._read_ends:
            poll.register(handle, polling.POLLIN | polling.POLLHUP)
        left = len(self._read_ends)
        while left:
            for handle, _ in poll.poll():
                data = os.read(handle, _PIECE)
                if not data:
                    poll.unregister(handle)
                    left -= 1
                yield self._read_ends[handle], data

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close_write_ends()
        for handle in self._read_ends:
            os.close(handle)
