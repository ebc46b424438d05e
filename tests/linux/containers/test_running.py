"""A container's life as its users see it: output, input, exit codes, what the kernel says inside (D-14, D-22 to D-26)."""

from __future__ import annotations

import os
import signal

import pytest

from registry_client.oci.config import ContainerConfig
from runtime.containers.spec import Limits
from runtime.errors import Conflict, InvalidInput, NotFound, PipeError
from tests.support.containers import PATIENCE, World, alive, pump, wait_gone

pytestmark = pytest.mark.linux


def test_output_and_exit_code_come_back(world: World) -> None:
    ran = world.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.stdout, ran.stderr, ran.code) == (b"out\n", b"err\n", 3)


def test_nothing_is_left_of_a_removed_container(world: World) -> None:
    container = world.create("true", auto_remove=True)
    connection = world.containers.start(container.id, attach=("stdout",))
    assert connection is not None
    pump(connection)
    world.containers.finish(container.id, connection)
    assert world.containers.find(container.id) is None
    assert not os.path.exists(container.directory)
    assert not os.path.exists(f"/sys/fs/cgroup/memory/pipe/{container.id}")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("/no/such/program",), 127),
        (("nosuchcommand",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("sh", "-c", "exit 255"), 255),
    ],
)
def test_exit_codes_are_those_of_a_shell(world: World, command: tuple[str, ...], code: int) -> None:
    # pid 1 has no default signal handlers, so a signal can only end a child of it.
    if command[-1] == "kill -TERM $$":
        command = ("sh", "-c", "sh -c 'kill -TERM $$'; exit $?")
    ran = world.run(*command)
    assert ran.code == code
    assert bool(ran.status.error) == (code in (126, 127))


def test_binary_input_and_output_are_unchanged(world: World) -> None:
    data = os.urandom(1 << 20) + bytes(range(256))
    ran = world.run("cat", stdin=data)
    assert ran.code == 0
    assert ran.stdout == data


def test_the_end_of_input_reaches_the_process_while_output_still_comes(world: World) -> None:
    ran = world.run("sh", "-c", "cat >/dev/null; echo after the end", stdin=b"input")
    assert ran.text == "after the end\n"


def test_a_process_that_does_not_read_its_input_is_no_obstacle(world: World) -> None:
    assert world.run("sh", "-c", "head -c 1 >/dev/null; echo done", stdin=b"x" * (4 << 20)).text == "done\n"


def test_more_output_than_anybody_buffers_arrives_whole(world: World) -> None:
    ran = world.run("sh", "-c", "head -c 20000000 /dev/zero; echo end >&2")
    assert (len(ran.stdout), ran.stderr) == (20_000_000, b"end\n")


def test_inside_it_is_dockers_world(world: World) -> None:
    script = "hostname; echo $$; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; grep ' / / ' /proc/self/mountinfo"
    container = world.create("sh", "-c", script)
    connection = world.containers.start(container.id, attach=("stdout",))
    assert connection is not None
    lines = pump(connection).stdout.decode().splitlines()
    world.containers.finish(container.id, connection)
    world.containers.remove(container.id)
    assert lines[0] == container.short_id
    assert lines[1] == "1"
    assert lines[2].split()[1] == "00000000a80425fb"
    assert lines[3].split()[1] == "2"
    assert "overlay" in lines[4]


def test_the_image_decides_what_the_spec_leaves_open(world: World, busybox_tar: bytes) -> None:
    config = ContainerConfig(
        user="alice",
        env=("A=image", "B=image"),
        entrypoint=("sh", "-c"),
        cmd=("id -un; pwd; echo $A $B $HOME",),
        working_dir="/tmp",
    )
    world.image("configured", config, busybox_tar)
    assert world.run(image="configured", env=("B=spec",)).text == "alice\n/tmp\nimage spec /home/alice\n"
    assert world.run("echo other", image="configured").text == "other\n"
    assert world.run("echo", "x", image="configured", entrypoint=()).text == "x\n"
    assert world.run("id -u", image="configured", user="0", working_dir="/").text == "0\n"


def test_an_image_without_a_command_needs_one(world: World) -> None:
    with pytest.raises(InvalidInput, match="no command"):
        world.create()


def test_a_name_belongs_to_one_container(world: World) -> None:
    first = world.create("true", name="single")
    with pytest.raises(Conflict, match="'single' is in use by " + first.short_id):
        world.create("true", name="single")
    assert world.containers.get("single").id == first.id
    assert world.containers.get(first.id[:10]).id == first.id
    world.containers.rename("single", "renamed")
    assert world.containers.get("renamed").id == first.id
    with pytest.raises(NotFound):
        world.containers.get("single")
    world.containers.remove("renamed")


def test_names_that_nobody_chose_are_readable(world: World) -> None:
    container = world.create("true")
    adjective, underscore, person = container.name.partition("_")
    assert adjective.isalpha()
    assert underscore
    assert person.isalnum()
    world.containers.remove(container.id)


def test_the_terminal_is_a_terminal(world: World) -> None:
    ran = world.run("sh", "-c", "test -t 0 && test -t 1 && tty && echo yes", stdin=b"", tty=True)
    assert ran.stdout.replace(b"\r", b"").splitlines()[-1] == b"yes"


