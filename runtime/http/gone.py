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
    ended, end = os.pipe2(os.O_CLOEXEC)

    def watch() -> None:
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)  # errors and hang-ups are always told
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
