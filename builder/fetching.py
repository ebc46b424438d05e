"""The base layers one build gets from registries: each image once, in threads of its own, beside the steps.

An image is begun when it is certain that its files are needed: for the result, for a step no record can match, or by
whoever asks for them. Who waits lends its place in the pool of steps to others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from builder.graph import Copy, Exec, ImageSource, MakeDirectory, Vertex
from builder.keys import Surroundings, copy_shape, directory_shape, exec_shape
from builder.pools import Pool, Task
from builder.solver import reachable
from runtime.cancel import Cancel
from runtime.errors import Cancelled, PipeError
from runtime.images.image import Image

if TYPE_CHECKING:
    from builder.bases import Bases
    from builder.cache import Cache
    from builder.graph import Operation, StageGraph
    from builder.keys import Shape
    from builder.operations.step import Setting
    from runtime.images.images import Images
    from runtime.images.remote import RemoteImage

_IMAGES_AT_ONCE = 3


class Fetching:
    """A context manager; at its end nothing is under way any more. A fetch that fails ends the build: `error` says why."""

    def __init__(self, images: Images, steps: Pool, cancel: Cancel, node: str) -> None:
        self._images, self._steps, self._node = images, steps, node
        self._build, self._cancel = cancel, Cancel()
        self._pool: Pool | None = None
        self._tasks: dict[str, Task[Image]] = {}
        self._lock = threading.Lock()
        self.error: PipeError | None = None

    def begin(self, remote: RemoteImage) -> Task[Image]:
        """See to it that the image's layers come; what will be there when they have."""
        with self._lock:
            if self._pool is None:
                self._pool = Pool("fetch", _IMAGES_AT_ONCE)
            known = self._tasks.get(remote.image.id)
            if known is None:
                node = f"{self._node}/pull-{len(self._tasks) + 1}"
                known = self._tasks[remote.image.id] = self._pool.submit(self._bring, remote, node)
            return known

    def _bring(self, remote: RemoteImage, node: str) -> Image:
        try:
            return remote.bring(self._cancel, node, self._node)
        except PipeError as error:
            if not isinstance(error, Cancelled):
                self.error = self.error or error
                self._build.cancel(f"{remote.reference.familiar} cannot be had")
            raise

    def files(self, remote: RemoteImage) -> str | None:
        """The snapshot of the image's files, when they have come."""
        task = self._tasks.get(remote.image.id)
        if task is None and not remote.is_unpacked:
            task = self.begin(remote)
        if task is not None:
            with self._steps.lent(), self._build.on_cancel(lambda: self._cancel.cancel(self._build.reason)):
                task.result()
        return self._images.snapshot(remote.image, self._build)

    def __enter__(self) -> Fetching:
        return self

    def __exit__(self, *error: object) -> None:
        self._cancel.cancel("the build is at its end")
        if self._pool is not None:
            self._pool.close()


def begin_early(
    fetching: Fetching,
    bases: Bases,
    graphs: Sequence[StageGraph],
    results: Sequence[StageGraph],
    setting: Setting,
    cache: Cache,
) -> None:
    """Begin what will be needed in any case: what stands below `results`, and what a step of `graphs` works on."""
    for graph in results:
        base = _remote(bases, graph.base.operation)
        if base is not None and not base.is_here:
            fetching.begin(base)
    for source in surely_used(reachable([graph.root for graph in graphs]), setting.surroundings, cache):
        base = _remote(bases, source)
        if base is not None and not base.is_unpacked:
            fetching.begin(base)


def _remote(bases: Bases, source: Operation) -> RemoteImage | None:
    base = bases[source] if isinstance(source, ImageSource) else None
    return None if isinstance(base, Image) else base


def surely_used(
    vertices: Iterable[Vertex], surroundings: Surroundings, cache: Cache
) -> Iterator[ImageSource]:
    """The bases whose files some step will need: one that is to run again, or that no record can match."""
    for vertex in vertices:
        shape = _shape(vertex, surroundings)
        if shape is None or not (vertex.no_cache or _is_unknown(shape, cache)):
            continue
        operation = vertex.operation
        alone = isinstance(operation, Copy) and operation.link and not operation.owner
        for each in vertex.inputs[1:] if alone else vertex.inputs:
            if (base := _base(each)) is not None:
                yield base


def _shape(vertex: Vertex, surroundings: Surroundings) -> Shape | None:
    operation = vertex.operation
    if isinstance(operation, Exec):
        return exec_shape(operation, surroundings)
    if isinstance(operation, Copy):
        return copy_shape(operation, surroundings)
    if isinstance(operation, MakeDirectory):
        return directory_shape(operation, surroundings)
    return None


def _is_unknown(shape: Shape, cache: Cache) -> bool:
    return not cache.may_hit(shape) and (cache.imports is None or not cache.imports.may_hit(shape.digest))


def _base(vertex: Vertex) -> ImageSource | None:
    """What the root of a step stands on."""
    while vertex.inputs:
        vertex = vertex.inputs[0]
    return vertex.operation if isinstance(vertex.operation, ImageSource) else None
