"""One build for a client: its files are brought here, it is built, the outputs go back, and what came of it is told."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from builder.build import Builder
from builder.control.attributes import FILES, Output, cache_imports, outputs_of, request_of
from builder.control.caches import ClientCaches
from builder.control.contexts import collect_contexts, passing_directory
from builder.control.filesend import send_output
from builder.control.layouts import ClientLayout
from builder.control.lent import LentAgents, LentCredentials, LentSecrets
from builder.control.messages.common import Bytes, CacheEntry
from builder.control.messages.control import Exporter
from builder.control.needs import context_paths
from builder.control.sessions import Session, Sessions
from builder.control.sources import Sent, Sources
from builder.request import BuildRequest, BuildResult
from registry_client.values import field, frozen, replace
from runtime.cancel import Cancel
from runtime.errors import HostFault, PipeError
from runtime.events import Emit, Event, Finished, Outcome, Started
from runtime.store.durable import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.dockerfile import Dockerfile
    from builder.graph import StageGraph
    from registry_client.credentials import Credentials
    from runtime.images.images import Images
    from runtime.networks.networks import Networks
    from runtime.sandbox.spawner import Spawner
    from runtime.store import Store

NODE = "build"
_UPLOADS = "/moby.upload.v1.Upload/Pull"


@frozen(kw_only=True)
class Ground:
    """What builds stand on, given by whoever opens the daemon. `root` is the store's directory.

    `working` gives images on a store object of their own, which speak to registries with these logins.
    """

    root: str
    working: Callable[[Credentials | None, Emit], AbstractContextManager[Images]]
    networks: Callable[[Store, Emit], Networks] | None
    spawner: Spawner | None
    jobs: int = 4
    version: str = ""
    cancel: Cancel = field(default_factory=Cancel)  # of all builds


@frozen(kw_only=True)
class Wanted:
    """A build as its client asks for it. `inputs` says what its named inputs are: results of other builds."""

    session: str
    attrs: Mapping[str, str] = field(default_factory=dict, hash=False)
    exporters: tuple[Exporter, ...] = ()
    cache_from: tuple[CacheEntry, ...] = ()
    cache_to: tuple[CacheEntry, ...] = ()
    entitlements: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)


@frozen
class Done:
    """The result, and what the client is told about it."""

    result: BuildResult
    response: Mapping[str, str] = field(default_factory=dict, hash=False)


def run_build(ground: Ground, sessions: Sessions, wanted: Wanted, emit: Emit, cancel: Cancel) -> Done:
    """Build, to the end of the last output."""
    with ExitStack() as stack:
        session = sessions.get(wanted.session, cancel)
        scratch = stack.enter_context(passing_directory(ground.root))
        sent = Sent(session, ground.root, NODE, emit, cancel, stack)
        sources = sent.all_but_context(wanted.attrs, wanted.inputs)
        tags, outputs = outputs_of(wanted.exporters, scratch)
        caches = ClientCaches(session, scratch, cancel)
        request = replace(
            request_of(
                wanted.attrs,
                sources=sources,
                tags=tags,
                outputs=[output.wanted for output in outputs],
                cache_from=caches.fetched(cache_imports(wanted.attrs, wanted.cache_from)),
                cache_to=caches.placed(wanted.cache_to),
                entitlements=wanted.entitlements,
            ),
            secrets=LentSecrets(session),
            ssh=stack.enter_context(LentAgents(session, ground.root)),
            node=NODE,
            metadata=bool(wanted.exporters),  # of a build, for its history; not of a result on its way
        )
        images = stack.enter_context(ground.working(LentCredentials(session), emit))
        emit = caches.telling(images.emit)  # what changes in the store also goes to others
        stdin = stack.enter_context(_upload(session, sources, scratch, cancel))

        def lowered(dockerfile: Dockerfile, graphs: Sequence[StageGraph]) -> None:
            # A scanner of software may look at all of it.
            sent.fetch_context(None if request.attest.sbom else context_paths(graphs))

        result = _build(ground, images, request, emit, cancel, stdin, lowered)
        if wanted.exporters:
            _deliver(session, result, tags, outputs, emit, cancel)
        return Done(result, {**_response(result), **caches.sent()})


def _build(
    ground: Ground,
    images: Images,
    request: BuildRequest,
    emit: Emit,
    cancel: Cancel,
    stdin: BinaryIO | None,
    lowered: Callable[[Dockerfile, Sequence[StageGraph]], None],
) -> BuildResult:
    """As `pipe build` does: a look first, which needs neither threads nor mounts."""
    told: list[Event] = []
    looking = Builder(images.store, images, None, None, told.append, cancel)
    looking.on_lowered = lowered
    result = looking.look_up(request)
    if result is not None:
        for event in told:
            emit(event)
        return result
    builder = Builder(
        images.store,
        images,
        ground.networks and partial(ground.networks, images.store, emit),
        ground.spawner,
        emit,
        cancel,
        jobs=ground.jobs,
        stdin=stdin,
    )
    builder.missed = looking.missed
    builder.on_lowered = lowered
    try:
        return builder.build(request)
    finally:
        collect_contexts(ground.root)


@contextmanager
def _upload(session: Session, sources: Sources, scratch: str, cancel: Cancel) -> Iterator[BinaryIO | None]:
    """The archive a client gives as its context."""
    if not sources.upload:
        yield None
        return
    path = os.path.join(scratch, "context.tar")
    with open(path, "wb") as file, session.stream(_UPLOADS, _upload_head(sources.upload), cancel) as stream:
        stream.end_sending()
        for piece in stream.messages(Bytes):
            try:
                file.write(piece.data)
            except OSError as error:
                raise HostFault(f"cannot keep the context: {error.strerror}") from error
    with open(path, "rb") as found:
        os.unlink(path)
        yield found


def _upload_head(name: str) -> list[tuple[str, str]]:
    return [("urlpath", f"/{name}")]


# --- what came of it --------------------------------------------------------------------------------------------------


def _deliver(
    session: Session,
    result: BuildResult,
    tags: tuple[str, ...],
    outputs: tuple[Output, ...],
    emit: Emit,
    cancel: Cancel,
) -> None:
    """Send what goes to the client, and tell of what stays."""
    kept = [output for output in outputs if output.wanted.type not in FILES]
    if kept or not outputs:
        with _told(emit, "image", "exporting to image"):
            _note(emit, "image", f"writing image {result.image_id}")
            for tag in result.tags:
                _note(emit, "image", f"naming to {tag}")
    for output in outputs:
        if output.path:
            what = "files" if output.wanted.type == "local" else "tarball"
            name = (
                f"exporting to {'client directory' if output.wanted.type == 'local' else output.wanted.type}"
            )
            with _told(emit, f"output-{output.number}", name):
                _note(emit, f"output-{output.number}", f"sending {what}")
                if output.as_layout:
                    ClientLayout(session, "export", cancel).send(output.path)
                else:
                    send_output(session, output.number, output.path, cancel)
            remove_tree(output.path)


def _note(emit: Emit, what: str, text: str) -> None:
    from runtime.events import Progress

    emit(Progress(node=f"{NODE}/{what}", item=text, current=1, total=1, unit=""))


@contextmanager
def _told(emit: Emit, what: str, name: str) -> Iterator[None]:
    node = f"{NODE}/{what}"
    emit(Started(node=node, name=name, parent=NODE))
    try:
        yield
    except PipeError as error:
        emit(Finished(node=node, outcome=Outcome.ERROR, error=error.message))
        raise
    emit(Finished(node=node, outcome=Outcome.DONE))


def _response(result: BuildResult) -> dict[str, str]:
    """In the words of BuildKit's image exporter; without a manifest the image's id is its digest, as in docker's own store."""
    names = result.tags or tuple(
        made.dest for made in result.outputs if made.type == "registry" and made.dest
    )
    found = {
        "containerimage.config.digest": str(result.image_id),
        "containerimage.digest": str(result.manifest_digest or result.image_id),
    }
    if names:
        found["image.name"] = ",".join(names)
    if described := next((made.descriptor for made in result.outputs if made.descriptor), None):
        record = json.dumps(dict(described), separators=(",", ":"))
        found["containerimage.descriptor"] = base64.b64encode(record.encode()).decode()
    return found
