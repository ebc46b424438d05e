"""What a shim does on its own: logs, health, restarts, attaching, being there when nobody else is (D-25 to D-29)."""

from __future__ import annotations

import os
import threading
import time

import pytest

from registry_client.oci.config import Healthcheck
from runtime.containers.client import DetachKeys, parse_detach_keys
from runtime.containers.spec import RestartPolicy
from runtime.errors import InvalidInput, StepFailed, Unsupported
from tests.support.containers import PATIENCE, World, pump

pytestmark = pytest.mark.linux

SECOND = 1_000_000_000


def until(condition: object, message: str) -> None:
    """Wait for something that will be so soon, however busy the machine is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


# --- logs -------------------------------------------------------------------------------------------------------------


def test_the_log_can_be_read_after_the_end(world: World) -> None:
    container = world.up("sh", "-c", "echo one; echo two >&2; printf three")
    world.ended(container.id)
    lines = [(line.stream, line.data) for line in world.containers.logs(container.id)]
    assert sorted(lines) == [("stderr", b"two\n"), ("stdout", b"one\n"), ("stdout", b"three")]
    assert [line.data for line in world.containers.logs(container.id, streams=("stderr",))] == [b"two\n"]
    world.containers.remove(container.id)


def test_tail_since_and_until_cut_the_log(world: World) -> None:
    container = world.up("sh", "-c", "for n in 1 2 3 4 5; do echo $n; sleep 0.05; done")
    world.ended(container.id)
    lines = list(world.containers.logs(container.id))
    assert [line.data for line in world.containers.logs(container.id, tail=2)] == [b"4\n", b"5\n"]
    assert list(world.containers.logs(container.id, tail=0)) == []
    middle = lines[2].seconds
    assert [line.data for line in world.containers.logs(container.id, since=middle)] == [
        b"3\n",
        b"4\n",
        b"5\n",
    ]
    assert [line.data for line in world.containers.logs(container.id, until=middle)] == [
        b"1\n",
        b"2\n",
        b"3\n",
    ]
    world.containers.remove(container.id)


def test_following_gives_every_line_once_and_ends_with_the_container(world: World) -> None:
    container = world.up("sh", "-c", "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo $n; done")
    followed = [line.data for line in world.containers.logs(container.id, follow=True)]
    assert followed == [f"{number}\n".encode() for number in range(1, 2001)]
    world.containers.remove(container.id)


def test_a_log_is_rotated_and_followed_across_rotations(world: World) -> None:
    options = {"max-size": "20k", "max-file": "200"}
    script = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo line $n; done"
    container = world.up("sh", "-c", script, log_options=options)
    followed = [line.data for line in world.containers.logs(container.id, follow=True)]
    assert followed == [f"line {number}\n".encode() for number in range(1, 3001)]
    files = [name for name in os.listdir(container.directory) if name.startswith("log.json")]
    assert len(files) > 3
    assert max(os.path.getsize(os.path.join(container.directory, name)) for name in files) < 21_000
    world.containers.remove(container.id)


def test_a_log_of_many_megabytes_is_whole(world: World) -> None:
    count = 200_000
    container = world.up(
        "sh", "-c", f"yes 0123456789012345678901234567890123456789012345678 | head -n {count}"
    )
    assert world.ended(container.id).code == 0
    total = lines = 0
    for line in world.containers.logs(container.id):
        total, lines = total + len(line.data), lines + 1
    assert (lines, total) == (count, 50 * count)
    world.containers.remove(container.id)


@pytest.mark.slow
def test_a_log_of_a_hundred_megabytes_keeps_memory_flat(world: World) -> None:
    container = world.up(
        "sh", "-c", "yes 0123456789012345678901234567890123456789012345678 | head -n 2000000; sleep 1000"
    )
    lines = 0
    for line in world.containers.logs(container.id, follow=True):
        lines += len(line.data) == 50
        if lines == 2_000_000:
            break
    shim = int(world.containers.get(container.id).state.shim.split(".")[2])
    with open(f"/proc/{shim}/status") as file:
        peak = next(int(row.split()[1]) for row in file if row.startswith("VmHWM"))
    assert peak < 60_000
    world.containers.remove(container.id, force=True)


def test_no_log_is_kept_when_none_is_wanted(world: World) -> None:
    container = world.up("echo", "x", log_driver="none")
    world.ended(container.id)
    with pytest.raises(Unsupported, match="no log"):
        world.containers.logs(container.id)
    assert "log.json" not in os.listdir(container.directory)
    world.containers.remove(container.id)


# --- attach -----------------------------------------------------------------------------------------------------------


def test_attaching_to_a_running_container_gives_what_comes_from_then_on(world: World) -> None:
    container = world.up("sh", "-c", "echo early; read line; echo got $line", stdin=True)
    until(lambda: world.log(container.id) == "early\n", "it did not start to talk")
    with world.containers.attach(container.id) as connection:
        ran = pump(connection, b"input\n")
    assert ran.stdout == b"got input\n"
    assert world.log(container.id) == "early\ngot input\n"
    world.containers.remove(container.id)


def test_two_listeners_hear_the_same(world: World) -> None:
    container = world.up("sh", "-c", "read go; seq 1 5000", stdin=True)
    heard: list[bytes] = []

    def listen() -> None:
        with world.containers.attach(container.id, ("stdout",)) as connection:
            ready.release()
            heard.append(pump(connection).stdout)

    ready = threading.Semaphore(0)
    threads = [threading.Thread(target=listen) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire(timeout=PATIENCE)
    with world.containers.attach(container.id) as connection:
        pump(connection, b"go\n")
    for thread in threads:
        thread.join(PATIENCE)
    assert heard == ["".join(f"{n}\n" for n in range(1, 5001)).encode()] * 2
    world.containers.remove(container.id)


def test_the_detach_keys_leave_and_everything_else_arrives() -> None:
    keys = DetachKeys(parse_detach_keys("ctrl-p,ctrl-q"))
    assert keys.feed(b"abc") == (b"abc", False)
    assert keys.feed(b"x\x10") == (b"x", False)
    assert keys.feed(b"y") == (b"\x10y", False)
    assert keys.feed(b"\x10\x10\x11z") == (b"\x10", True)
    with pytest.raises(InvalidInput, match="ctrl-ä"):
        parse_detach_keys("ctrl-ä")


# --- health -----------------------------------------------------------------------------------------------------------


def test_health_goes_from_starting_to_healthy_to_unhealthy(world: World) -> None:
    check = Healthcheck(("CMD-SHELL", "cat /healthy"), interval=SECOND // 20, retries=2)
    container = world.up("sh", "-c", "sleep 1000", healthcheck=check)
    assert world.containers.get(container.id).health in ("starting", "unhealthy")
    until(lambda: world.containers.health(container.id) == "unhealthy", "it never became unhealthy")
    world.exec(container.id, "sh", "-c", "echo fine >/healthy")
    assert world.containers.wait_healthy(container.id, PATIENCE) == "healthy"
    health = world.containers.get(container.id).state.health
    assert health is not None
    assert len(health["results"]) <= 5
    assert health["results"][-1]["output"] == "fine\n"
    world.exec(container.id, "rm", "/healthy")
    until(lambda: world.containers.health(container.id) == "unhealthy", "it stayed healthy")
    world.containers.remove(container.id, force=True)


def test_a_probe_that_takes_too_long_is_killed_and_counts_as_a_failure(world: World) -> None:
    check = Healthcheck(("CMD", "sleep", "1000"), interval=SECOND // 20, timeout=SECOND // 5, retries=1)
    container = world.up("sleep", "1000", healthcheck=check)
    until(lambda: world.containers.health(container.id) == "unhealthy", "the probe was not given up")
    health = world.containers.get(container.id).state.health
    assert health is not None
    assert health["results"][0]["code"] == -1
    assert "exceeded timeout" in health["results"][0]["output"]
    world.containers.remove(container.id, force=True)


def test_waiting_for_health_ends_when_the_container_does(world: World) -> None:
    check = Healthcheck(("CMD", "false"), interval=1000 * SECOND)
    container = world.up("sh", "-c", "sleep 0.3; exit 4", healthcheck=check)
    with pytest.raises(StepFailed) as raised:
        world.containers.wait_healthy(container.id, PATIENCE)
    assert raised.value.exit_code == 4
    world.containers.remove(container.id)


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_on_failure_restarts_until_it_works(world: World) -> None:
    script = "echo try; test -e /third && exit 0; test -e /second && touch /third; touch /second; exit 1"
    container = world.up("sh", "-c", script, restart=RestartPolicy(name="on-failure"))
    assert world.ended(container.id).code == 0
    assert world.log(container.id) == "try\n" * 3
    assert world.containers.get(container.id).state.restarts == 2
    world.containers.remove(container.id)


def test_a_stop_by_hand_ends_restarting(world: World) -> None:
    container = world.up("sh", "-c", "exit 1", restart=RestartPolicy(name="always"))
    until(lambda: world.containers.get(container.id).state.restarts >= 2, "it was not restarted")
    world.containers.stop(container.id, 0)
    found = world.containers.get(container.id)
    assert found.state.status == "exited"
    restarts = found.state.restarts
    world.containers.sweep()
    assert world.containers.get(container.id).state.restarts == restarts
    world.containers.remove(container.id)


def test_what_cannot_be_started_is_not_restarted(world: World) -> None:
    container = world.up("nosuchcommand", restart=RestartPolicy(name="always"))
    assert world.ended(container.id).code == 127
    assert world.containers.get(container.id).state.restarts == 0
    world.containers.remove(container.id)


def test_an_unhealthy_container_is_restarted_when_that_is_the_policy(world: World) -> None:
    check = Healthcheck(("CMD", "test", "-e", "/second"), interval=SECOND // 20, retries=1)
    script = "trap 'exit 0' TERM; echo up; test -e /first && touch /second; touch /first; while true; do sleep 0.05; done"
    container = world.up("sh", "-c", script, healthcheck=check, restart=RestartPolicy(name="on-unhealthy"))
    until(lambda: world.containers.get(container.id).state.restarts >= 1, "it was not restarted")
    until(lambda: world.containers.health(container.id) == "healthy", "it did not recover")
    world.containers.remove(container.id, force=True)
