"""Restart policies and their backoff (D-28, D-29), on an injected clock."""

from __future__ import annotations

import pytest

from runtime.containers.restarts import Restarts


def test_the_delay_doubles_from_100_ms_to_a_minute() -> None:
    restarts = Restarts("always")
    delays = [restarts.after(1, 0.5, by_hand=False) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert restarts.count == 12


def test_ten_seconds_of_uptime_begin_the_backoff_anew() -> None:
    restarts = Restarts("always")
    for _ in range(5):
        restarts.after(1, 0.5, by_hand=False)
    assert restarts.after(1, 10.5, by_hand=False) == 0.1
    assert restarts.after(1, 9.5, by_hand=False) == 0.2


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure", "on-unhealthy"])
def test_a_stop_by_hand_ends_restarting(policy: str) -> None:
    assert Restarts(policy).after(137, 5, by_hand=True, unhealthy=True) is None


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("no", 1, False),
        ("", 1, False),
        ("always", 0, True),
        ("unless-stopped", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 3, True),
        ("on-unhealthy", 0, False),
        ("on-unhealthy", 1, True),
    ],
)
def test_the_policy_looks_at_the_exit_code(policy: str, code: int, restarts: bool) -> None:
    assert (Restarts(policy).after(code, 1, by_hand=False) is not None) == restarts


def test_on_failure_counts_its_attempts() -> None:
    restarts = Restarts("on-failure", 2)
    delays = [restarts.after(1, 1, by_hand=False) for _ in range(3)]
    assert delays == [0.1, 0.2, None]
    assert restarts.count == 2


def test_an_unhealthy_container_is_restarted_though_it_ended_well_after_our_stop() -> None:
    assert Restarts("on-unhealthy").after(0, 1, by_hand=False, unhealthy=True) == 0.1
