"""Bring one vertex about: find its record, or carry it out and record it.

The order is: the shape (could any record match?), then the key (shape, root, content), then the lock of its definition,
then the work. A step whose shape is unknown starts at once, even while its root is still being hashed; its own hash,
chain id and record follow in the hash pool, beside the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol

from builder.cache import Cache, Record, storable
from builder.content import Content
from builder.graph import (
    SOURCES,
    Copy,
    Exec,
    GitSource,
    HttpSource,
    ImageSource,
    MakeDirectory,
    Scratch,
    Vertex,
)
from builder.joining import linked, standing_alone
from builder.keys import cache_key, digest_of_fields, exec_shape
from builder.locks import StepLock
from builder.operations.copy import CopyStep
from builder.operations.directory import DirectoryStep
from builder.operations.step import Outcome, Setting, Sought, Step
from builder.pools import Pool, Task
from builder.state import FilesState, Made, RootState, State
from builder.trees import ImportFailed, NotYet, Trees
from builder.workshop import Workshop
from registry_client.oci.digest import Digest, chain_ids
from registry_client.values import frozen
from runtime.errors import PipeError, StepFailed
from runtime.store.durable import faults_of_the_host
from runtime.store.store import Store

if TYPE_CHECKING:
    from builder.keys import Shape
    from builder.operations.seen import Seen
    from builder.sharing.form import SharedRecord
    from runtime.store.snapshots import Draft, Snapshot


class Sources(Protocol):
    """What the build knows of where things come from."""

    def image(self, operation: ImageSource) -> RootState: ...

    def files(self, vertex: Vertex) -> FilesState: ...


@frozen
class _Borrowed:
    """A step that was found elsewhere: what a record of ours needs besides its snapshot."""

    record: SharedRecord
    chain_id: Digest  # where it stands here: a COPY --link may stand on another root
    shape: Shape
    content: Content
    place: str
    root: str
    notes: dict[str, str]


@frozen
class Missed:
    """A look for a record that found none: the newest record of the shape then, and what was seen of the context."""

    newest: int
    seen: Seen | None = None


class Executor:
    """Runs vertices of one build; called by the solver from many threads. `keys` are those of the steps that are done."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        sources: Sources,
        workshop: Workshop,
        setting: Setting,
        hashing: Pool | None,
        node_of: Callable[[Vertex], str],
        *,
        place: str = "",
    ) -> None:
        self._store, self._cache, self._sources = store, cache, sources
        self._workshop, self._setting, self._hashing, self._node_of = workshop, setting, hashing, node_of
        self._trees = Trees(store, may_mount=hashing is not None)
        self._place = storable(place)
        self.keys: dict[Digest, str] = {}
        self.missed: dict[Digest, Missed] = {}  # vertices that had no record a moment ago
        self._borrowed: list[_Borrowed] = []

    def run(self, vertex: Vertex, inputs: Sequence[State]) -> State:
        """The state after `vertex`. Errors carry the place in the Dockerfile."""
        try:
            return self._run(vertex, inputs)
        except PipeError as error:
            if error.span is None:
                error.span = vertex.span
            raise

    def find(self, vertex: Vertex, inputs: Sequence[State]) -> State:
        """The state after `vertex` if looking is enough, else NotYet: nothing is run, mounted or fetched."""
        if isinstance(vertex.operation, (HttpSource, GitSource)):
            raise NotYet
        return self._run(vertex, inputs)

    def keep_borrowed(self) -> None:
        """Record the steps found elsewhere, with their files where they were fetched: the next build need not ask."""
        if self._borrowed:
            self._cache.keep_contents()
        for each in self._borrowed:
            shared = each.record
            if self._cache.find(shared.key) is not None:
                continue  # another build was as far
            found = self._store.snapshots.by_chain(each.chain_id) if shared.diff_id else None
            snapshot = found.id if found is not None else ""
            record = Record(
                shared.key, shared.label, snapshot, shared.diff_id, each.chain_id, shared.made, shared.size
            )
            self._cache.put(
                record, each.shape, each.content, place=each.place, root=each.root, notes=each.notes
            )

    def _run(self, vertex: Vertex, inputs: Sequence[State]) -> State:
        operation = vertex.operation
        if isinstance(operation, Scratch):
            return RootState(cached=True, definition="scratch")
        if isinstance(operation, ImageSource):
            return self._sources.image(operation)
        if isinstance(operation, SOURCES):
            return self._sources.files(vertex)
        definition = digest_of_fields(
            {"vertex": vertex.digest, "inputs": [state.definition for state in inputs]}
        )
        step = self._prepare(vertex, inputs)
        return _Run(self, vertex, inputs, step, definition).result()

    def _place_of(self, vertex: Vertex) -> str:
        """`[stage 2/5]` without the command: where in which Dockerfile."""
        return f"{self._place}:{vertex.label.partition(']')[0]}"

    def _prepare(self, vertex: Vertex, inputs: Sequence[State]) -> Step:
        operation, setting = vertex.operation, self._setting
        if isinstance(operation, Copy):
            place = None if vertex.no_cache else self._place_of(vertex)
            helper, missed = self._workshop.helper, self.missed.get(vertex.digest)
            seen = None if missed is None else missed.seen
            return CopyStep(
                operation, inputs, setting, self._trees, self._cache, helper, place=place, seen=seen
            )
        if isinstance(operation, MakeDirectory):
            return DirectoryStep(operation, setting)
        assert isinstance(operation, Exec)
        self._workshop.run_begins()
        if self._hashing is None and not operation.mounts:
            return Sought(exec_shape(operation, setting.surroundings))
        from builder.operations.exec import ExecStep

        return ExecStep(
            operation,
            inputs,
            setting,
            self._trees,
            self._cache,
            self._workshop,
            node=self._node_of(vertex),
            label=vertex.label,
            span=vertex.span,
        )


