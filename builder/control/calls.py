"""What a client wants to know of a Dockerfile instead of a build: `docker build --check` and `--call=outline|targets`.

BuildKit's front end calls these subrequests. The answer is JSON in its shape and the same as text; the client shows
either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from builder.checks import check_source, outline_of, targets_of
from builder.checks import report as reports
from builder.control.sources import Sources
from builder.dockerfile import parse_dockerfile
from builder.lower import LowerOptions, ResolvedBase
from runtime.errors import InvalidInput, PipeError
from runtime.grpc.status import Code, GrpcError

if TYPE_CHECKING:
    from builder.ignore import Patterns
    from builder.lower import BaseWanted
    from builder.request import BuildRequest
    from runtime.images.images import Images

_KINDS = {
    "frontend.lint": "Check the Dockerfile without building it",
    "frontend.outline": "List the arguments, secrets, agents and caches of a target",
    "frontend.targets": "List the targets of the Dockerfile",
}
_DESCRIBE = "frontend.subrequests.describe"


def answer(kind: str, sources: Sources, request: BuildRequest, images: Images) -> dict[str, bytes]:
    """The metadata of the result."""
    if kind == _DESCRIBE:
        return _described()
    if kind not in _KINDS:
        raise GrpcError(Code.UNIMPLEMENTED, f"the subrequest {kind!r} is not known")
    if sources.dockerfile is None:
        raise InvalidInput(
            "only a Dockerfile that the client sends can be looked at, not one of a remote context"
        )
    name, text = sources.dockerfile
    options = LowerOptions(
        target=request.target,
        build_args=request.build_args,
        contexts=request.build_contexts,
        network=request.network,
        platform=next(iter(request.platforms), None),
    )
    if kind == "frontend.lint":
        return _checked(text, name, options, sources, images)
    dockerfile = parse_dockerfile(text, name)
    if kind == "frontend.outline":
        outline = outline_of(dockerfile, options)
        return _metadata(reports.outline_json_report(outline, text), reports.outline_text_report(outline))
    targets = targets_of(dockerfile)
    return _metadata(reports.targets_json_report(targets, text), reports.targets_text_report(targets))


def _checked(
    text: bytes, name: str, options: LowerOptions, sources: Sources, images: Images
) -> dict[str, bytes]:
    ignore = _patterns(sources.ignore)
    result = check_source(text, name, options, ignore=ignore)
    if configs := _known_bases(images, result.bases):
        result = check_source(text, name, options, configs, ignore)
    found = _metadata(reports.check_json_report(result, text, name), reports.check_text_report(result))
    wrong = bool(result.findings or result.error or result.failed)
    return {**found, "result.statuscode": b"1" if wrong else b"0"}


def _patterns(ignore: bytes | None) -> Patterns | None:
    from builder.ignore import Patterns

    return Patterns.parse(ignore.decode("utf-8", "surrogateescape")) if ignore else None


def _known_bases(images: Images, wanted: Iterable[BaseWanted]) -> dict[BaseWanted, ResolvedBase]:
    """The base images that are here: what they set makes the checks say more. None is fetched."""
    found: dict[BaseWanted, ResolvedBase] = {}
    for base in wanted:
        try:
            image = images.resolve(base.reference, platform=None, pull="never")
        except PipeError:
            continue
        found[base] = ResolvedBase(image.manifest_digest or image.id, image.config)
    return found


def _described() -> dict[str, bytes]:
    records: list[Mapping[str, Any]] = [
        {
            "name": name,
            "version": "1.0.0",
            "type": "rpc",
            "description": description,
            "opts": [],
            "inputs": [],
            "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
            "refs": [],
        }
        for name, description in _KINDS.items()
    ]
    return _metadata(records, "".join(f"{record['name']}\n" for record in records))


def _metadata(record: Any, text: str) -> dict[str, bytes]:
    return {
        "result.json": json.dumps(record).encode(),
        "result.txt": text.encode("utf-8", "replace"),
        "version": b"1.0.0",
    }
