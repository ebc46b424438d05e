"""What a finished image becomes: names in the store, and the outputs that were asked for (B-13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.built import Built, native
from builder.request import BuildResult, OutputMade
from registry_client.values import replace

if TYPE_CHECKING:
    from builder.built import Occasion
    from builder.operations.step import Setting
    from runtime.images.images import Images
    from runtime.store.store import Store


def export(
    store: Store,
    images: Images,
    occasion: Occasion,
    built: Sequence[Built],
    result: BuildResult,
    setting: Setting,
) -> BuildResult:
    """Tag the image and write the outputs, in the order they were given."""
    request = occasion.request
    named = native(built) if request.tags and len(built) > 1 else built[0]
    own = request.tags if named.stored else ()
    tags = tuple(str(images.tag(named.image.id, tag)) for tag in own)
    if len(built) > 1:
        for tag in own:
            images.tag_platforms([each.image for each in built], tag)
    result = replace(result, tags=tags)
    if request.pinned:
        from builder.cache import Cache
        from builder.pins import pins
        from runtime.errors import Unsupported

        if len(built) > 1:
            raise Unsupported("--pin-lock of several platforms", hint="build them one by one")
        result = replace(result, pins=pins(images, Cache(store), built[0]))
    if not request.outputs and not request.metadata and not request.attest:
        return result
    from builder.export.attest import Attestor
    from builder.export.writers import Writer

    attestor = Attestor(store, images, occasion, setting.emit)
    writer = Writer(store, images, occasion, built, setting, attestor)
    made: list[OutputMade] = []
    for wanted in request.outputs:
        setting.cancel.check()
        made.append(writer.write(wanted))
    if not named.stored:
        for tag in request.tags:
            images.untag(tag)  # what is called so here is not what was pushed under that name
    writer.warn_of_what_nobody_carries()
    digest = next((each.digest for each in made if each.digest), None)
    if request.metadata:
        mode = request.attest.provenance or "min"
        said = {str(each.platform): attestor.provenance(each, mode).predicate for each in built}
        result = replace(result, provenance=said)
    return replace(result, outputs=tuple(made), manifest_digest=digest or result.manifest_digest)
