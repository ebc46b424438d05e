"""`--runtime crun`: the same container, made by another OCI runtime."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from runtime.containers.spec import Limits
from runtime.errors import Unsupported
from tests.support.containers import PATIENCE, World

pytestmark = [
    pytest.mark.linux,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun"),
]


def test_output_exit_code_and_facts_are_the_same(world: World) -> None:
    script = "hostname >/dev/null; grep -E '^(CapEff|Seccomp:)' /proc/self/status; echo err >&2; exit 3"
    native, other = world.run("sh", "-c", script), world.run("sh", "-c", script, runtime="crun")
    assert (other.stdout, other.stderr, other.code) == (native.stdout, native.stderr, native.code)
    assert b"a80425fb" in other.stdout and b"Seccomp:\t2" in other.stdout


def test_a_missing_command_is_127(world: World) -> None:
    assert world.run("nosuchcommand", runtime="crun").code == 127


def test_it_can_be_stopped_and_leaves_nothing(world: World) -> None:
    container = world.create("sleep", "600", runtime="crun", limits=Limits(pids=50))
    world.containers.start(container.id)
    world.containers.kill(container.id, signal.SIGKILL)
    status = world.containers.wait(container.id, PATIENCE)
    assert status is not None and status.code == 137
    world.containers.remove(container.id)
    assert not os.path.exists(container.directory)


def test_an_unknown_runtime_is_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(Unsupported, match="no-such-runtime"):
        world.create("true", runtime="no-such-runtime")
