"""What one call of `pipe` holds: its settings, its cancel token, its renderer and the services it opened.

A command that works asks for `session.work(...)`: it forks the spawner while there is still one thread, starts the
renderer, and turns Ctrl-C, SIGTERM and a terminal that goes away into a cancellation. Everything is closed in reverse when the command ends.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from runtime.cancel import Cancel
from runtime.events import Emit, ignore

if TYPE_CHECKING:
    from types import FrameType

    from pipeline.services import Services
    from pipeline.settings import Settings


class Session:
    def __init__(self) -> None:
        self.cancel = Cancel()
        self._settings: Settings | None = None
        self._opened: list[Services] = []  # closed, but held: see `main`

    @property
    def settings(self) -> Settings:
        assert self._settings is not None, "settings are loaded by the group before any command runs"
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def debug(self) -> bool:
        return self._settings is not None and self._settings.debug

    def services(self, emit: Emit = ignore) -> Services:
        """Services of this session; the caller closes them."""
        from pipeline.services import Services

        services = Services(self.settings, self.cancel, emit)
        self._opened.append(services)
        return services

    @contextmanager
    def work(
        self,
        *,
        containers: bool = True,
        private_mounts: bool = False,
        progress: str | None = None,
        makes_room: bool = False,
    ) -> Iterator[Services]:
        """The services of a command. `containers`: it starts some; `private_mounts`: it mounts in this process;
        `makes_room`: it is what one calls when the disk is full.

        `progress` overrides the setting; "none" shows nothing and starts no thread, for commands whose output is their own.
        """
        with ExitStack() as stack:
            stack.callback(self._restore, self._catch_signals())
            if makes_room:
                from runtime.store.reserve import given_up

                stack.enter_context(given_up(self.settings.root))
            services = self.services()
            stack.callback(services.close)
            if containers:
                services.start(private_mounts=private_mounts)
            services.emit = self._renderer(stack, progress or self.settings.progress)
            yield services

    def _renderer(self, stack: ExitStack, kind: str) -> Emit:
        if kind == "none":
            return ignore
        from pipeline.ui.stream import open_stream

        return stack.enter_context(open_stream(kind, expand=self.debug))

    def _catch_signals(self) -> dict[int, object]:
        """First signal: stop in order. Second: Python's own KeyboardInterrupt, at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.cancel.cancel("interrupted" if number == signal.SIGINT else "terminated")

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup(1) has it ignored
            numbers.append(signal.SIGHUP)
        return {number: signal.signal(number, stop) for number in numbers}

    @staticmethod
    def _restore(handlers: dict[int, object]) -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