def test_a_terminal_hears_of_its_new_size(world: World) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 0.1; done"
    container = world.create("sh", "-c", script, tty=True, stdin=True)
    connection = world.containers.start(container.id, attach=("stdin", "stdout"))
    assert connection is not None
    output = bytearray()
    sent = False

    def take(kind: int, data: bytes) -> None:
        nonlocal sent
        output.extend(data)
        if b"ready" in output and not sent:
            sent = True
            world.containers.resize(container.id, 33, 99)

    connection.pump(take)
    world.containers.finish(container.id, connection)
    assert b"33 99" in output
    world.containers.remove(container.id)


def test_stop_sends_the_stop_signal_and_later_kills(world: World) -> None:
    polite = world.up("sh", "-c", "trap 'echo bye; exit 4' TERM; echo up; while true; do sleep 0.05; done")
    stubborn = world.up("sh", "-c", "trap '' TERM; echo up; while true; do sleep 0.05; done")
    usr1 = world.up("sh", "-c", "trap 'exit 5' USR1; while true; do sleep 0.05; done", stop_signal="USR1")
    _said(world, polite.id, "up")
    _said(world, stubborn.id, "up")
    assert world.containers.stop(polite.id, PATIENCE)
    assert world.ended(polite.id).code == 4
    assert world.log(polite.id) == "up\nbye\n"
    assert world.containers.stop(stubborn.id, 0.2)
    assert world.ended(stubborn.id).code == 137
    world.containers.stop(usr1.id, PATIENCE)
    assert world.ended(usr1.id).code in (
        5,
        138,
    )  # before the trap was set, it is ignored by pid 1 and then killed
    assert not world.containers.stop(polite.id)
    for container in (polite, stubborn, usr1):
        world.containers.remove(container.id)


def _said(world: World, name: str, word: str) -> None:
    """Until the log has a line."""
    for line in world.containers.logs(name, follow=True):
        if line.data.decode().strip() == word:
            return
    raise AssertionError(f"{name} never said {word}")


def test_kill_sends_any_signal(world: World) -> None:
    container = world.up("sh", "-c", "trap 'echo got it' USR2; echo up; while true; do sleep 0.05; done")
    _said(world, container.id, "up")
    world.containers.kill(container.id, signal.SIGUSR2)
    _said(world, container.id, "got it")
    world.containers.kill(container.id)
    assert world.ended(container.id).code == 137
    with pytest.raises(Conflict, match="not running"):
        world.containers.kill(container.id)
    world.containers.remove(container.id)


def test_a_stopped_container_starts_again_with_its_files_and_log(world: World) -> None:
    container = world.up("sh", "-c", "cat /count 2>/dev/null; echo once >>/count")
    world.ended(container.id)
    world.containers.start(container.id)
    world.ended(container.id)
    assert world.log(container.id) == "once\n"
    world.containers.remove(container.id)


def test_waiting_begins_before_the_start(world: World) -> None:
    import threading

    container = world.create("sh", "-c", "exit 9")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(world.ended(container.id).code))
    thread.start()
    world.containers.start(container.id)
    thread.join(PATIENCE)
    assert codes == [9]
    world.containers.remove(container.id)


def test_pause_stops_the_clock_of_a_container(world: World) -> None:
    container = world.up("sh", "-c", "while true; do echo tick; sleep 0.02; done")
    _said(world, container.id, "tick")
    world.containers.pause(container.id)
    assert world.containers.get(container.id).state.status == "paused"
    with pytest.raises(Conflict):
        world.containers.pause(container.id)
    with open(f"/proc/{container.state.pid}/stat") as file:
        before = file.read().split()[13:15]
    world.containers.unpause(container.id)
    assert before
    _said(world, container.id, "tick")
    world.containers.pause(container.id)
    world.containers.remove(container.id, force=True)
    assert not alive(container.state.pid)


def test_a_running_container_is_removed_only_by_force(world: World) -> None:
    container = world.up("sleep", "1000")
    with pytest.raises(Conflict, match="is running"):
        world.containers.remove(container.id)
    world.containers.remove(container.id, force=True)
    wait_gone(container.state.pid)
    assert not os.path.exists(container.directory)


def test_a_memory_hog_is_killed_and_it_is_said_so(world: World) -> None:
    hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)"
    ran = world.run(
        "sh",
        "-c",
        f"exec 2>/dev/null; {hog}; echo survived",
        limits=Limits(memory=16 << 20, memory_swap=16 << 20),
    )
    assert b"survived" not in ran.stdout
    assert ran.status.oom_killed
    assert ran.code != 0


def test_a_read_only_root_with_a_tmpfs(world: World) -> None:
    from runtime.containers.spec import Mount

    script = "touch /x 2>/dev/null || echo no; touch /scratch/x && echo yes; stat -c %a /scratch"
    mounts = (Mount(type="tmpfs", target="/scratch", mode=0o700),)
    assert world.run("sh", "-c", script, read_only=True, mounts=mounts).text == "no\nyes\n700\n"


def test_twenty_at_once(world: World) -> None:
    import threading

    results: dict[int, str] = {}

    def one(number: int) -> None:
        try:
            results[number] = world.run("echo", str(number)).text
        except PipeError as error:
            results[number] = str(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == {number: f"{number}\n" for number in range(20)}
