"""Find the heredocs a logical line announces (FEATURES A-79). Their bodies are read by `reader.py`."""

from __future__ import annotations

import re

from builder.dockerfile.nodes import Heredoc
from builder.dockerfile.words import Lexer, WordError

_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)")
# As written: what is set is none of our business. `cat << EOF` announces one too, blanks and all.
_LINE = Lexer(raw_quotes=True, raw_escapes=True, keep_unset=True, joins_heredocs=True)
_PLAIN = Lexer(keep_unset=True)
_QUOTED = Lexer(raw_quotes=True, keep_unset=True)


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc a word stands for, without its body; None for any other word."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    descriptor, chomp, name = match.groups()
    try:
        plain, quoted = _PLAIN.words(name), _QUOTED.words(name)
    except WordError:
        return None
    if len(plain) != 1:
        return None
    # Any quote in the delimiter means "not expanded"; a backslash does not.
    return Heredoc(plain[0], expand=plain == quoted, chomp=bool(chomp), descriptor=int(descriptor or 0))


def heredocs_of_line(line: str) -> list[Heredoc]:
    """All of a line, in order. A line that is no shell word sequence (open quotes) has none."""
    if "<<" not in line:
        return []
    try:
        words = _LINE.words(line)
    except WordError:
        return []
    return [heredoc for word in words if (heredoc := parse_heredoc(word))]
