"""Build an image: the context, the graph, its solution, the config, the outputs.

This module only puts the parts in order. One deciding thread per build (the caller's) waits in the solver; steps run in
the pool `step`, hashes in the pool `hash`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal

from builder.built import Built, Occasion
from builder.cache import Cache
from builder.context import Context, ContextOpener
from builder.epoch import NAME as EPOCH
from builder.epoch import Moments, is_declared, parse_epoch, resolve_epoch
from builder.executor import Executor
from builder.graph import (
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    LocalSource,
    Scratch,
    StageGraph,
    Vertex,
)
from builder.keys import Surroundings
from builder.operations.step import Setting
from builder.pools import Pool
from builder.request import BuildRequest, BuildResult, BuildWarning, OutputWanted
from builder.result import image_config
from builder.solver import Solver, reachable
from builder.sources import BuildSources
from builder.state import RootState, State
from builder.trees import ImportFailed
from builder.workshop import Facilities, Workshop
from registry_client.oci.digest import Digest, digest_of
from registry_client.oci.platform import Platform
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.errors import Cancelled, InvalidInput, PipeError, StepFailed
from runtime.events import Emit, Finished, Outcome, Started, Warned, ignore
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.failed import FailedStep
    from builder.lower import BaseWanted, LowerOptions, ResolvedBase
    from builder.sharing.exports import Gathered
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner

BUILD_HOSTNAME = "buildkitsandbox"
_POLICY: Mapping[str, Literal["missing", "always", "never"]] = {
    "auto": "missing",
    "missing": "missing",
    "always": "always",
    "never": "never",
}
_QUIET = (Scratch, LocalSource, InlineSource)  # sources nobody needs to read about


class Builder:
    """Builds into one store. One object may run several builds at once, each from its own thread."""

    def __init__(
        self,
        store: Store,
        images: Images,
        networks: Networks | Callable[[], Networks] | None,
        spawner: Spawner | None,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
        *,
        jobs: int = 4,
        stdin: BinaryIO | None = None,
    ) -> None:
        self.store, self.images = store, images
        # Given as a function, networks are opened when a step needs one: their room is not free to import.
        self._networks = networks if networks is None or callable(networks) else lambda: networks
        self._spawner = spawner
        self._emit, self._cancel, self._jobs, self._stdin = emit, cancel or Cancel(), jobs, stdin
        self.on_failure: Callable[[FailedStep], None] | None = None
        # Steps that `look_up`, of this object or another, just found no record of: the next build does not look again.
        self.missed: frozenset[Digest] = frozenset()

    def build(self, request: BuildRequest) -> BuildResult:
        """Build what is asked, tag it, write the outputs."""
        from builder.tidy import tidy_up

        tidy_up(self.store, self._networks)
        # Killed before it leased anything, it would leave its first step's lock with nobody to notice.
        self.store.leases.keep("build", request.node)
        cancel = Cancel()
        with self._cancel.on_cancel(lambda: cancel.cancel(self._cancel.reason)), ExitStack() as stack:
            result = _Build(self, request, cancel, stack).result()
        from builder.gc import collect_if_due

        collect_if_due(self.store, self._emit, request.node)
        return result

    def look_up(self, request: BuildRequest) -> BuildResult | None:
        """The result if nothing has to be done but to look; None when `build` must be called.

        It needs no thread, no process and no mount, so a command can ask before it makes any.
        """
        from builder.tidy import somebody_died
        from builder.trees import NotYet

        if not _is_plain(request) or somebody_died(self.store):
            return None
        with ExitStack() as stack:
            build = _Build(self, request, self._cancel, stack)
            try:
                return build.result_by_looking()
            except (NotYet, ImportFailed, PipeError):
                self.missed = frozenset(build.missed)
                return None  # `build` will come upon the same mistake, and tell it


def _is_plain(request: BuildRequest) -> bool:
    """Only a directory, only what is here, only an image: all else takes more than a look."""
    return (
        os.path.isdir(request.context)
        and request.dockerfile != "-"
        and not request.no_cache
        and request.pull in ("auto", "missing", "never")
        and len(request.platforms) <= 1
        and not request.annotations
        and not request.cache_to
        and all(
            wanted.type in ("image", "cacheonly") and not _annotates(wanted) for wanted in request.outputs
        )
    )


def _annotates(wanted: OutputWanted) -> bool:
    return any(name.startswith("annotation") for name in wanted.options)


class _Build:
    """One build on its way."""

    def __init__(self, owner: Builder, request: BuildRequest, cancel: Cancel, stack: ExitStack) -> None:
        self._owner, self._request, self._cancel, self._stack = owner, request, cancel, stack
        self._store, self._images, self._emit = owner.store, owner.images, owner._emit
        self._cache = Cache(owner.store)
        self._dockerfile: Dockerfile | None = None
        self._warnings: list[BuildWarning] = []
        self._gathered: Gathered | None = None
        self._started_ns = time.time_ns()
        self._context_key = ""  # of the cache record of a context that was fetched
        self.missed = set(owner.missed)
        owner.missed = frozenset()
        self._workshop = stack.enter_context(
            Workshop(owner.store, owner._spawner, owner._networks, self._facilities())
        )

    def _facilities(self) -> Facilities:
        request = self._request
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

    def _setting(self) -> Setting:
        """Without a time: that may depend on the context and the Dockerfile (`_timed`)."""
        request = self._request
        return Setting(
            surroundings=Surroundings(
                hostname=request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", BUILD_HOSTNAME),
                host_names=tuple(name for name, _ in request.add_hosts),
                rlimits=tuple(f"{limit.name}={limit.soft}:{limit.hard}" for limit in request.rlimits),
                cgroup_parent=request.cgroup_parent,
            ),
            cancel=self._cancel,
            emit=self._emit,
            on_failure=self._owner.on_failure,
        )

    def _timed(self, setting: Setting, context: Context, *, only_here: bool = False) -> Setting:
        """The setting with the time everything is set to, and what of it is part of keys."""
        request = self._request

        def time_of(source: GitSource | HttpSource) -> int | None:
            if only_here:
                from builder.trees import NotYet

                raise NotYet
            from builder.operations.remotes import time_of_remote

            return time_of_remote(self._store, setting, request.secrets, source)

        options = self._options(None, setting, resolved=False)
        epoch = resolve_epoch(self._parsed(context), options, request.epoch, Moments(context.time, time_of))
        rewrite = request.rewrite_timestamp or any(out.rewrite_timestamp for out in request.outputs)
        if rewrite and epoch is None:
            raise InvalidInput("rewrite-timestamp needs a time", hint=f"set {EPOCH}")
        surroundings = replace(setting.surroundings, epoch=epoch, rewrite_epoch=epoch if rewrite else None)
        return replace(setting, surroundings=surroundings, epoch=epoch, rewrite=rewrite)

    def _parsed(self, context: Context) -> Dockerfile:
        if self._dockerfile is None:
            from builder.dockerfile import parse_dockerfile

            self._dockerfile = parse_dockerfile(context.text, context.name)
        return self._dockerfile

    def result(self) -> BuildResult:
        setting = self._setting()
        context = self._open_context(setting)
        if self._request.cache_from:
            from builder.sharing.imports import Imports

            self._cache.imports = Imports(
                self._images, self._request.cache_from, self._emit, self._cancel, self._request.node
            )
        setting = self._timed(setting, context)
        pool = self._stack.enter_context(Pool("step", max(2, self._owner._jobs)))
        hashing = self._stack.enter_context(Pool("hash", 2))
        if self._request.no_cache and b"RUN" in context.text.upper():
            # Beside the parsing. What fails here fails again, and is told, when a step needs it.
            pool.submit(self._workshop.warm_up)
        return self._ended(self._build_until_had(context, setting, pool, hashing), context, setting)

    def _build_until_had(self, context: Context, setting: Setting, pool: Pool, hashing: Pool) -> list[Built]:
        """Build; again, without what was found elsewhere and then could not be had."""
        while True:
            with self._attempt(setting) as attempt:
                try:
                    return self._build_platforms(context, attempt, pool, hashing)
                except ImportFailed:
                    self._cancel.check()
                    self._cache.files_only = True

    @contextmanager
    def _attempt(self, setting: Setting) -> Iterator[Setting]:
        """The failure of one step cancels the others: each attempt has a token of its own."""
        cancel = Cancel()
        with self._cancel.on_cancel(lambda: cancel.cancel(self._cancel.reason)):
            yield replace(setting, cancel=cancel)

    def _build_platforms(self, context: Context, setting: Setting, pool: Pool, hashing: Pool) -> list[Built]:
        sources = self._sources(context, setting)
        graphs = [
            self._lowered(context, setting, platform, pool, sources)
            for platform in self._request.platforms or (None,)
        ]
        executor, node_of = self._executor(graphs, context, sources, setting, hashing)
        try:
            # All platforms are one graph: they are built at once, and what they share only once.
            states = self._solve(graphs, executor, node_of, setting, pool)
            sources.save()
            return [self._finish(graph, states, setting, self._gather(graph, executor)) for graph in graphs]
        finally:
            executor.keep_borrowed()

    def _gather(self, graph: StageGraph, executor: Executor) -> Gathered | None:
        """What a shared cache will hold of this graph."""
        if not self._request.cache_to:
            return None
        from builder.sharing.exports import gather

        found = gather(self._store, self._cache, self._cache.imports, graph.root, executor.keys)
        self._gathered = found if self._gathered is None else self._gathered.joined(found)
        return found

    def result_by_looking(self) -> BuildResult:
        """The result of a build whose every step is known; NotYet when one is not."""
        setting = self._setting()
        context = self._open_context(setting)
        setting = self._timed(setting, context, only_here=True)
        platform = next(iter(self._request.platforms), None)
        sources = self._sources(context, setting)
        graph = self._lowered(context, setting, platform, None, sources)
        executor, node_of = self._executor([graph], context, sources, setting, None)
        teller = _Teller(self._emit, self._request.node, node_of)
        states: dict[Digest, State] = {}
        try:
            for vertex in reachable([graph.root]):
                state = executor.find(vertex, [states[each.digest] for each in vertex.inputs])
                states[vertex.digest] = state
                teller.started(vertex)
                teller.finished(vertex, state)
        finally:
            sources.save()  # what was read need not be read again by `build`
        return self._ended([self._finish(graph, states, setting)], context, setting)

    def _ended(self, made: list[Built], context: Context, setting: Setting) -> BuildResult:
        self._cache.note_use()
        from builder.export import export

        result = BuildResult(
            image_id=made[0].image.id,
            warnings=tuple(self._warnings),
            cached=all(each.cached for each in made),
            images=tuple(each.image.id for each in made),
        )
        occasion = self._occasion(made, context, setting)
        result = export(self._store, self._images, occasion, made, result, setting)
        if self._gathered is not None:
            from builder.sharing.exports import export_cache

            request = self._request
            export_cache(
                self._images, self._cache.imports, request.cache_to, self._gathered, self._emit, setting.cancel, request.node
            )  # fmt: skip
        return result

    def _occasion(self, made: list[Built], context: Context, setting: Setting) -> Occasion:
        invocation = os.urandom(16).hex()
        if setting.epoch is not None:  # the same build shall be attested by the same bytes
            roots = "\n".join(each.graph.root.digest for each in made)
            invocation = digest_of(roots.encode()).partition(":")[2][:32]
        return Occasion(
            request=self._request,
            dockerfile=context.text,
            dockerfile_name=context.name,
            context_key=self._context_key,
            epoch=setting.epoch,
            started_ns=self._started_ns,
            invocation=invocation,
        )

    def _open_context(self, setting: Setting) -> Context:
        def new_directory() -> str:
            path = self._workshop.new_name("context")
            os.mkdir(path)
            return path

        def fetch(url: str) -> tuple[str, int | None]:
            from builder.operations.remotes import fetch_context

            found = fetch_context(self._store, setting, self._request.secrets, url)
            path, self._context_key, time_of_it = found
            return path, time_of_it

        stdin = self._owner._stdin or sys.stdin.buffer
        return ContextOpener(self._request, stdin, new_directory, fetch).open()

    def _sources(self, context: Context, setting: Setting) -> BuildSources:
        return BuildSources(
            self._store, self._images, self._workshop, setting, context, self._request.build_contexts
        )

    # --- one platform ---------------------------------------------------------------------------------------------

    def _lowered(
        self,
        context: Context,
        setting: Setting,
        platform: Platform | None,
        pool: Pool | None,
        sources: BuildSources,
    ) -> StageGraph:
        """The graph, its base images resolved: in `pool`, or only if they are here."""
        from builder.lower import lower, unused_arguments

        options = self._options(platform, setting)
        dockerfile = self._parsed(context)
        configs = self._resolve_bases(dockerfile, options, sources, pool)
        graph = lower(dockerfile, options, configs)
        for name in unused_arguments(dockerfile, options):
            self._warn(f"build argument {name} was not consumed")
        return graph

    def _options(self, platform: Platform | None, setting: Setting, *, resolved: bool = True) -> LowerOptions:
        from builder.lower import LowerOptions

        request = self._request
        build_args = dict(request.build_args)
        if setting.epoch is not None:
            build_args[EPOCH] = str(setting.epoch)
        elif resolved and (EPOCH in build_args or (self._dockerfile and is_declared(self._dockerfile))):
            build_args[EPOCH] = ""  # it said `context`, and that has no time
        return LowerOptions(
            target=request.target,
            build_args=build_args,
            platform=platform,
            contexts=request.build_contexts,
            labels=request.labels,
            no_cache=request.no_cache,
            no_cache_filter=request.no_cache_filter,
            network=request.network,
            multi_platform=len(request.platforms) > 1,
        )

    def _resolve_bases(
        self, dockerfile: Dockerfile, options: LowerOptions, sources: BuildSources, pool: Pool | None
    ) -> Mapping[BaseWanted, ResolvedBase]:
        """Resolve the images the target needs, and those that ONBUILD triggers of these bring in."""
        from builder.lower import ResolvedBase, bases

        known: dict[BaseWanted, ResolvedBase] = {}
        while missing := [each for each in bases(dockerfile, options, known) if each not in known]:
            for wanted, image in self._resolve_all(missing, options, pool):
                digest = image.manifest_digest or image.id
                known[wanted] = ResolvedBase(digest, image.config)
                sources.know_base(wanted.reference, str(wanted.platform), image)
        return known

    def _resolve_all(
        self, missing: Sequence[BaseWanted], options: LowerOptions, pool: Pool | None
    ) -> list[tuple[BaseWanted, Image]]:
        if pool is None:
            return [(wanted, self._resolve(wanted, options, only_here=True)) for wanted in missing]
        tasks = [(wanted, pool.submit(self._resolve, wanted, options)) for wanted in missing]
        return [(wanted, task.result()) for wanted, task in tasks]

    def _resolve(self, wanted: BaseWanted, options: LowerOptions, *, only_here: bool = False) -> Image:
        reference = wanted.reference
        try:
            if reference.startswith("oci-layout://"):
                from builder.operations.layouts import load_layout

                return load_layout(self._images, reference, wanted.platform)
            asked = options.platform is not None or wanted.platform != options.target_platform
            return self._images.resolve(
                reference,
                # Nobody asked: an image that is here may be of any platform, and then decides.
                platform=wanted.platform if asked else None,
                pull="never" if only_here else _POLICY[self._request.pull],
                cancel=self._cancel,
            )
        except PipeError as error:
            if error.span is None:
                error.span = wanted.span
            raise

    def _solve(
        self,
        graphs: Sequence[StageGraph],
        executor: Executor,
        node_of: Callable[[Vertex], str],
        setting: Setting,
        pool: Pool,
    ) -> Mapping[Digest, State]:
        watcher = _Teller(self._emit, self._request.node, node_of)
        solver: Solver[State] = Solver(executor.run, pool, setting.cancel, watcher)
        try:
            solver.solve([graph.root for graph in graphs])
        finally:
            for state in solver.states.values():
                if isinstance(state, RootState):
                    state.wait()
        return solver.states

    def _executor(
        self,
        graphs: Sequence[StageGraph],
        context: Context,
        sources: BuildSources,
        setting: Setting,
        hashing: Pool | None,
    ) -> tuple[Executor, Callable[[Vertex], str]]:
        """The executor, and what each vertex is called in the event stream. Without `hashing` it only looks."""
        order = reachable([graph.root for graph in graphs])
        numbers = {vertex.digest: number for number, vertex in enumerate(order, 1)}

        def node_of(vertex: Vertex) -> str:
            return f"{self._request.node}/{numbers[vertex.digest]}"

        place = f"{context.tree.path}:{context.name}"
        executor = Executor(
            self._store,
            self._cache,
            sources,
            self._workshop,
            setting,
            hashing,
            node_of,
            place=place,
        )
        executor.missed = self.missed
        return executor, node_of

    def _finish(
        self,
        graph: StageGraph,
        states: Mapping[Digest, State],
        setting: Setting,
        gathered: Gathered | None = None,
    ) -> Built:
        root = states[graph.root.digest]
        assert isinstance(root, RootState)
        config = image_config(graph, states, setting.epoch)
        if gathered is not None and any(wanted.type == "inline" for wanted in self._request.cache_to):
            from builder.sharing.exports import with_inline_cache

            config = with_inline_cache(config, gathered)
        image = self._images.records.get(digest_of(config))
        if image is None or not self._is_whole(root):
            image = self._images.add_built(config, self._layers(root))
        cached = all(state.cached for state in states.values() if isinstance(state, RootState))
        return Built(image, graph, states, cached)

    def _is_whole(self, root: RootState) -> bool:
        """The image is known, and what it is made of is here (and leased to us now)."""
        layers = root.layers()
        return not layers or (
            layers[-1].snapshot != "" and self._store.snapshots.find(layers[-1].snapshot) is not None
        )

    def _layers(self, root: RootState) -> list[tuple[Digest, str]]:
        """Every layer with the snapshot it led to, the base's included."""
        found: list[tuple[Digest, str]] = []
        if root.image is not None and root.image.config.diff_ids:
            self._images.snapshot(root.image, self._cancel)
            found.extend(self._base_layers(root.image.config.diff_ids))
        root.snapshot()  # what was found elsewhere is fetched
        found.extend(
            (layer.diff_id, layer.snapshot or self._unpacked(layer.chain_id)) for layer in root.layers()
        )
        return found

    def _unpacked(self, chain: Digest) -> str:
        snapshot = self._store.snapshots.by_chain(chain)
        assert snapshot is not None, "an unpacked root has a snapshot for each of its layers"
        return snapshot.id

    def _base_layers(self, diff_ids: tuple[Digest, ...]) -> list[tuple[Digest, str]]:
        from registry_client.oci.digest import chain_ids

        chain = chain_ids(diff_ids)
        return [(diff_id, self._unpacked(each)) for diff_id, each in zip(diff_ids, chain, strict=True)]

    def _warn(self, message: str) -> None:
        if any(known.message == message for known in self._warnings):
            return  # said for another platform
        self._warnings.append(BuildWarning(message))
        self._emit(Warned(node=self._request.node, message=message))


