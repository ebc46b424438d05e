"""Starting, ending and failing, as the owner sees it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Plan
from runtime.sandbox.spawner import Spawner
from tests.support.sandbox import Bench

pytestmark = pytest.mark.linux


def test_the_exit_code_is_the_programs(box: Bench) -> None:
    info, _ = box.run(box.plan("sh", "-c", "exit 42"))
    assert (info.code, info.oom_killed, info.error) == (42, False, "")


def test_death_by_a_signal_is_128_and_its_number(box: Bench) -> None:
    # The first process of a pid namespace ignores a signal it has no handler for: a child of it does not.
    info, _ = box.run(box.plan("sh", "-c", "sh -c 'kill -TERM $$'; exit $?"))
    assert info.code == 128 + signal.SIGTERM


def test_a_command_that_does_not_exist_is_127_with_the_reason(box: Bench) -> None:
    info, _ = box.run(box.plan("no-such-program"))
    assert (info.code, info.error) == (127, 'exec: "no-such-program": executable file not found in $PATH')
    info, _ = box.run(box.plan("/no/such/program"))
    assert info.code == 127 and "no such file or directory" in info.error


@pytest.mark.parametrize("command", ["/etc/passwd", "/bin", "/garbage"])
def test_a_file_that_cannot_be_executed_is_126(box: Bench, command: str) -> None:
    (box.lower / "garbage").write_bytes(b"\0\1\2\3 not a program")
    (box.lower / "garbage").chmod(0o755)
    info, _ = box.run(box.plan(command))
    assert info.code == 126 and info.error


def test_the_command_is_looked_up_in_its_own_path(box: Bench) -> None:
    rootfs = box.overlay()
    os.makedirs(f"{rootfs.upper}/opt")
    with open(f"{rootfs.upper}/opt/greet", "w") as script:
        script.write("#!/bin/sh\necho hello from $0\n")
    os.chmod(f"{rootfs.upper}/opt/greet", 0o755)
    info, output = box.run(Plan(defaults.config(["greet"], env=["PATH=/nowhere:/opt"]), rootfs))
    assert (info.code, output) == (0, "hello from /opt/greet\n")


def test_several_threads_may_wait_for_the_same_process(box: Bench) -> None:
    process = box.spawner.create(box.plan("cat"), *os.pipe()[:1])
    results: list[int | None] = []
    threads = [threading.Thread(target=lambda: results.append(_code(process.wait(60)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    process.kill(signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert results == [137] * 4
    assert _code(process.wait()) == 137


def _code(info: object) -> int | None:
    return getattr(info, "code", None)


def test_waiting_has_a_time_limit(box: Bench) -> None:
    process = box.spawner.create(box.plan("sleep", "600"))
    assert process.wait(0.01) is None
    process.kill(signal.SIGKILL)
    assert _code(process.wait(60)) == 137


def test_a_paused_container_has_its_namespaces_and_goes_on_when_released(box: Bench) -> None:
    process = box.spawner.create(box.plan("true"), pause=True)
    assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    assert process.wait(0.01) is None
    process.release()
    assert _code(process.wait(60)) == 0


def test_a_paused_container_can_be_killed_instead(box: Bench) -> None:
    process = box.spawner.create(box.plan("true"), pause=True)
    process.kill(signal.SIGKILL)
    assert _code(process.wait(60)) == 137


def test_killing_the_first_process_ends_all_of_them(box: Bench) -> None:
    reader, writer = os.pipe()
    process = box.spawner.create(box.plan("sh", "-c", "sleep 600 & sleep 601 & echo up; wait"), -1, writer)
    os.close(writer)
    assert os.read(reader, 10) == b"up\n"
    process.kill(signal.SIGKILL)
    # Nobody holds the other end any more.
    assert os.read(reader, 10) == b""
    os.close(reader)
    assert _code(process.wait(60)) == 137


def test_input_and_both_outputs_are_connected(box: Bench) -> None:
    inputs, outputs, errors = os.pipe(), os.pipe(), os.pipe()
    plan = box.plan("sh", "-c", "read line; echo got $line; echo bad >&2")
    process = box.spawner.create(plan, inputs[0], outputs[1], errors[1])
    for descriptor in (inputs[0], outputs[1], errors[1]):
        os.close(descriptor)
    os.write(inputs[1], b"this\n")
    os.close(inputs[1])
    assert _code(process.wait(60)) == 0
    for pipe, expected in ((outputs, b"got this\n"), (errors, b"bad\n")):
        assert os.read(pipe[0], 100) == expected
        os.close(pipe[0])


def test_a_plain_user_can_open_the_pipes_it_was_given(box: Bench) -> None:
    reader, writer = os.pipe()
    config = defaults.config(["sh", "-c", "echo hello > /dev/stdout"])
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    process = box.spawner.create(box.plan(config=config), -1, writer)
    os.close(writer)
    assert _code(process.wait(60)) == 0
    assert os.read(reader, 100) == b"hello\n"
    os.close(reader)


def test_a_fault_of_setting_up_names_the_operation(box: Bench) -> None:
    config = defaults.config(["true"])
    config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": "/no/such/directory", "options": ["rbind"]}
    )
    with pytest.raises(SandboxError) as caught:
        box.spawner.create(box.plan(config=config))
    assert caught.value.operation == "bind /no/such/directory on /data"
    assert "No such file or directory" in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": {"args": []}}, "process.args is empty"),
        ({"process": {"args": ["true"], "cwd": "relative"}}, "not an absolute path"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "without a mount namespace"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "nets"}]}}, "unknown namespace 'nets'"),
        ({"hooks": {"prestart": [{"path": "/bin/true"}]}}, r"hooks\.prestart"),
        ({"mounts": [{"destination": "relative", "type": "tmpfs"}]}, "not an absolute path"),
        ({"process": 7}, "process.args is empty"),
    ],
)
def test_a_wrong_plan_is_refused_and_the_next_one_runs(
    box: Bench, change: dict[str, object], message: str
) -> None:
    config = defaults.config(["true"]) | change
    with pytest.raises(SandboxError, match=message):
        box.spawner.create(box.plan(config=config))
    assert box.run(box.plan("true"))[0].code == 0


def test_the_spawner_survives_requests_that_make_no_sense(box: Bench) -> None:
    for request in (
        {"op": "dance"},
        {},
        {"op": "create"},
        {"op": "create", "plan": 3, "stdio": [9, 9, 9], "pause": 0},
    ):
        with pytest.raises(SandboxError):
            box.spawner._send(request, []).until_started()
    assert box.run(box.plan("true"))[0].code == 0


def test_many_containers_run_at_once(box: Bench) -> None:
    processes = [box.spawner.create(box.plan("sh", "-c", f"exit {number}")) for number in range(20)]
    assert [_code(process.wait(60)) for process in processes] == list(range(20))


def test_two_spawners_do_not_disturb_each_other(box: Bench) -> None:
    with Spawner.start() as other:
        process = other.create(box.plan("sleep", "600"))
        assert box.run(box.plan("true"))[0].code == 0
    assert _code(process.wait(60)) == 137
    assert box.run(box.plan("true"))[0].code == 0


def test_a_closed_spawner_says_so(box: Bench) -> None:
    other = Spawner.start()
    other.close()
    with pytest.raises(SandboxError, match="the spawner is gone"):
        other.create(box.plan("true"))
