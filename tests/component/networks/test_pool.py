"""The pool of network namespaces for build steps: who makes one, who waits, when."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from runtime.networks.pool import Namespace, NetnsPool


class Pool(NetnsPool):
    """Its namespaces are made when the test says so."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None))
        self.made = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def _make(self) -> Namespace:
        self.made += 1
        number = self.made
        self.begun.set()
        assert self.go_on.wait(60)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return Namespace(-1, str(number), "", "", None)


def lend(pool: NetnsPool, got: list[str], release: threading.Event, have: threading.Event) -> None:
    with pool.lend() as namespace:
        got.append(namespace.container_id)
        have.set()
        assert release.wait(60)


def until_waiting(pool: NetnsPool) -> None:
    with pool._lock:
        while not pool._waiting:
            pool._lock.wait(0.01)


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_waits_for_the_namespace_that_is_coming(fails: bool) -> None:
    pool, got = Pool(), list[str]()
    pool.error = OSError("refused") if fails else None
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            pool.prepare()
        except OSError as error:
            failures.append(error)

    release, have = threading.Event(), threading.Event()
    preparing = threading.Thread(target=prepare)
    preparing.start()
    assert pool.begun.wait(60)
    step = threading.Thread(target=lend, args=(pool, got, release, have))
    step.start()
    until_waiting(pool)
    assert (pool.made, got) == (1, [])
    pool.go_on.set()
    assert have.wait(60)
    release.set()
    preparing.join()
    step.join()
    # Where it could not be had the step makes its own, and so comes upon what is wrong.
    assert (pool.made, got, len(failures)) == ((2, ["2"], 1) if fails else (1, ["1"], 0))


def test_a_second_step_does_not_wait_for_the_same_one() -> None:
    pool, got = Pool(), list[str]()
    release = threading.Event()
    preparing = threading.Thread(target=pool.prepare)
    preparing.start()
    assert pool.begun.wait(60)
    both = [threading.Event(), threading.Event()]
    first = threading.Thread(target=lend, args=(pool, got, release, both[0]))
    first.start()
    until_waiting(pool)
    pool.begun.clear()
    second = threading.Thread(target=lend, args=(pool, got, release, both[1]))
    second.start()
    assert pool.begun.wait(60), "it makes its own"
    pool.go_on.set()
    assert all(each.wait(60) for each in both)
    release.set()
    for thread in (preparing, first, second):
        thread.join()
    assert sorted(got) == ["1", "2"] and pool.made == 2
