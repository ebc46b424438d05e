"""The shell text a stage runs: the user's commands with a mark before each, so that the one that failed can be named.

A command is a line of `run:`, or several where quotes, a heredoc, a compound command or a continuation need them;
`commands` finds the borders with care rather than cleverness: when in doubt, lines stay together. A mark goes to
standard output as `RS nonce number LF`; `MarkReader` takes the marks out of the stream again, whatever the chunks.
"""

from __future__ import annotations

import re
import shlex

from pipeline.config.interpolate import variable_name
from pipeline.spec import Script
from registry_client.values import frozen
from runtime.spans import Span

RECORD_SEPARATOR = b"\x1e"
_OPENERS = {"if": "fi", "case": "esac", "do": "done", "{": "}"}
_CLOSERS = frozenset(_OPENERS.values())
# `for`, `while`, `until` wait for their `do`; then, else, elif stay inside their `if`.
_WAITERS = frozenset(("for", "while", "until", "select"))
_WORD = re.compile(r"[^\s;&|()<>]+")
_COMMAND_START = re.compile(r"(?:^|[;&|(){!]|\b(?:then|do|else|elif|if|while|until)\b)\s*$")


@frozen
class Command:
    """A complete piece of shell text, where it stands, and its first line as the user wrote it."""

    text: str
    span: Span
    title: str = ""


def commands(script: Script) -> tuple[Command, ...]:
    """The script's complete commands, in order."""
    found: list[Command] = []
    written = {variable_name(path): path for path in script.contexts}
    for part in script.parts:
        for offset, text in split_commands(part.text):
            line = part.span.line + offset + 1
            span = Span(part.span.source, line, 1) if part.block else part.span
            found.append(Command(text, span, _title(text, written)))
    return tuple(found)


def _title(text: str, written: dict[str, str]) -> str:
    first, *more = text.strip().splitlines()
    for name, path in written.items():
        first = first.replace("${" + name, "${" + path)
    return f"{first} …" if more else first


def split_commands(text: str) -> list[tuple[int, str]]:
    """`(line offset, text)` of pieces that are complete commands of their own."""
    pieces: list[tuple[int, str]] = []
    scanner = _Scanner()
    start = 0
    lines = text.split("\n")
    for number, line in enumerate(lines):
        scanner.line(line)
        if scanner.complete or number == len(lines) - 1:
            piece = "\n".join(lines[start : number + 1])
            if _has_command(piece):
                pieces.append((start + _leading(lines[start:]), piece.strip("\n")))
            start = number + 1
    return pieces


def _has_command(piece: str) -> bool:
    return any(line.strip() and not line.strip().startswith("#") for line in piece.split("\n"))


def _leading(lines: list[str]) -> int:
    return next((index for index, line in enumerate(lines) if line.strip()), 0)


class _Scanner:
    """Just enough of the shell's grammar to know when a line ends a command."""

    def __init__(self) -> None:
        self.quote = ""
        self.heredocs: list[tuple[str, bool]] = []
        self.nesting: list[str] = []
        self.parens = 0
        self.continued = False

    @property
    def complete(self) -> bool:
        return not (self.quote or self.heredocs or self.nesting or self.parens > 0 or self.continued)

    def line(self, line: str) -> None:
        if self.heredocs:
            word, strip = self.heredocs[0]
            if (line.lstrip("\t") if strip else line) == word:
                self.heredocs.pop(0)
            return
        self.continued = False
        bare = self._strip_quotes(line)
        if self.quote:
            return
        self._count(bare)
        stripped = bare.rstrip()
        self.continued = stripped.endswith(("|", "&&", "||")) or (
            line.endswith("\\") and not line.endswith("\\\\")
        )

    def _strip_quotes(self, line: str) -> str:
        """The line with quoted text and comments replaced, so that words can be counted."""
        out: list[str] = []
        at = 0
        while at < len(line):
            character = line[at]
            if self.quote:
                if character == "\\" and self.quote != "'":
                    at += 1
                elif character == self.quote:
                    self.quote = ""
            elif character == "\\":
                out.append("x")
                at += 1
            elif character in "'\"`":
                self.quote = character
                out.append("x")
            elif character == "#" and (not out or out[-1] in " \t;&|("):
                break
            elif line.startswith("<<", at) and not line.startswith("<<<", at):
                at = self._heredoc(line, at)
                continue
            else:
                out.append(character)
            at += 1
        return "".join(out)

    def _heredoc(self, line: str, at: int) -> int:
        match = re.compile(r"<<(-?)\s*(?:'([^']*)'|\"([^\"]*)\"|\\?([^\s;&|()<>]+))").match(line, at)
        if match is None:
            return at + 2
        self.heredocs.append((match[2] or match[3] or match[4] or "", bool(match[1])))
        return match.end()

    def _count(self, bare: str) -> None:
        self.parens += bare.count("(") - bare.count(")") if "esac" not in self.nesting else 0
        for match in _WORD.finditer(bare):
            word = match[0]
            starts = _COMMAND_START.search(bare[: match.start()]) is not None
            if word == "do" and self.nesting and self.nesting[-1] == "do":
                self.nesting[-1] = "done"
            elif self.nesting and word == self.nesting[-1] and (starts or word == "done"):
                self.nesting.pop()
            elif starts and word in _WAITERS:
                self.nesting.append("do")
            elif starts and word in _OPENERS:
                self.nesting.append(_OPENERS[word])
            elif word.endswith("()") and starts:
                self.continued = True
        if "esac" in self.nesting or bare.count("esac"):
            self.parens = max(self.parens, 0) if "esac" not in self.nesting else 0


