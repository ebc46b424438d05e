"""Which time everything in an image is set to: what SOURCE_DATE_EPOCH comes to (FEATURES A-98).

A build argument counts first, then the caller's own (his environment), then the default of a global ARG. Besides seconds,
an argument may say `context` or name a further context (the commit, `Last-Modified` or newest entry of a remote one; a
directory has no time that would mean anything, so nothing is set), or name a stage that is exactly one ADD of a remote on `scratch`. This module decides;
it fetches nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry_client.values import frozen
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    from builder.dockerfile import Dockerfile
    from builder.dockerfile.ast import Add, Stage
    from builder.graph import GitSource, HttpSource
    from builder.lower import LowerOptions
    from runtime.spans import Span

NAME = "SOURCE_DATE_EPOCH"
_HINT = "want seconds since 1970, `context`, or a stage that is a single ADD of a URL FROM scratch"


@frozen
class Moments:
    """Who knows the special times: that of the context, and how to find a remote's (which fetches it)."""

    context: int | None
    remote: Callable[[GitSource | HttpSource], int | None]


def parse_epoch(text: str, span: Span | None = None, hint: str = "want seconds since 1970") -> int:
    """Seconds since 1970 (reproducible-builds.org/specs/source-date-epoch)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise InvalidInput(f"{NAME} is {text!r}", span, hint=hint)
    return int(text)


def resolve_epoch(
    dockerfile: Dockerfile, options: LowerOptions, own: int | None, moments: Moments
) -> int | None:
    """The time, None when there is none. `own` is the caller's, from his environment."""
    if own is not None and NAME not in options.build_args:
        return own
    text = _text(dockerfile, options)
    if not text:
        return None
    if text == "context":
        return moments.context
    if text in options.contexts:
        return _of_named_context(options.contexts[text], moments)
    stage = next((each for each in dockerfile.stages if each.name and each.name == text.lower()), None)
    if stage is None:
        return parse_epoch(text, _place(dockerfile), _HINT)
    return moments.remote(_only_remote(stage))


def _of_named_context(value: str, moments: Moments) -> int | None:
    from builder.lower.remotes import remote_source

    try:
        source = remote_source(value)
    except ValueError as error:
        raise InvalidInput(f"build context {value}: {error}") from error
    return None if source is None else moments.remote(source)


def is_declared(dockerfile: Dockerfile) -> bool:
    """Whether a global ARG names it."""
    return _place(dockerfile) is not None


def _text(dockerfile: Dockerfile, options: LowerOptions) -> str:
    if (given := options.build_args.get(NAME)) is not None:
        return given
    if not is_declared(dockerfile):
        return ""
    from builder.lower.arguments import global_arguments

    return global_arguments(dockerfile, options).get(NAME, "")


def _place(dockerfile: Dockerfile) -> Span | None:
    """Where a global ARG declares it."""
    for arg in dockerfile.arguments:
        if any(each.name == NAME for each in arg.arguments):
            return arg.node.span
    return None


def _only_remote(stage: Stage) -> GitSource | HttpSource:
    from builder.dockerfile.ast import Add
    from builder.lower.remotes import remote_source

    adds = [command for command in stage.commands if isinstance(command, Add)]
    if stage.base == "scratch" and len(stage.commands) == len(adds) == 1 and len(adds[0].sources) == 1:
        try:
            source = remote_source(adds[0].sources[0])
        except ValueError as error:
            raise adds[0].node.error(str(error), adds[0].sources[0]) from error
        if source is not None:
            return _with_flags(source, adds[0])
    raise InvalidInput(f"{NAME} names stage {stage.name}, which has no time", stage.span, hint=_HINT)


def _with_flags(source: GitSource | HttpSource, add: Add) -> GitSource | HttpSource:
    """With the checksum of the ADD: what is fetched for its time is what the stage will use."""
    from registry_client.values import replace

    return replace(source, checksum=add.checksum) if add.checksum else source
