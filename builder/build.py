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
from typing import TYPE_CHECKING, BinaryIO, cast

from builder.asked import epoch_argument, facilities_of, is_plain, lower_options, setting_of, timed
from builder.attempt import Attempt
from builder.bases import Bases
from builder.built import Built, Occasion, invocation_of
from builder.cache import Cache
from builder.checked import BuildChecks, Checkable
from builder.context import Context, ContextOpener
from builder.epoch import Moments, parse_epoch
from builder.graph import GitSource, HttpSource, StageGraph
from builder.operations.step import Setting
from builder.pools import Pool
from builder.request import BuildRequest, BuildResult, BuildWarning
from builder.trees import ImportFailed
from builder.workshop import Workshop
from registry_client.oci.digest import Digest
from registry_client.oci.platform import Platform
from registry_client.values import replace
from runtime.cancel import Cancel
from runtime.errors import InvalidInput, PipeError
from runtime.events import Emit, Warned, ignore
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.attest.statement import Attestation
    from builder.dockerfile import Dockerfile
    from builder.executor import Missed
    from builder.failed import FailedStep
    from builder.ignore import Patterns
    from builder.looked_at import LookedAt
    from builder.lower import LowerOptions
    from builder.sharing.exports import Gathered
    from runtime.images.images import Images
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner


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
        self.on_lowered: Callable[[Dockerfile, Sequence[StageGraph]], None] | None = None
        # Steps that `look_up`, of this object or another, just found no record of: the next build does not look again.
        self.missed: Mapping[Digest, Missed] = {}

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

        if not is_plain(request) or somebody_died(self.store):
            return None
        with ExitStack() as stack:
            build = _Build(self, request, self._cancel, stack)
            try:
                return build.result_by_looking()
            except (NotYet, ImportFailed, PipeError):
                self.missed = build.missed
                return None  # `build` will come upon the same mistake, and tell it


