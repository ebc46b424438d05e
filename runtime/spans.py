"""Where something stands in a text a person wrote. Lines and columns count from 1; nothing here opens a file."""

from __future__ import annotations

from registry_client.values import field, frozen


@frozen
class Source:
    """A named text: the name is what the user would call it (`Dockerfile`, `pipe.yaml`)."""

    name: str
    text: str = field(default="", repr=False, compare=False)

    def line(self, number: int) -> str:
        lines = self.text.splitlines()
        return lines[number - 1] if 1 <= number <= len(lines) else ""


@frozen
class Span:
    """From `line`:`column` to the end of `end_line`; `end_line` 0 means the same line."""

    source: Source
    line: int
    column: int = 1
    end_line: int = 0

    @property
    def last_line(self) -> int:
        return max(self.line, self.end_line)

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self, context: int = 2) -> str:
        """The source lines around the span, the span's own lines marked with `>>>`."""
        lines = self.source.text.splitlines()
        first = max(1, self.line - context)
        last = min(len(lines), self.last_line + context)
        rows = []
        for number in range(first, last + 1):
            mark = ">>>" if self.line <= number <= self.last_line else "   "
            rows.append(f"{number:4} | {mark} {lines[number - 1]}".rstrip())
        return "\n".join(rows)
