"""Builds under way, by the name their client gave them, and results other builds may stand on.

Solving, asking how it goes and the client's own build function come as separate calls in any order, so whoever is first
makes the job and the others wait a moment for it. A job stays known for a while after its end, for those who ask late.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from builder.control.builds import NODE, Wanted
from builder.control.messages.gateway import ReturnRequest
from builder.control.vertices import Told
from registry_client.values import frozen
from runtime.cancel import Cancel
from runtime.grpc.status import Code, GrpcError

_PATIENCE = 15.0  # seconds a call waits for the one that begins the job
_REMEMBERED = 64

T = TypeVar("T")


class Job:
    """`told` is how it goes, `returned` what the client's build function ended with."""

    def __init__(self, ref: str) -> None:
        self.ref, self.told, self.cancel = ref, Told(ref, NODE), Cancel()
        self.session = ""
        self.begun = self.over = False
        self.returned: ReturnRequest | None = None
        self.wanted: Wanted | None = None


@frozen(kw_only=True)
class Pending:
    """A result nobody needed yet: what would have to be built."""

    id: str
    job: Job
    wanted: Wanted


class Jobs:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._pending: dict[str, Pending] = {}

    def begin(self, ref: str, session: str) -> Job:
        with self._changed:
            job = self._jobs.setdefault(ref, Job(ref))
            if job.begun:
                raise GrpcError(Code.ALREADY_EXISTS, f"there is a build {ref} already")
            job.begun, job.session = True, session
            self._changed.notify_all()
            return job

    def end(self, job: Job) -> None:
        job.told.end()
        with self._changed:
            job.over = True
            ended = [ref for ref, each in self._jobs.items() if each.over]
            for ref in ended[:-_REMEMBERED]:
                del self._jobs[ref]
            for pending in [each for each in self._pending.values() if each.job.ref not in self._jobs]:
                del self._pending[pending.id]
            self._changed.notify_all()

    def get(self, ref: str, cancel: Cancel) -> Job:
        """The job of that name, once it has begun."""

        def begun() -> Job | None:
            job = self._jobs.get(ref)
            return job if job is not None and job.begun else None

        job = self._wait(begun, cancel, _PATIENCE)
        if job is None:
            raise GrpcError(Code.NOT_FOUND, f"there is no build {ref!r}")
        return job

    def returned(self, job: Job, cancel: Cancel) -> ReturnRequest:
        """What the client's build function ends with; as long as it takes."""
        found = self._wait(lambda: job.returned, cancel, None)
        cancel.check()
        assert found is not None
        return found

    def give_back(self, job: Job, answer: ReturnRequest) -> None:
        with self._changed:
            job.returned = answer
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], T | None], cancel: Cancel, seconds: float | None) -> T | None:
        deadline = None if seconds is None else time.monotonic() + seconds
        with cancel.on_cancel(self._wake), self._changed:
            while (found := ready()) is None and not cancel.cancelled:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            return found

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # --- results ------------------------------------------------------------------------------------------------------

    def promise(self, job: Job, wanted: Wanted) -> Pending:
        pending = Pending(id=os.urandom(16).hex(), job=job, wanted=wanted)
        with self._changed:
            self._pending[pending.id] = pending
        return pending

    def promised(self, result: str) -> Pending:
        with self._changed:
            found = self._pending.get(result)
        if found is None:
            raise GrpcError(Code.NOT_FOUND, f"there is no result {result!r}")
        return found