class _Build:
    """One build on its way."""

    def __init__(self, owner: Builder, request: BuildRequest, cancel: Cancel, stack: ExitStack) -> None:
        self._owner, self._request, self._cancel, self._stack = owner, request, cancel, stack
        self._store, self._images, self._emit = owner.store, owner.images, owner._emit
        self._cache = Cache(owner.store)
        self._dockerfile: Dockerfile | None = None
        self._warnings: list[BuildWarning] = []
        self._checks = BuildChecks(owner.store, owner._emit, request.node)
        self._checkable: Checkable | None = None
        self._gathered: Gathered | None = None
        self._started_ns = time.time_ns()
        self._looked_at: LookedAt | None = None
        self._context_key = ""  # of the cache record of a context that was fetched
        self.missed = dict(owner.missed)
        owner.missed = {}
        self._workshop = stack.enter_context(
            Workshop(owner.store, owner._spawner, owner._networks, facilities_of(request))
        )

    def _setting(self) -> Setting:
        _ = self._request.as_several  # a mistake there is told before anything is done
        return setting_of(self._request, self._cancel, self._emit, self._owner.on_failure)

    def _timed(self, setting: Setting, context: Context, *, only_here: bool = False) -> Setting:
        """The setting with the time everything is set to, and what of it is part of keys."""

        def time_of(source: GitSource | HttpSource) -> int | None:
            if only_here:
                from builder.trees import NotYet

                raise NotYet
            from builder.operations.remotes import time_of_remote

            return time_of_remote(self._store, setting, self._request.secrets, self._workshop.agent, source)

        return timed(setting, self._request, self._parsed(context), Moments(context.time, time_of))

    def _parsed(self, context: Context) -> Dockerfile:
        if self._dockerfile is None:
            from builder.dockerfile import parse_dockerfile

            with self._telling(context):
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
        runs = self._request.no_cache and b"RUN" in context.text.upper()
        if runs:
            self._workshop.get_ahead()
        pool = self._stack.enter_context(Pool("step", max(2, self._owner._jobs)))
        hashing = self._stack.enter_context(Pool("hash", 2))
        if runs:
            # Beside the parsing. What fails here fails again, and is told, when a step needs it.
            pool.submit(self._workshop.warm_up)
        setting = self._timed(setting, context)
        return self._ended(self._build_until_had(context, setting, pool, hashing), context, setting)

    def _build_until_had(self, context: Context, setting: Setting, pool: Pool, hashing: Pool) -> list[Built]:
        """Build; again, without what was found elsewhere and then could not be had."""
        from runtime.images.transport import of_its_own

        transport = self._stack.enter_context(of_its_own(self._images.transport))
        bases = Bases(self._images, self._request, pool, self._cancel, transport, self._emit)
        while True:
            with self._attempt(setting) as attempt:
                try:
                    return self._build_platforms(context, attempt, pool, hashing, bases)
                except ImportFailed:
                    self._cancel.check()
                    self._cache.files_only = True

    @contextmanager
    def _attempt(self, setting: Setting) -> Iterator[Setting]:
        """The failure of one step cancels the others: each attempt has a token of its own."""
        cancel = Cancel()
        with self._cancel.on_cancel(lambda: cancel.cancel(self._cancel.reason)):
            yield replace(setting, cancel=cancel)

    def _build_platforms(
        self, context: Context, setting: Setting, pool: Pool, hashing: Pool, bases: Bases
    ) -> list[Built]:
        platforms = self._request.platforms or (None,)
        graphs = [self._lowered(context, setting, platform, bases) for platform in platforms]
        beside = self._looked_at_by_boms(context, setting, bases)
        self._check(pool)
        self._tell_lowered(context, graphs)
        attempt = self._go(context, setting, bases)
        made = attempt.build(graphs, beside, pool, hashing)
        self._gathered = attempt.gathered
        results = made[: len(graphs)]
        if self._looked_at is not None:
            self._looked_at.take(results, made[len(graphs) :])
        return results

    def _looked_at_by_boms(self, context: Context, setting: Setting, bases: Bases) -> list[StageGraph]:
        """What bills of material look at beside the results."""
        if not self._request.attest.sbom:
            return []
        from builder.looked_at import LookedAt

        self._looked_at = self._stack.enter_context(LookedAt(self._images))
        dockerfile = self._parsed(context)
        found: list[StageGraph] = []
        for platform in self._request.platforms or (None,):
            options = self._options(setting, platform, dockerfile)
            found += self._looked_at.lower(dockerfile, options, bases.resolve(dockerfile, options))
        return found

    def _go(self, context: Context, setting: Setting, bases: Bases) -> Attempt:
        return Attempt(
            self._store,
            self._images,
            self._cache,
            self._workshop,
            self._request,
            setting,
            context,
            bases,
            self._emit,
            self.missed,
        )

    def _tell_lowered(self, context: Context, graphs: Sequence[StageGraph]) -> None:
        """Whoever listens knows now what will be used, before any of it is."""
        if self._owner.on_lowered is not None:
            self._owner.on_lowered(self._parsed(context), graphs)

    def result_by_looking(self) -> BuildResult:
        """The result of a build whose every step is known; NotYet when one is not."""
        setting = self._setting()
        context = self._open_context(setting)
        setting = self._timed(setting, context, only_here=True)
        platform = next(iter(self._request.platforms), None)
        bases = Bases(self._images, self._request, None, self._cancel, self._images.transport)
        graph = self._lowered(context, setting, platform, bases)
        self._tell_lowered(context, [graph])
        made = self._go(context, setting, bases).look(graph)
        self._check(None)
        return self._ended([made], context, setting)

    def _ended(self, made: list[Built], context: Context, setting: Setting) -> BuildResult:
        self._cache.note_use()
        from builder.export import export

        result = BuildResult(
            image_id=made[0].image.id,
            warnings=(*self._warnings, *self._checks.warnings()),
            cached=all(each.cached for each in made),
            images=tuple(each.image.id for each in made),
        )
        occasion = Occasion(
            request=self._request,
            dockerfile=context.text,
            dockerfile_name=context.name,
            context_key=self._context_key,
            epoch=setting.epoch,
            started_ns=self._started_ns,
            invocation=invocation_of(made, setting.epoch),
            boms=self._generated(made),
            looked_at=self._looked_at.by_result if self._looked_at else {},
        )
        result = export(self._store, self._images, occasion, made, result, setting)
        if self._gathered is not None:
            from builder.sharing.exports import export_cache

            request = self._request
            export_cache(
                self._images, self._cache.imports, request.cache_to, self._gathered, self._emit, setting.cancel, request.node
            )  # fmt: skip
        return result

    def _generated(self, made: list[Built]) -> dict[Digest, tuple[Attestation, ...]]:
        """What a generator of bills of material says, if one is asked for."""
        if not self._request.attest.generator:
            return {}
        from builder.sbom.generator import generated

        beside = self._looked_at.by_result if self._looked_at else {}
        return {
            each.image.id: generated(
                self._owner.build, self._images, self._request, each.image, beside.get(each.image.id, ())
            )
            for each in made
        }

    def _open_context(self, setting: Setting) -> Context:
        def new_directory() -> str:
            path = self._workshop.new_name("context")
            os.mkdir(path)
            return path

        def remote(url: str) -> tuple[str, str, int | None]:
            from builder.operations.remotes import fetch_context

            return fetch_context(
                self._store,
                setting,
                self._request.secrets,
                self._workshop.agent,
                url,
                self._request.keeps_git_dir,
                self._request.policy,
            )

        def fetch(url: str) -> tuple[str, int | None]:
            path, self._context_key, time_of_it = remote(url)
            return path, time_of_it

        if self._request.policy:
            from builder.policy import Source

            for name in ("dockerfile", "context"):
                self._request.policy.apply(Source(f"local://{name}"))
        stdin = self._owner._stdin or sys.stdin.buffer
        return ContextOpener(self._request, stdin, new_directory, fetch, lambda url: remote(url)[0]).open()

    # --- one platform ---------------------------------------------------------------------------------------------

    def _lowered(
        self,
        context: Context,
        setting: Setting,
        platform: Platform | None,
        bases: Bases,
    ) -> StageGraph:
        """The graph, its base images resolved."""
        from builder.lower import lower, unused_arguments

        dockerfile = self._parsed(context)
        options = self._options(setting, platform, dockerfile)
        with self._telling(context):
            configs = bases.resolve(dockerfile, options)
            graph = lower(dockerfile, options, configs)
        for name in unused_arguments(dockerfile, options):
            self._warn(f"build argument {name} was not consumed")
        if self._checkable is None:  # of several platforms the first is told about, as BuildKit does
            self._checkable = Checkable(
                dockerfile, options, configs, cast("Patterns | None", context.tree.ignore)
            )
        return graph

    def _options(self, setting: Setting, platform: Platform | None, dockerfile: Dockerfile) -> LowerOptions:
        return lower_options(
            self._request, platform, epoch_argument(self._request, dockerfile, setting.epoch)
        )

    @contextmanager
    def _telling(self, context: Context) -> Iterator[None]:
        """A mistake in the Dockerfile is told behind what the checks say of the lines before it."""
        try:
            yield
        except InvalidInput:
            options = lower_options(self._request, next(iter(self._request.platforms), None), None)
            self._checks.tell_before_mistake(context.text, context.name, options)
            raise

    def _check(self, pool: Pool | None) -> None:
        assert self._checkable is not None, "something was lowered"
        self._checks.begin(self._checkable, pool)

    def _warn(self, message: str) -> None:
        if any(known.message == message for known in self._warnings):
            return  # said for another platform
        self._warnings.append(BuildWarning(message))
        self._emit(Warned(node=self._request.node, message=message))


__all__ = ["BuildRequest", "BuildResult", "Builder", "parse_epoch"]
