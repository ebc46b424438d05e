"""The flags before the command, and the settings that come of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from pipeline.cli.flags import Flag, Flags
from pipeline.cli.session import Session
from pipeline.settings import environment, load_settings

TABLE = (
    Flag("root", "one", "The store's directory.", metavar="DIR"),
    Flag("progress", "one", "auto, tty, plain, jsonl, quiet or none.", metavar="KIND"),
    Flag("debug", "switch", "Log to stderr and show tracebacks."),
)

_FLAGS = Flags("pipe", TABLE)


def read_flags(arguments: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Those given, and the words from the command on; InvalidInput when there is something else in front of it."""
    given: dict[str, str] = {}

    def take(flag: Flag, text: str) -> None:
        given[flag.name] = text

    return given, _FLAGS.read(arguments, take, mixed=False)


def begin(session: Session, given: Mapping[str, str]) -> None:
    """Load the settings; with `debug` log from now on."""
    session.settings = load_settings(given, environment())
    if session.settings.debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
