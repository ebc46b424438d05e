"""The renderer of `--quiet`: nothing but what the command itself prints at its end."""

from __future__ import annotations

from runtime.events import Event


class QuietRenderer:
    def update(self, event: Event) -> None:
        pass

    def tick(self, now: float) -> None:
        pass

    def close(self) -> None:
        pass
