"""Where something stands in a text a person wrote. Lines and columns count from 1; nothing here opens a file."""

from __future__ import annotations

from registry_client.values import field, frozen

# Of an excerpt: nobody reads more, and it would push away what was said before it.
_WIDTH, _ROWS = 200, 40


@frozen
class Source:
    """A named text: the name is what the user would call it (`Dockerfile`, `pipe.yaml`)."""

    name: str
    text: str = field(default="", repr=False, compare=False)

    def line(self, number: int) -> str:
        lines = self.lines()
        return lines[number - 1] if 1 <= number <= len(lines) else ""

    def lines(self) -> list[str]:
        """As files are counted: `str.splitlines` would also end lines at form feeds and the like."""
        return (
            [line.removesuffix("\r") for line in self.text.removesuffix("\n").split("\n")]
            if self.text
            else []
        )


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
        """The source lines around the span, the span's own lines marked with `>>>`; of very much the beginning and the end."""
        lines = self.source.lines()
        first = max(1, self.line - context)
        last = min(len(lines), self.last_line + context)
        rows = []
        for number in range(first, last + 1):
            mark = ">>>" if self.line <= number <= self.last_line else "   "
            text = lines[number - 1]
            text = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
            rows.append(f"{number:4} | {mark} {text}".rstrip())
        if len(rows) > _ROWS:
            half = _ROWS // 2
            rows[half:-half] = [f"     | {len(rows) - 2 * half} more lines"]
        return "\n".join(rows)