class _Teller:
    """Turns what the solver does into events."""

    def __init__(self, emit: Emit, parent: str, node_of: Callable[[Vertex], str]) -> None:
        self._emit, self._parent, self._node_of = emit, parent, node_of

    def _is_told(self, vertex: Vertex) -> bool:
        return not isinstance(vertex.operation, _QUIET)

    def started(self, vertex: Vertex) -> None:
        if self._is_told(vertex):
            self._emit(Started(node=self._node_of(vertex), name=vertex.label, parent=self._parent))

    def finished(self, vertex: Vertex, state: State) -> None:
        if not self._is_told(vertex):
            return
        cached = (
            isinstance(state, RootState) and state.cached and not isinstance(vertex.operation, ImageSource)
        )
        outcome = Outcome.CACHED if cached else Outcome.DONE
        self._emit(Finished(node=self._node_of(vertex), outcome=outcome))

    def failed(self, vertex: Vertex, error: BaseException) -> None:
        if not self._is_told(vertex):
            return
        outcome = Outcome.ERROR
        if isinstance(error, StepFailed):
            outcome = Outcome.FAILED
        elif isinstance(error, (Cancelled, ImportFailed)):
            outcome = Outcome.CANCELLED
        self._emit(Finished(node=self._node_of(vertex), outcome=outcome, error=str(error)))


__all__ = ["BuildRequest", "BuildResult", "Builder", "parse_epoch"]
