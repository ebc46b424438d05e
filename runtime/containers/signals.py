"""Signals as people write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`."""

from __future__ import annotations

import signal

from runtime.errors import InvalidInput, did_you_mean


def parse_signal(text: str) -> signal.Signals:
    """The signal of a name or number."""
    name = text.upper().strip()
    if name.isdigit():
        return _numbered(int(name), text)
    name = name if name.startswith("SIG") else f"SIG{name}"
    base, plus, offset = name.partition("+")
    if plus and base == "SIGRTMIN" and offset.isdigit():
        return _numbered(signal.SIGRTMIN + int(offset), text)
    base, minus, offset = name.partition("-")
    if minus and base == "SIGRTMAX" and offset.isdigit():
        return _numbered(signal.SIGRTMAX - int(offset), text)
    try:
        return signal.Signals[name]
    except KeyError as error:
        names = [member.name.removeprefix("SIG") for member in signal.Signals]
        hint = did_you_mean(name.removeprefix("SIG"), names) or "`kill -l` lists them"
        raise InvalidInput(f"unknown signal {text!r}", hint=hint) from error


def _numbered(number: int, text: str) -> signal.Signals:
    if not 0 < number <= signal.SIGRTMAX:
        raise InvalidInput(f"{text!r} is not a signal", hint="`kill -l` lists them")
    try:
        return signal.Signals(number)
    except ValueError:  # real-time signals between the two that Python names
        return number  # type: ignore[return-value]
