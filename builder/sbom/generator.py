"""A bill of material by somebody else's scanner: an image that follows BuildKit's protocol (docs/attestations/sbom-protocol.md).

It finds the root to look at below `BUILDKIT_SCAN_SOURCE` and leaves in-toto statements as `*.spdx.json` in
`BUILDKIT_SCAN_DESTINATION`. Its run is a build like any other, so it has a sandbox, and a root that was scanned by this very image
is not scanned again. It runs as root, for this host's platform.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from builder.attest.statement import SPDX_DOCUMENT, Attestation
from builder.operations.roots import Root
from builder.request import BuildRequest, BuildResult
from registry_client.reference import parse_reference
from runtime.errors import Conflict, InvalidInput, NotFound, StepFailed, Unsupported

if TYPE_CHECKING:
    from runtime.images.image import Image
    from runtime.images.images import Images

    Build = Callable[[BuildRequest], BuildResult]

SIZE_LIMIT = 40 << 20  # bytes of one statement; what BuildKit takes
_SOURCE, _EXTRAS, _DESTINATION = "/run/src/core/sbom", "/run/src/extras", "/run/out"
_SCANNED = "pipe-scanned"
_DOCKERFILE = """# check=skip=all
FROM --platform=$BUILDPLATFORM {generator}
ENV BUILDKIT_SCAN_SOURCE={source} BUILDKIT_SCAN_DESTINATION={destination}{extras}
USER 0:0
WORKDIR {destination}
WORKDIR {directory}
RUN {mounts} {command}
"""


def generated(
    build: Build, images: Images, request: BuildRequest, image: Image, beside: Sequence[tuple[str, Image]]
) -> tuple[Attestation, ...]:
    """What the generator says of an image, and of others by their names `beside` it; `build` is what it is run by."""
    name = request.attest.generator
    with _scanned(build, _request(images, request, image, beside), images) as top:
        root = Root(top)
        directories = root.directories(root.resolve(_DESTINATION))
        names = os.listdir(directories[0]) if directories else []
        statements = sorted(each for each in names if each.endswith(".spdx.json"))
        found = tuple(_attestation(root, each, name) for each in statements)
    if not found:
        raise StepFailed(f"the generator {name} left no *.spdx.json in {_DESTINATION}")
    return found


@contextmanager
def _scanned(build: Build, request: BuildRequest, images: Images) -> Iterator[str]:
    """The generator's root after its run, at a path."""
    made = build(request)
    try:
        snapshot = images.snapshot(images.get(made.image_id))
        assert snapshot is not None, "a RUN makes a layer"
        with images.store.snapshots.mounted(snapshot) as top:
            yield top
    finally:
        with suppress(NotFound, Conflict):  # another build scans with the same image, and has the same result
            images.remove(made.image_id)


def _request(
    images: Images, request: BuildRequest, image: Image, beside: Sequence[tuple[str, Image]]
) -> BuildRequest:
    name = request.attest.generator
    try:
        parse_reference(name)
    except ValueError as error:
        raise InvalidInput(f"--sbom generator: {error}") from error
    config = images.resolve(name, pull="missing" if request.pull == "auto" else request.pull).config.config
    command = [*(config.entrypoint or ()), *(config.cmd or ())]
    if not command:
        raise InvalidInput(
            f"the generator {name} has no command", hint="its image needs an ENTRYPOINT or CMD"
        )
    places = [(_SCANNED, _SOURCE, image)]
    places += [
        (f"{_SCANNED}-{number}", f"{_EXTRAS}/sbom-{extra}", each)
        for number, (extra, each) in enumerate(beside)
    ]
    text = _DOCKERFILE.format(
        generator=name,
        source=_SOURCE,
        destination=_DESTINATION,
        directory=json.dumps(config.working_dir or "/"),
        extras=f" BUILDKIT_SCAN_SOURCE_EXTRAS={_EXTRAS}" if beside else "",
        mounts=" ".join(f"--mount=type=bind,from={context},target={at}" for context, at, _ in places),
        command=json.dumps(command),
    )
    return BuildRequest(
        context=os.path.join(images.store.root, "empty"),
        dockerfile_text=text.encode(),
        dockerfile="bill of material",
        no_cache=request.no_cache,
        pull=request.pull,
        build_contexts={context: f"docker-image://{each.id}" for context, _, each in places},
        node=f"{request.node}/sbom",
    )


def _attestation(root: Root, name: str, generator: str) -> Attestation:
    place = f"{_DESTINATION}/{name}"
    data = root.read(place.lstrip("/"), SIZE_LIMIT + 1)
    if data is None:
        raise StepFailed(f"the generator {generator} left no file at {place}")
    if len(data) > SIZE_LIMIT:
        raise Unsupported(f"the generator {generator} left more than {SIZE_LIMIT >> 20} MiB in {place}")
    try:
        record: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StepFailed(f"the generator {generator} left no JSON in {place}: {error}") from error
    if (
        not isinstance(record, dict)
        or record.get("predicateType") != SPDX_DOCUMENT
        or "predicate" not in record
    ):
        raise StepFailed(
            f"the generator {generator} left no in-toto statement about {SPDX_DOCUMENT} in {place}"
        )
    return Attestation(SPDX_DOCUMENT, record["predicate"], name)
