"""One attempt at the graphs of a build, and what it takes: sources, the executor, base layers on their way.

An attempt ends early when what another machine's cache offered cannot be had; the next one does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from builder.executor import Executor
from builder.finishing import Finisher, is_stored
from builder.graph import Exec
from builder.solver import Solver, reachable
from builder.sources import BuildSources
from builder.state import RootState
from builder.telling import Teller
from runtime.errors import Cancelled

if TYPE_CHECKING:
    from builder.bases import Bases
    from builder.built import Built
    from builder.cache import Cache
    from builder.context import Context
    from builder.executor import Missed
    from builder.fetching import Fetching
    from builder.graph import StageGraph, Vertex
    from builder.operations.step import Setting
    from builder.pools import Pool
    from builder.request import BuildRequest
    from builder.sharing.exports import Gathered
    from builder.state import State
    from builder.workshop import Workshop
    from registry_client.oci.digest import Digest
    from runtime.events import Emit
    from runtime.images.images import Images
    from runtime.store.store import Store


class Attempt:
    """`setting` carries the attempt's own token: the failure of one step cancels the others. `gathered` is for caches elsewhere.

    `missed` are steps no record was found of, by this or an earlier look.
    """

    def __init__(
        self,
        store: Store,
        images: Images,
        cache: Cache,
        workshop: Workshop,
        request: BuildRequest,
        setting: Setting,
        context: Context,
        bases: Bases,
        emit: Emit,
        missed: dict[Digest, Missed],
    ) -> None:
        self._store, self._images, self._cache, self._workshop = store, images, cache, workshop
        self._request, self._setting, self._context = request, setting, context
        self._bases, self._emit, self._missed = bases, emit, missed
        self.gathered: Gathered | None = None

    def build(
        self, results: Sequence[StageGraph], beside: Sequence[StageGraph], pool: Pool, hashing: Pool
    ) -> list[Built]:
        """The images of all graphs, in order: steps run in `pool`, hashes in `hashing`.

        Those `beside` the results are for us to look at: no shared cache hears of them.
        """
        graphs = (*results, *beside)
        from builder.fetching import Fetching, begin_early

        with Fetching(self._images, pool, self._setting.cancel, self._request.node) as fetching:
            early = None
            if not self._bases.all_here:
                whole = graphs if is_stored(self._request) else ()
                early = pool.submit(
                    begin_early, fetching, self._bases, graphs, whole, self._setting, self._cache
                )
            sources = self._sources(fetching)
            executor, node_of = self._executor(graphs, sources, hashing)
            order = reachable([graph.root for graph in graphs])
            self._workshop.expect_runs(sum(isinstance(vertex.operation, Exec) for vertex in order))
            try:
                # All platforms are one graph: they are built at once, and what they share only once.
                states = self._solve(graphs, executor, node_of, pool)
                sources.save()
                if early is not None:
                    early.result()
                finisher = self._finisher()
                made = [finisher.finish(graph, states, self._gather(graph, executor)) for graph in results]
                return made + [finisher.finish(graph, states) for graph in beside]
            except Cancelled as error:
                raise (fetching.error or error) from None
            finally:
                executor.keep_borrowed()
                if early is not None:
                    early.error()

    def look(self, graph: StageGraph) -> Built:
        """The image of a graph whose every step is known; NotYet when one is not."""
        sources = self._sources()
        executor, node_of = self._executor([graph], sources, None)
        teller = Teller(self._emit, self._request.node, node_of)
        states: dict[Digest, State] = {}
        try:
            for vertex in reachable([graph.root]):
                state = executor.find(vertex, [states[each.digest] for each in vertex.inputs])
                states[vertex.digest] = state
                teller.started(vertex)
                teller.finished(vertex, state)
        finally:
            sources.save()  # what was read need not be read again by `build`
        return self._finisher().finish(graph, states)

    def _sources(self, fetching: Fetching | None = None) -> BuildSources:
        return BuildSources(
            self._store,
            self._images,
            self._workshop,
            self._setting,
            self._context,
            self._request.build_contexts,
            self._bases,
            fetching,
        )

    def _executor(
        self, graphs: Sequence[StageGraph], sources: BuildSources, hashing: Pool | None
    ) -> tuple[Executor, Callable[[Vertex], str]]:
        """The executor, and what each vertex is called in the event stream. Without `hashing` it only looks."""
        order = reachable([graph.root for graph in graphs])
        numbers = {vertex.digest: number for number, vertex in enumerate(order, 1)}

        def node_of(vertex: Vertex) -> str:
            return f"{self._request.node}/{numbers[vertex.digest]}"

        place = f"{self._context.tree.path}:{self._context.name}"
        executor = Executor(
            self._store, self._cache, sources, self._workshop, self._setting, hashing, node_of, place=place
        )
        executor.missed = self._missed
        return executor, node_of

    def _solve(
        self,
        graphs: Sequence[StageGraph],
        executor: Executor,
        node_of: Callable[[Vertex], str],
        pool: Pool,
    ) -> Mapping[Digest, State]:
        watcher = Teller(self._emit, self._request.node, node_of)
        solver: Solver[State] = Solver(executor.run, pool, self._setting.cancel, watcher)
        try:
            solver.solve([graph.root for graph in graphs])
        finally:
            for state in solver.states.values():
                if isinstance(state, RootState):
                    state.wait()
        return solver.states

    def _gather(self, graph: StageGraph, executor: Executor) -> Gathered | None:
        """What a shared cache will hold of this graph."""
        if not self._request.cache_to:
            return None
        from builder.sharing.exports import gather

        found = gather(self._store, self._cache, self._cache.imports, graph.root, executor.keys)
        self.gathered = found if self.gathered is None else self.gathered.joined(found)
        return found

    def _finisher(self) -> Finisher:
        inline = any(wanted.type == "inline" for wanted in self._request.cache_to)
        stored, setting = is_stored(self._request), self._setting
        return Finisher(
            self._store,
            self._images,
            self._cache,
            setting.epoch,
            setting.cancel,
            inline=inline,
            stored=stored,
        )
