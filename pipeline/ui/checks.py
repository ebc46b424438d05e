"""What build checks found, as lines: one where it comes up, and all of it together at the end, as buildx does."""

from __future__ import annotations

from runtime.events import Warned

_RULER = "-" * 20


def warning_text(event: Warned) -> str:
    """`message (place)`, for a check `Rule: message (line N)`."""
    if event.rule:
        return f"{event.rule}: {event.message}{_line(event)}"
    return f"{event.message} ({event.span})" if event.span else event.message


def _line(event: Warned) -> str:
    return f" (line {event.span.line})" if event.span else ""


class CheckSummary:
    """Gathers the warnings of checks, by file and line. `expand`: with what the rule is about, its page and the lines of the file."""

    def __init__(self, *, expand: bool) -> None:
        self._expand = expand
        self._found: list[Warned] = []

    def add(self, event: Warned) -> bool:
        """Whether it is a check's, and will be in `text`."""
        if event.rule:
            self._found.append(event)
        return bool(event.rule)

    def text(self) -> str:
        """The lines of all, empty when there is nothing to say; a file's name only where there are several."""
        count = len(self._found)
        if not count:
            return ""
        head = f"{count} warning{'s' * (count > 1)} found"
        lines = [f"{head}:" if self._expand else f"{head} (use --debug to expand):"]
        several = len({event.span.source.name for event in self._found if event.span}) > 1
        for event in sorted(
            self._found, key=_place
        ):  # images that are built at once tell theirs in any order
            name = f"{event.span.source.name}: " if several and event.span else ""
            lines.append(f" - {name}{warning_text(event)}")
            if self._expand:
                lines += _more(event)
        return "\n".join(lines)


def _place(event: Warned) -> tuple[str, int]:
    return (event.span.source.name, event.span.line) if event.span else ("", 0)


def _more(event: Warned) -> list[str]:
    lines = [event.detail, f"More info: {event.url}"]
    if event.span and event.span.source.text:
        place = f"{event.span.source.name}:{event.span.line}"
        lines += [place, _RULER, event.span.excerpt(), _RULER]
    return [*lines, ""]
