"""Pools: as many at a time as they have threads, and another in the place of one that only waits."""

from __future__ import annotations

import threading

import pytest

from builder.pools import Pool

PATIENCE = 60.0


def test_while_a_job_only_waits_another_runs_in_its_place() -> None:
    opened = threading.Event()

    def wait() -> bool:
        with pool.lent():
            return opened.wait(PATIENCE)

    with Pool("test", 1) as pool:
        waiting = [pool.submit(wait) for _ in range(3)]
        opening = pool.submit(opened.set)
        opening.result()
        assert [each.result() for each in waiting] == [True] * 3


def test_those_that_stood_in_go_when_the_others_are_back() -> None:
    opened = threading.Event()

    def wait() -> None:
        with pool.lent():
            opened.wait(PATIENCE)

    with Pool("test", 2) as pool:
        waiting = [pool.submit(wait) for _ in range(6)]
        pool.submit(opened.set).result()
        for each in waiting:
            each.result()
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.01)):
            if len(pool._threads) <= 2:  # each goes when it comes to the end of its job
                break
            pause.wait(0.01)
        assert len(pool._threads) <= 2


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    with Pool("test", 1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result()