# Reads a file into a variable with nothing but the shell itself; a last newline is left out.
_SECRET = """_pipe_secret() {
  _pipe_v= _pipe_s=
  while IFS= read -r _pipe_l || [ -n "$_pipe_l" ]; do _pipe_v="$_pipe_v$_pipe_s$_pipe_l"; _pipe_s='
'; done < "$2"
  export "$1=$_pipe_v"
  unset _pipe_v _pipe_s _pipe_l
}"""


def shell_text(
    parts: tuple[Command, ...],
    after: tuple[Command, ...],
    nonce: str,
    secrets: tuple[tuple[str, str], ...] = (),
) -> str:
    """The file the shell runs. A subshell, so that `exit` in the script still lets `after` run.

    `secrets` are variables and the files they are read from: so they are in no container's configuration.
    """
    lines = [f'_pipe_at() {{ printf \'\\036{nonce} %s\\n\' "$1"; return "$2"; }}']
    if secrets:
        lines += [_SECRET, *(f"_pipe_secret {name} {shlex.quote(path)}" for name, path in secrets)]
    lines += ["(", "set -e", "if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi"]
    for number, command in enumerate(parts):
        # Restores $? for the command without ending the shell: the left side of && is exempt from -e (XCU set -e).
        lines += [f"_pipe_at {number} $? && :", command.text]
    lines += [")", "_pipe_code=$?"]
    if after:
        lines.append("(")
        for number, command in enumerate(after, len(parts)):
            lines += [f"_pipe_at {number} $? && :", command.text]
        lines.append(")")
    lines.append("exit $_pipe_code")
    return "\n".join(lines) + "\n"


class MarkReader:
    """Takes marks out of a stream. `feed` gives pieces: bytes of output, or the number of the command that begins."""

    def __init__(self, nonce: str) -> None:
        self._mark = re.compile(RECORD_SEPARATOR + re.escape(nonce.encode()) + rb" (\d+)\n")
        self._prefix = RECORD_SEPARATOR + nonce.encode() + b" "
        self._kept = b""

    def feed(self, data: bytes) -> list[bytes | int]:
        text, self._kept = self._kept + data, b""
        found: list[bytes | int] = []
        at = 0
        for match in self._mark.finditer(text):
            if match.start() > at:
                found.append(text[at : match.start()])
            found.append(int(match[1]))
            at = match.end()
        rest = text[at:]
        keep = self._beginning(rest)
        if keep > 0:
            found.append(rest[:keep])
        self._kept = rest[keep:]
        return found

    def _beginning(self, rest: bytes) -> int:
        """Where an unfinished mark begins in `rest`, its length when there is none."""
        at = rest.rfind(RECORD_SEPARATOR)
        if at < 0:
            return len(rest)
        tail = rest[at:]
        whole = tail.startswith(self._prefix) and tail[len(self._prefix) :].isdigit()
        return at if whole or self._prefix.startswith(tail) else len(rest)

    def flush(self) -> bytes:
        kept, self._kept = self._kept, b""
        return kept
