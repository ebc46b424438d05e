"""What a source policy makes of the sources of a Dockerfile. Imported where there is a policy."""

from __future__ import annotations

import re

from builder.graph import GitSource, HttpSource
from builder.lower.remotes import remote_source
from builder.policy import CHECKSUM, IMAGE, Source, SourcePolicy
from registry_client.reference import parse_reference
from registry_client.values import replace
from runtime.errors import InvalidInput, PipeError, Unsupported
from runtime.spans import Span


def permitted_image(policy: SourcePolicy, reference: str, span: Span | None) -> str:
    """The canonical reference to take."""
    then = _applied(policy, Source(IMAGE + reference), span).identifier
    if not then.startswith(IMAGE):
        raise Unsupported(
            f"source policy: {then!r} in the place of an image", span, hint="an image stays one"
        )
    try:
        return str(parse_reference(then.removeprefix(IMAGE)).or_latest())
    except ValueError as error:
        raise InvalidInput(f"source policy: {then!r}: {error}", span) from error


def permitted_remote(
    policy: SourcePolicy, remote: GitSource | HttpSource, span: Span | None = None
) -> GitSource | HttpSource:
    """The download or checkout to take."""
    if isinstance(remote, HttpSource):
        given = Source(remote.url, {CHECKSUM: remote.checksum} if remote.checksum else {})
        then = _applied(policy, given, span)
        if then == given:
            return remote
        found = remote if then.identifier == remote.url else _parsed(then.identifier, HttpSource, span)
        checksum = then.attributes.get(CHECKSUM, "")
        # The file keeps the name it was asked for by.
        return replace(remote, url=found.url, checksum=checksum) if isinstance(found, HttpSource) else remote
    identifier = git_identifier(remote)
    then = _applied(policy, Source(identifier, {"git.fullurl": remote.url}), span)
    if then.identifier == identifier:
        return remote
    text = then.identifier
    if re.match(r"git://", text) and "://" in remote.url:
        text = remote.url.partition("://")[0] + text.removeprefix("git")  # as it was reached before
    found = _parsed(text, GitSource, span)
    assert isinstance(found, GitSource)
    return replace(remote, url=found.url, ref=found.ref, subdir=found.subdir)


def git_identifier(source: GitSource) -> str:
    """`git://host/repo.git#ref:subdir`, however it is reached."""
    place = re.sub(r"^\w+://(?:[^/@]+@)?|^[^/@:]+@", "", source.url)
    if "://" not in source.url:
        place = place.replace(":", "/", 1)
    fragment = source.ref + (f":{source.subdir}" if source.subdir else "")
    return f"git://{place}" + (f"#{fragment}" if fragment else "")


def _applied(policy: SourcePolicy, source: Source, span: Span | None) -> Source:
    try:
        return policy.apply(source)
    except PipeError as error:
        if error.span is None:
            error.span = span
        raise


def _parsed(text: str, kind: type, span: Span | None) -> GitSource | HttpSource:
    try:
        found = remote_source(text)
    except ValueError as error:
        raise InvalidInput(f"source policy: {text!r}: {error}", span) from error
    if found is None or not isinstance(found, kind):
        raise Unsupported(f"source policy: {text!r} in the place of another kind of source", span)
    return found
