"""The events of a build as the text of docker's classic builder: `Step 2/5 : RUN make`, and what the step prints.

Our steps run side by side, the text is in the Dockerfile's order: what a step says is held until all before it have
been told. There are no intermediate images and containers, so ` ---> ID` stands only at the end, where there is one.
"""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.graph import Exec, StageGraph, Vertex
from builder.solver import reachable
from runtime.daemon.wire import progress_record
from runtime.errors import InvalidInput, PipeError, StepFailed
from runtime.events import Event, Finished, Outcome, Output, Progress, Warned

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.request import BuildResult
    from runtime.daemon.streams import Tell
    from runtime.images.image import Image

_RED = "\x1b[91m{}\x1b[0m"  # how docker marks what goes to standard error


class _Step:
    """One instruction, and what it has said so far. `node` is "" for one that only changes the config."""

    def __init__(self, text: str, node: str = "", vertex: Vertex | None = None) -> None:
        self.text, self.node, self.vertex = text, node, vertex
        self.said: list[dict[str, Any]] = []
        self.begun = False
        self.outcome: Outcome | None = None
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}

    def decoded(self, stream: str, data: bytes, final: bool = False) -> str:
        """Text of whole characters."""
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoders[stream].decode(data, final)


class Transcript:
    """Takes events from any thread; `tell` gets records of the API. With `quiet` only a failure is told, and the id."""

    def __init__(self, tell: Tell, node: str, *, quiet: bool, labels: Mapping[str, str]) -> None:
        self._tell, self._node, self._quiet, self._labels = tell, node, quiet, labels
        self._lock = threading.Lock()
        self._steps: list[_Step] = []
        self._by_node: dict[str, _Step] = {}
        self._at = 0
        self._held: list[dict[str, Any]] = []  # of a quiet build
        self._unconsumed: list[str] = []

    # --- from the build -------------------------------------------------------------------------------------------

    def begin(self, dockerfile: Dockerfile, graphs: Sequence[StageGraph]) -> None:
        """What the steps are; called once the graph is made."""
        with self._lock:
            if self._steps:
                return
            self._steps = list(_steps(dockerfile, graphs, self._node))
            if self._labels:
                words = " ".join(f"{name}={value}" for name, value in sorted(self._labels.items()))
                self._steps.append(_Step(f"LABEL {words}"))
            for step in self._steps:
                self._by_node.setdefault(step.node, step)
            self._advance()

    def emit(self, event: Event) -> None:
        """An `Emit`."""
        with self._lock:
            if isinstance(event, Progress):
                if not self._quiet:
                    self._tell(progress_record("Downloading", event.item, event.current, event.total))
            elif isinstance(event, Warned):
                self._warn(event)
            elif (
                isinstance(event, (Output, Finished)) and (step := self._by_node.get(event.node)) is not None
            ):
                self._hear(step, event)
                self._advance()

    def _hear(self, step: _Step, event: Output | Finished) -> None:
        if isinstance(event, Output):
            self._say(step, event.stream, step.decoded(event.stream, event.data))
            return
        for stream in ("stdout", "stderr"):
            self._say(step, stream, step.decoded(stream, b"", final=True))
        step.outcome = event.outcome

    @staticmethod
    def _say(step: _Step, stream: str, text: str) -> None:
        if text:
            step.said.append({"stream": _RED.format(text) if stream == "stderr" else text})

    def _warn(self, event: Warned) -> None:
        prefix, suffix = "build argument ", " was not consumed"
        if event.message.startswith(prefix) and event.message.endswith(suffix):
            self._unconsumed.append(event.message[len(prefix) : -len(suffix)])

    def _advance(self) -> None:
        """Tell what is due: all of the steps before the first one that still runs, and what that one has said."""
        while self._at < len(self._steps):
            step = self._steps[self._at]
            self._head(step)
            source = self._by_node[step.node] if step.node else step
            said, source.said = source.said, []
            for record in said:
                self._put(record)
            if source.node and source.outcome is None:
                return
            if source.outcome == Outcome.CACHED:
                self._put({"stream": " ---> Using cache\n"})
            if source.outcome not in (None, Outcome.DONE, Outcome.CACHED):
                return
            self._at += 1

    def _head(self, step: _Step) -> None:
        if not step.begun:
            step.begun = True
            self._put({"stream": f"Step {self._at + 1}/{len(self._steps)} : {step.text}"})
            self._put({"stream": "\n"})

    def _put(self, record: dict[str, Any]) -> None:
        if self._quiet:
            self._held.append(record)
        else:
            self._tell(record)

    # --- the end --------------------------------------------------------------------------------------------------

    def end(self, result: BuildResult, image: Image) -> None:
        with self._lock:
            if self._quiet:
                self._tell({"stream": f"{result.image_id}\n"})
                return
            self._put({"stream": f" ---> {image.short_id}\n"})
            self._put({"aux": {"ID": result.image_id}})
            if self._unconsumed:
                names = " ".join(self._unconsumed)
                self._put({"stream": f"[Warning] One or more build-args [{names}] were not consumed\n"})
            self._put({"stream": f"Successfully built {image.short_id}\n"})
            for tag in result.tags:
                self._put({"stream": f"Successfully tagged {_familiar(tag)}\n"})

    def fail(self, error: BaseException) -> None:
        """Tell the step that failed, where others before it still wait, and what a quiet build held back."""
        with self._lock:
            for number, step in enumerate(self._steps):
                if step.outcome == Outcome.FAILED and number >= self._at:
                    self._at = number
                    self._head(step)
                    for record in step.said:
                        self._put(record)
                    if isinstance(error, StepFailed) and step.vertex is not None:
                        _in_dockers_words(error, step.vertex)
                    break
            if (
                not self._steps
                and isinstance(error, PipeError)
                and error.span
                and not isinstance(error, InvalidInput)
            ):
                # A base image that cannot be had: to docker's clients the build began, and failed.
                self._put({"stream": error.span.source.lines()[error.span.line - 1] + "\n"})
            for record in self._held:
                self._tell(record)


