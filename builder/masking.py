"""Keep secrets out of what a step prints: each value becomes `****`, also when it comes in two pieces."""

from __future__ import annotations

from collections.abc import Iterable

MASK = b"****"
SHORTEST = 3  # shorter values would mask half of any log
LONGEST = (
    16 << 10
)  # a bundle of certificates is no secret, and looking for its thousands of lines makes a build crawl


class Masker:
    """For one stream. What could be the beginning of a secret is held back until more comes."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        values = {value.strip(b"\r\n") for value in secrets if len(value) <= LONGEST}
        for value in list(values):
            # A secret of several lines is often printed line by line.
            values.update(line.strip() for line in value.splitlines())
        self._secrets = sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if not self._secrets:
            return data
        text = self._held + data
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :] if keep else b""
        return text[: len(text) - keep]

    def flush(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _possible_beginning(self, text: bytes) -> int:
        """How many last bytes are the beginning of some secret."""
        longest = max(len(secret) for secret in self._secrets) - 1
        best, start = len(text), max(0, len(text) - longest)
        for secret in self._secrets:
            head = secret[:SHORTEST]
            at = text.find(head, start, best + SHORTEST)
            while 0 <= at < best:
                if len(secret) > len(text) - at and secret.startswith(text[at:]):
                    best = at
                    break
                at = text.find(head, at + 1, best + SHORTEST)
        if best < len(text):
            return len(text) - best
        for size in range(min(SHORTEST - 1, len(text)), 0, -1):
            if any(secret.startswith(text[-size:]) for secret in self._secrets):
                return size
        return 0
