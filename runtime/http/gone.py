"""Notice that a client has gone away while we work for it and neither read nor write.

A client that only closes its sending half counts as gone: clients of long answers do not do that, and Go's server,
which Docker's clients know, takes it so too.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def when_gone(sock: socket.socket, callback: Callable[[], None]) -> Iterator[None]:
    """Within the block, a thread waits for the other side to close, and then calls `callback`, once."""
    with _watched(sock, select.POLLRDHUP, callback):
        yield


@contextmanager
def _watched(sock: socket.socket, events: int, callback: Callable[[], None]) -> Iterator[None]:
    ended, end = os.pipe2(os.O_CLOEXEC)

    def watch() -> None:
        poll = select.poll()
        poll.register(sock, events)  # errors and hang-ups are always told
        poll.register(ended, select.POLLIN)
        if all(ready != ended for ready, _ in poll.poll()):
            callback()

    thread = threading.Thread(target=watch, name="http-gone", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(end)
        thread.join()
        os.close(ended)


@contextmanager
def when_hung_up(sock: socket.socket, callback: Callable[[], None]) -> Iterator[None]:
    """As `when_gone`, for clients that may close their sending half and go on reading: only a whole close counts."""
    with _watched(sock, 0, callback):
        yield
