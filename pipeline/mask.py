"""Secrets out of streams of bytes (FEATURES G-12): also across the borders of chunks, and in the forms programs print them in.

A masker holds back only what may be the beginning of a secret; `flush` gives out the rest. Values shorter than
`MINIMUM` are not masked: replacing every `1` would hide nothing and spoil the log.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Iterable

from registry_client.values import replace
from runtime.events import Emit, Event, Finished, Output, Warned

MINIMUM = 4
MAXIMUM = 16 << 10  # what is longer is a bundle of certificates, not a secret, and would make all output slow
_ENCODED = 4 << 10
_ENCODED_LINES = 64
_HEAD = 4
MASK = b"***"


def variants(value: bytes) -> set[bytes]:
    """The value, its lines, and how base64, URLs, JSON and hex would show it."""
    if len(value) > MAXIMUM:
        return set()
    lines = [line.strip(b"\r") for line in value.split(b"\n")]
    whole = value.strip(b"\r\n")
    found = {whole, *lines}
    for text in (value, whole, *lines[:_ENCODED_LINES]):
        if MINIMUM <= len(text) <= _ENCODED:
            found |= _encoded(text)
    return {form for form in found if len(form) >= MINIMUM}


def _encoded(text: bytes) -> set[bytes]:
    decoded = text.decode("utf-8", "surrogateescape")
    quoted = (urllib.parse.quote(text), urllib.parse.quote(text, safe=""), urllib.parse.quote_plus(text))
    found = {text, text.hex().encode(), *_base64(text), *(form.encode() for form in quoted)}
    for ascii_only in (True, False):
        escaped = json.dumps(decoded, ensure_ascii=ascii_only)[1:-1]
        found.add(escaped.encode("utf-8", "surrogateescape"))
    return found


def _base64(text: bytes) -> set[bytes]:
    """What of the base64 of a longer text is fixed by `text`, at each of the three positions it may start at."""
    found = {base64.b64encode(text), base64.urlsafe_b64encode(text)}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text)
        start = (0, 2, 3)[shift]
        # The last characters depend on what follows.
        end = len(encoded.rstrip(b"=")) - (0 if (shift + len(text)) % 3 == 0 else 1)
        core = encoded[start:end]
        # Short cores would match by accident.
        if len(core) >= 6:
            found.update((core, core.replace(b"+", b"-").replace(b"/", b"_")))
    return found


def _pattern(forms: list[bytes]) -> bytes:
    """One expression for all forms (sorted), the longest first, with common beginnings shared: sre tries branches one by one."""
    groups: dict[int, list[bytes]] = {}
    for form in forms:
        if form:
            groups.setdefault(form[0], []).append(form)
    branches = []
    for group in groups.values():
        common = _common(
            group[0], group[-1]
        )  # of sorted texts, that of the first and the last is that of all
        rest = [form[len(common) :] for form in group]
        tail = _pattern(rest) if any(rest) else b""
        branches.append(re.escape(common) + tail + (b"?" if tail and b"" in rest else b""))
    return b"(?:" + b"|".join(branches) + b")"


def _common(first: bytes, last: bytes) -> bytes:
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


class Secrets:
    """The values to hide. Grows while a run resolves its secrets; safe to use from many threads."""

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._lock = threading.Lock()
        self._forms: set[bytes] = set()
        self._heads: dict[bytes, list[bytes]] = {}
        self.pattern: re.Pattern[bytes] | None = None
        self.longest = 0
        for value in values:
            self.add(value)

    def add(self, value: bytes) -> None:
        with self._lock:
            forms = self._forms | variants(value)
            if not forms:
                return
            heads: dict[bytes, list[bytes]] = {}
            for form in forms:
                heads.setdefault(form[:_HEAD], []).append(form)
            self._heads, self.longest = heads, max(map(len, forms))
            self.pattern = re.compile(_pattern(sorted(forms)), re.DOTALL)
            self._forms = forms

    def mask(self, data: bytes) -> bytes:
        return self.pattern.sub(MASK, data) if self.pattern else data

    def mask_text(self, text: str) -> str:
        if self.pattern is None:
            return text
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def held(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the beginning of a secret."""
        start = max(0, len(data) - self.longest + 1)
        best = len(data)
        for head, forms in self._heads.items():
            at = data.find(head, start, best + _HEAD)
            while 0 <= at < best:
                tail = data[at:]
                if any(len(form) > len(tail) and form.startswith(tail) for form in forms):
                    best = at
                    break
                at = data.find(head, at + 1, best + _HEAD)
        if best == len(data):
            # Shorter than a head: compare with the heads themselves.
            for length in range(min(_HEAD - 1, len(data)), 0, -1):
                if any(head.startswith(data[-length:]) for head in self._heads):
                    return length
        return len(data) - best


class StreamMasker:
    """One stream. `feed` gives what can be shown; nothing is shown that could still turn out to be a secret."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        if self._secrets.pattern is None:
            kept, self._kept = self._kept, b""
            return kept + data
        text = self._kept + data
        shown, end = bytearray(), 0
        for match in self._secrets.pattern.finditer(text):
            # A longer form may begin here and end in the next chunk: wait for it.
            if self._may_grow(text, match.start()):
                break
            shown += text[end : match.start()] + MASK
            end = match.end()
        rest = text[end:]
        held = self._secrets.held(rest)
        self._kept = rest[len(rest) - held :]
        return bytes(shown) + self._secrets.mask(rest[: len(rest) - held])

    def _may_grow(self, text: bytes, start: int) -> bool:
        tail = text[start:]
        if len(tail) >= self._secrets.longest:
            return False
        return self._secrets.held(tail) == len(tail)

    def flush(self) -> bytes:
        kept, self._kept = self._kept, b""
        return self._secrets.mask(kept)


class MaskedEmit:
    """An `Emit` in front of another one: masks outputs per node and stream, and texts. Where output enters the stream."""

    def __init__(self, emit: Emit, secrets: Secrets) -> None:
        self._emit, self._secrets = emit, secrets
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, str], StreamMasker] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Output():
                with self._lock:
                    masker = self._streams.setdefault((event.node, event.stream), StreamMasker(self._secrets))
                    data = masker.feed(event.data)
                if data:
                    self._emit(Output(node=event.node, stream=event.stream, data=data, time=event.time))
            case Finished():
                self._flush(event.node)
                mask = self._secrets.mask_text
                self._emit(
                    Finished(
                        node=event.node,
                        outcome=event.outcome,
                        error=mask(event.error),
                        detail=mask(event.detail),
                        time=event.time,
                    )
                )
            case Warned():
                message = self._secrets.mask_text(event.message)
                self._emit(replace(event, message=message))
            case _:
                self._emit(event)

    def _flush(self, node: str) -> None:
        with self._lock:
            ending = [(key, self._streams.pop(key).flush()) for key in list(self._streams) if key[0] == node]
        for (name, stream), data in ending:
            if data:
                self._emit(Output(node=name, stream=stream, data=data))