class _Run:
    """One step on its way."""

    def __init__(
        self, owner: Executor, vertex: Vertex, inputs: Sequence[State], step: Step, definition: str
    ) -> None:
        assert isinstance(inputs[0], RootState)
        self._owner, self._vertex, self._step = owner, vertex, step
        self._inputs, self._parent = inputs, inputs[0]
        self._definition = definition
        self._store, self._cache, self._cancel = owner._store, owner._cache, owner._setting.cancel
        # The newest record of its shape when it was last looked for in vain: only a newer one is a reason to look again.
        missed = owner.missed.get(vertex.digest)
        self._looked = 0 if missed is None else missed.newest

    def result(self) -> RootState:
        if (found := self._find()) is not None:
            return found
        if self._owner._hashing is None:
            seen = self._step.seen if isinstance(self._step, CopyStep) else None
            self._owner.missed[self._vertex.digest] = Missed(self._looked, seen)
            raise NotYet
        lock = StepLock(f"{self._store.root}/locks", self._definition)
        waited = lock.acquire(self._cancel)
        try:
            # Another build may have finished this step while we were looking or waiting.
            if (waited or self._cache.newest(self._step.shape) != self._looked) and (
                found := self._find()
            ) is not None:
                lock.release()
                return found
            return self._carry_out(lock)
        except BaseException:
            lock.release()
            raise

    def _state(self, snapshot: str | None, made: object, cached: bool) -> RootState:
        return RootState(
            parent=self._parent,
            snapshot=snapshot,
            unpack=None if snapshot is not None else self._parent.snapshot,
            made=made,  # type: ignore[arg-type]
            cached=cached,
            definition=self._definition,
        )

    # --- finding --------------------------------------------------------------------------------------------------

    def _find(self) -> RootState | None:
        if self._vertex.no_cache:
            return None
        looked, self._looked = self._looked, self._cache.newest(self._step.shape)
        if self._looked != looked:
            content = self._step.content()
            record = self._cache.find(self._key(content))
            if record is not None:
                self._owner.keys[self._vertex.digest] = record.key
                return self._found_here(record)
        imports = self._cache.imports
        if imports is None or not imports.may_hit(self._step.shape.digest):
            return None
        content = self._step.content()
        shared = imports.find(self._key(content))
        return None if shared is None else self._found_elsewhere(shared, content)

    def _found_here(self, record: Record) -> RootState:
        if not record.diff_id:  # the step was unneeded
            return self._state(None, None, True)
        chain = self._parent.chain()
        expected = chain_ids((Digest(chain), record.diff_id))[-1] if chain else record.diff_id
        if not record.snapshot:
            return self._without_files(Made("", record.diff_id, expected, record.made, record.size))
        if record.chain_id != expected:
            return self._rebase(record, expected)
        made = Made(record.snapshot, record.diff_id, record.chain_id, record.made, record.size)
        return self._state(record.snapshot, made, True)

    def _found_elsewhere(self, shared: SharedRecord, content: Content) -> RootState:
        """The state without files: they come at first use (`builder.sharing.imports`)."""
        chain = self._parent.chain()
        made = None
        chain_id = Digest(chain)
        if shared.diff_id:
            chain_id = chain_ids((Digest(chain), shared.diff_id))[-1] if chain else shared.diff_id
            made = Made("", shared.diff_id, chain_id, shared.made, shared.size)
        self._owner.keys[self._vertex.digest] = shared.key
        self._owner._borrowed.append(
            _Borrowed(
                shared,
                chain_id,
                self._step.shape,
                content,
                self._owner._place_of(self._vertex),
                chain,
                self._notes(),
            )
        )
        return self._state(None, None, True) if made is None else self._without_files(made)

    def _without_files(self, made: Made) -> RootState:
        def bring() -> str | None:
            if (found := self._store.snapshots.by_chain(made.chain_id)) is not None:
                return found.id
            if self._cache.imports is None:
                raise ImportFailed
            return self._cache.imports.snapshot(
                (*self._parent.diff_ids(), made.diff_id), self._parent.bottom(), self._cancel
            )

        return RootState(
            parent=self._parent,
            unpack=bring,
            made=made,
            cached=True,
            definition=self._definition,
            is_here=lambda: self._store.snapshots.by_chain(made.chain_id) is not None,
        )

    def _key(self, content: Content) -> str:
        root = "" if self._step.independent else self._parent.chain()
        return cache_key(self._step.shape, root, content)

    def _rebase(self, record: Record, chain_id: Digest) -> RootState:
        """The layer of a `COPY --link` on another root: the same files by hard links, nothing is read (A-72)."""
        known = self._store.snapshots.by_chain(chain_id)
        if known is None and not self._parent.is_here():
            made = Made("", record.diff_id, chain_id, record.made, record.size)
            return self._alone(record.snapshot, made, cached=True)
        snapshot = (
            known.id
            if known is not None
            else linked(self._store, record.snapshot, self._parent, record.diff_id, record.size)
        )
        return self._state(snapshot, Made(snapshot, record.diff_id, chain_id, record.made, record.size), True)

    def _alone(self, snapshot: str, made: Made | Task[Made], *, cached: bool) -> RootState:
        """The state after a `COPY --link` whose root is elsewhere."""

        def moved(joined: str, chain_id: Digest) -> None:
            self._cache.moved(self._owner.keys[self._vertex.digest], joined, chain_id)

        return standing_alone(
            self._store, snapshot, self._parent, made, moved, cached=cached, definition=self._definition
        )

    # --- doing ----------------------------------------------------------------------------------------------------

    def _carry_out(self, lock: StepLock) -> RootState:
        with ExitStack() as stack:
            waits = not self._parent.is_here()
            alone = waits and self._step.independent
            if waits and not alone:
                self._read_beside()
            draft = stack.enter_context(
                self._store.snapshots.prepare(None if alone else self._parent.snapshot())
            )
            try:
                with faults_of_the_host(f"cannot carry out {self._vertex.label}"):
                    outcome = self._step.execute(draft)
            except StepFailed as error:
                self._keep_failed(draft, error)
                raise
            if outcome.unneeded:
                self._record(Made("", Digest(""), Digest(self._parent.chain()), time.time_ns()), outcome)
                lock.release()
                return self._state(None, None, False)
            reused = outcome.empty and draft.parent is not None
            if reused:
                # The root stands for it. Taking the draft away can wait, and is slow while the kernel takes the
                # container's overlay apart.
                snapshot = self._store.snapshots.get(draft.parent or "")
                stack.callback(lock.release)
                later = stack.pop_all()
            else:
                snapshot = draft.commit()
                later = ExitStack()
                later.callback(lock.release)
        assert self._owner._hashing is not None
        task = self._owner._hashing.submit(
            self._identify, snapshot, outcome, draft.lowers, reused, self._made_ns(), later, alone
        )
        if alone:
            return self._alone(snapshot.id, task, cached=False)
        return self._state(snapshot.id, task, False)

    def _read_beside(self) -> None:
        """Read what the step takes from the client while its root is still on its way."""
        if all(isinstance(state, FilesState) for state in self._inputs[1:]):
            self._step.content()

    def _keep_failed(self, draft: Draft, error: StepFailed) -> None:
        from builder.failed import keep_failed
        from builder.operations.exec import ExecStep

        assert isinstance(self._step, ExecStep), "only a command fails"
        # The step's own failure is what has to be told, not that a full disk keeps us from looking at it later.
        with suppress(PipeError):
            if keep_failed(self._store, draft, self._parent, self._vertex, self._step.binds):
                error.hint = error.hint or "look around with `pipe shell --last-failed`"

    def _made_ns(self) -> int:
        epoch = self._owner._setting.epoch
        return time.time_ns() if epoch is None else epoch * 10**9

    def _identify(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        lowers: Sequence[str],
        reused: bool,
        made_ns: int,
        later: ExitStack,
        alone: bool,
    ) -> Made:
        """Hash the layer, name the chain, keep the record: the end of a step, beside the next one's beginning.

        It may wait for the root's own hash. That was submitted earlier to the same first-in-first-out pool, so it runs
        or has run.
        """
        from runtime.store.layers import EMPTY_LAYER

        assert self._owner._hashing is not None
        with ExitStack() as stack:
            # Taking a draft away waits until the kernel has taken the container's overlay apart: nobody else need.
            stack.callback(self._owner._hashing.submit, later.close)
            if outcome.empty:
                diff_id, size = EMPTY_LAYER.diff_id, EMPTY_LAYER.size
            elif outcome.diff_id is not None:
                diff_id, size = outcome.diff_id, outcome.size
            else:
                from builder.operations.reading import SecondReader
                from runtime.store.layers import hash_layer

                # The layer of a COPY --link is the same on any root.
                below = () if self._step.independent else lowers
                with SecondReader(self._owner._workshop.helper) as beside:
                    info = hash_layer(self._store.snapshots.path(snapshot.id), lowers=below, beside=beside)
                diff_id, size = info.diff_id, info.size
            chain = self._parent.chain()
            chain_id = chain_ids((Digest(chain), diff_id))[-1] if chain else diff_id
            made = Made("" if alone else snapshot.id, diff_id, chain_id, made_ns, size)
            # What is waited for here must not be waited for within the transaction: it needs one itself.
            taken = [(state.chain(), selector, digest) for state, selector, digest in outcome.taken]
            with self._store.db.transaction():
                if reused:
                    self._store.snapshots.link_chain(chain_id, chain or None, diff_id, snapshot.id)
                else:
                    on = None if alone else chain or None
                    self._store.snapshots.identify(snapshot.id, diff_id, size, below=on)
                self._record(Made(snapshot.id, diff_id, diff_id, made_ns, size) if alone else made, outcome)
                for each in taken:
                    self._cache.remember_content(*each)
            return made

    def _record(self, made: Made, outcome: Outcome) -> None:
        key, label = self._key(outcome.content), self._vertex.label
        record = Record(key, label, made.snapshot, made.diff_id, made.chain_id, made.made, made.size)
        self._cache.put(
            record,
            self._step.shape,
            outcome.content,
            place=self._owner._place_of(self._vertex),
            root=self._parent.chain(),
            notes={**self._notes(), **self._elsewhere()},
        )
        self._owner.keys[self._vertex.digest] = key

    def _elsewhere(self) -> dict[str, Any]:
        """The nearest step that was known elsewhere: `pipe why` has nothing else to compare with in a new store."""
        imports = self._cache.imports
        if imports is None:
            return {}
        near = imports.nearest(self._step.shape.kind, self._vertex.label.partition("]")[0])
        if near is None:
            return {}
        return {"elsewhere": {"key": near.key, "label": near.label, **near.fields, "files": list(near.files)}}

    def _notes(self) -> dict[str, str]:
        image = self._parent.image
        return {"base": image.manifest_digest or image.id} if image is not None else {}
