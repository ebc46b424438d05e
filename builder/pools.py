"""Named pools of threads, owned by a `with`. (`concurrent.futures` brings `logging` along: 10 ms at every start.)

Threads are made when there is work for them. A job must not wait for another job of its own pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """What a job will give."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def result(self) -> T:
        """Wait for the job; its value, or its error raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def error(self) -> BaseException | None:
        self._done.wait()
        return self._error

    def run(self, job: Callable[..., T], args: tuple[Any, ...]) -> None:
        try:
            self._value = job(*args)
        except BaseException as error:  # noqa: BLE001  # whoever asks for the result gets it
            self._error = error
        self._done.set()


class Pool:
    """At most `size` threads called `name-N`."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        import queue  # not before somebody has work for it: a build of found steps has none

        self._jobs: queue.SimpleQueue[tuple[Task[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open = 0  # jobs that have not ended

    def submit(self, job: Callable[..., T], *args: Any) -> Task[T]:
        task: Task[T] = Task()
        with self._lock:
            self._open += 1
            self._jobs.put((task, job, args))
            self._add_thread()
        return task

    def _add_thread(self) -> None:
        if len(self._threads) >= min(self._size, self._open):
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            task, function, args = job
            task.run(function, args)
            with self._lock:
                self._open -= 1
                if len(self._threads) > self._size:
                    # One of those it stood in for is back.
                    self._threads.remove(threading.current_thread())
                    return

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within the block the calling job only waits: another may run in its place."""
        with self._lock:
            self._size += 1
            self._add_thread()
        try:
            yield
        finally:
            with self._lock:
                self._size -= 1

    def close(self) -> None:
        """Let the running and waiting jobs end."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
