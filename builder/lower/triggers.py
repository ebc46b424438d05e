"""ONBUILD triggers of a base image, as instructions of the stage that is built on it (FEATURES A-53)."""

from __future__ import annotations

from collections.abc import Iterable

from builder.dockerfile.ast import Command, From
from builder.dockerfile.errors import DockerfileError
from builder.dockerfile.instructions import parse_instruction
from builder.dockerfile.nodes import Node
from builder.dockerfile.reader import read_nodes


def parse_triggers(texts: Iterable[str], start: Node) -> tuple[Command, ...]:
    """The instructions; their place is the FROM line `start`, since their text is in no file here."""
    return tuple(_trigger(text, start) for text in texts)


def _trigger(text: str, start: Node) -> Command:
    try:
        nodes = read_nodes(text, "ONBUILD").nodes
        if len(nodes) != 1:
            raise start.error(f"ONBUILD trigger of the base should be a single instruction: {text!r}")
        command = parse_instruction(nodes[0]._replace(span=start.span, comments=start.comments))
    except DockerfileError as error:
        raise start.error(
            f"in the base's ONBUILD trigger `{text}`: {error.message}", hint=error.hint
        ) from error
    if isinstance(command, From):
        raise start.error(f"FROM is not allowed as an ONBUILD trigger: {text!r}")
    return command
