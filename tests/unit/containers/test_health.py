"""When probes are due and what their answers mean (D-27)."""

from __future__ import annotations

from runtime.containers.health import HEALTHY, STARTING, UNHEALTHY, Health, HealthPolicy, ProbeResult


def probe(start: float, code: int, took: float = 0.0) -> ProbeResult:
    return ProbeResult(start, start + took, code, "")


def test_defaults_are_dockers() -> None:
    policy = HealthPolicy(["CMD", "true"])
    assert (policy.interval, policy.timeout, policy.start_period, policy.start_interval, policy.retries) == (
        30,
        30,
        0,
        5,
        3,
    )


def test_without_a_start_period_the_first_probe_waits_a_whole_interval() -> None:
    health = Health(HealthPolicy(["CMD", "true"], interval=7, start_interval=1), started=100)
    assert health.interval(100) == 7


def test_in_the_start_period_the_start_interval_counts_until_the_first_success() -> None:
    health = Health(HealthPolicy(["CMD", "true"], interval=30, start_period=60, start_interval=2), started=0)
    assert health.interval(0) == 2
    health.record(probe(2, 1))
    assert health.interval(3) == 2
    health.record(probe(5, 0))
    assert health.status == HEALTHY
    assert health.interval(6) == 30


def test_the_start_interval_ends_with_the_start_period() -> None:
    health = Health(HealthPolicy(["CMD", "true"], interval=30, start_period=10), started=0)
    assert health.interval(10) == 30


def test_failures_in_the_start_period_do_not_count() -> None:
    health = Health(HealthPolicy(["CMD", "false"], start_period=10, retries=1), started=0)
    assert not health.record(probe(9.9, 1))
    assert (health.status, health.streak) == (STARTING, 0)
    assert health.record(probe(10, 1))
    assert health.status == UNHEALTHY


def test_a_failure_in_the_start_period_counts_once_it_was_healthy() -> None:
    health = Health(HealthPolicy(["CMD", "false"], start_period=100, retries=1), started=0)
    health.record(probe(1, 0))
    assert health.record(probe(2, 1))
    assert health.status == UNHEALTHY


def test_retries_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() -> None:
    health = Health(HealthPolicy(["CMD", "x"], retries=3), started=0)
    assert [health.record(probe(n, 1)) for n in (30, 60)] == [False, False]
    health.record(probe(90, 0))
    assert [health.record(probe(n, 1)) for n in (120, 150, 180)] == [False, False, True]
    assert (health.status, health.streak) == (UNHEALTHY, 3)
    assert health.record(probe(210, 0))
    assert (health.status, health.streak) == (HEALTHY, 0)


def test_the_last_five_results_are_kept() -> None:
    health = Health(HealthPolicy(["CMD", "x"]), started=0)
    for number in range(8):
        health.record(probe(number, number))
    assert [result.code for result in health.results] == [3, 4, 5, 6, 7]


def test_a_shell_probe_runs_under_the_shell_of_the_image() -> None:
    assert HealthPolicy(["CMD-SHELL", "curl -f localhost"]).argv(["/bin/bash", "-c"]) == [
        "/bin/bash",
        "-c",
        "curl -f localhost",
    ]
    assert HealthPolicy(["CMD", "pg_isready", "-U", "me"]).argv(["/bin/sh", "-c"]) == [
        "pg_isready",
        "-U",
        "me",
    ]
