"""Keep secrets out of what a step prints: each value becomes `****`, also when it comes in two pieces."""

from __future__ import annotations

from collections.abc import Iterable

MASK = b"****"
SHORTEST = 3  # shorter values would mask half of any log


class Masker:
    """For one stream. What could be the beginning of a secret is held back until more comes."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        values = {value.strip(b"\r\n") for value in secrets}
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
        for size in range(min(longest, len(text)), 0, -1):
            tail = text[-size:]
            if any(secret.startswith(tail) for secret in self._secrets):
                return size
        return 0
