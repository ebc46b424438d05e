"""`created_by` of history entries, spelled as BuildKit spells them (FEATURES A-55); tools read these texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from registry_client.oci.config import Healthcheck

_MARK = " # buildkit"
_GO_ESCAPES = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\"",
}  # fmt: skip


def run_text(
    argv: Sequence[str], arguments: Iterable[tuple[str, str | None]], values: Mapping[str, str]
) -> str:
    """RUN, with the ARGs in force and their number before the command."""
    known = {name: f"{name}={values.get(name, default or '')}" for name, default in arguments}
    prefix = [f"|{len(known)}", *known.values()] if known else []
    return "RUN " + " ".join([*prefix, *argv]) + _MARK


def copy_text(
    keyword: str, *, parents: bool, owner: str, mode: str, sources: Iterable[str], dest: str
) -> str:
    flags = [
        *(["--parents"] if parents else []),
        *([f"--chown={owner}"] if owner else []),
        *([f"--chmod={mode}"] if mode else []),
    ]
    return " ".join([keyword, *flags, *sources, dest]) + _MARK


def quoted_list(keyword: str, words: Iterable[str]) -> str:
    """CMD and ENTRYPOINT: `CMD ["a" "b"]`."""
    return f"{keyword} [{' '.join(map(go_quote, words))}]"


def plain_list(keyword: str, words: Iterable[str]) -> str:
    """EXPOSE, SHELL, VOLUME: `VOLUME [/a /b]`."""
    return f"{keyword} [{' '.join(words)}]"


def healthcheck_text(check: Healthcheck) -> str:
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    shown = " ".join(f"{name}:{go_duration(value)}" for name, value in times.items())
    return f"HEALTHCHECK {{Test:[{' '.join(check.test)}] {shown} Retries:{check.retries}}}"


def go_quote(text: str) -> str:
    """Go's `%q` (strconv.Quote): what cannot be printed is escaped."""
    return '"' + "".join(map(_go_character, text)) + '"'


def _go_character(character: str) -> str:
    if character in _GO_ESCAPES:
        return _GO_ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def go_duration(nanoseconds: int) -> str:
    """Go's `Duration.String()`: `1m30s`, `1.5s`, `300ms`."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 10**9) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(size)) - 1).rstrip('0')}"