def _in_dockers_words(error: StepFailed, vertex: Vertex) -> None:
    """Clients show this sentence, and some look for it."""
    if isinstance(vertex.operation, Exec):
        command = " ".join(vertex.operation.argv)
        error.message = f"The command '{command}' returned a non-zero code: {error.exit_code}"
        error.span, error.hint = None, ""


def _familiar(tag: str) -> str:
    from registry_client.reference import parse_reference

    return parse_reference(tag).familiar


# --- which steps there are ------------------------------------------------------------------------------------------


def _steps(dockerfile: Dockerfile, graphs: Sequence[StageGraph], node: str) -> Iterator[_Step]:
    """The instructions of the stages that are needed, in the file's order, each with the vertex that does it."""
    numbers = {
        vertex.digest: number for number, vertex in enumerate(reachable([graph.root for graph in graphs]), 1)
    }
    by_line: dict[int, Vertex] = {}
    for vertex in _all_vertices([graph.root for graph in graphs]):
        if vertex.span is not None and vertex.label.startswith("["):
            by_line[vertex.span.line] = vertex
    needed = _needed(dockerfile, {graph.index for graph in graphs}, by_line)
    for stage in dockerfile.stages:
        if stage.number not in needed:
            continue
        for written in (stage.start.node, *(command.node for command in stage.commands)):
            made = by_line.get(written.span.line)
            name = f"{node}/{numbers[made.digest]}" if made is not None else ""
            yield _Step(written.original.strip(), name, made)


def _all_vertices(roots: Sequence[Vertex]) -> Iterator[Vertex]:
    """Every vertex object: equal ones of several stages stand at several places of the file."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        vertex = waiting.pop()
        if id(vertex) not in seen:
            seen.add(id(vertex))
            waiting.extend(vertex.inputs)
            yield vertex


def _needed(dockerfile: Dockerfile, targets: set[int], by_line: Mapping[int, Vertex]) -> set[int]:
    """The stages of which something is done, and those they are FROM."""
    found = set(targets)
    for stage in dockerfile.stages:
        lines = (stage.span.line, *(command.node.span.line for command in stage.commands))
        if any(line in by_line for line in lines):
            found.add(stage.number)
    for stage in reversed(dockerfile.stages):
        if stage.number in found:
            earlier = [
                each.number for each in dockerfile.stages[: stage.number] if each.name == stage.base.lower()
            ]
            found.update(earlier[-1:])
    return found
