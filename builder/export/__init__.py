"""What a finished image becomes: names in the store, and the outputs that were asked for (B-13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.request import BuildRequest, BuildResult, OutputMade
from registry_client.values import replace

if TYPE_CHECKING:
    from builder.operations.step import Setting
    from runtime.events import Emit
    from runtime.images.image import Image
    from runtime.images.images import Images
    from runtime.store.store import Store


def export(
    store: Store,
    images: Images,
    request: BuildRequest,
    built: Sequence[Image],
    result: BuildResult,
    setting: Setting,
    emit: Emit,
) -> BuildResult:
    """Tag the image and write the outputs, in the order they were given."""
    tags = tuple(str(images.tag(built[0].id, tag)) for tag in request.tags)
    result = replace(result, tags=tags)
    if not request.outputs:
        return result
    from builder.export.writers import write_output

    made: list[OutputMade] = []
    for wanted in request.outputs:
        setting.cancel.check()
        made.append(write_output(store, images, request, built, wanted, setting))
    digest = next((each.digest for each in made if each.digest), None)
    return replace(result, outputs=tuple(made), manifest_digest=digest or result.manifest_digest)
