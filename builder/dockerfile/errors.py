"""The one error of the Dockerfile front end, and how text of a stranger is shown."""

from __future__ import annotations

import re

from runtime.errors import InvalidInput
from runtime.spans import Span

# What would end a line for some and not for others, or move a terminal's cursor; and bytes that were no UTF-8.
# Compiled when there is something to show: that takes half a millisecond.
_UNSHOWABLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"


def showable(text: str) -> str:
    """`text` for a terminal: lines end at `\n` only, and what is no text is U+FFFD."""
    text = text.replace("\r\n", "\n")
    return re.sub(_UNSHOWABLE, "\ufffd", text)


class DockerfileError(InvalidInput):
    """What is written in the Dockerfile cannot be built; `span` says where."""

    def __init__(self, message: str, span: Span | None = None, *, hint: str = "") -> None:
        super().__init__(showable(message), span, hint=showable(hint))
