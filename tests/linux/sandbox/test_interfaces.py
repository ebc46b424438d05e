"""Interfaces given to a paused container are configured by it, inside, before its program starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid

import pytest

from runtime.sandbox import defaults
from runtime.sandbox.errors import SandboxError
from runtime.sandbox.plan import Json
from runtime.sandbox.spawner import Process
from tests.support.sandbox import Bench

pytestmark = [pytest.mark.linux, pytest.mark.skipif(not shutil.which("ip"), reason="no iproute2")]


def give_interface(process: Process) -> str:
    """A pair of interfaces in the container's namespace; they go with it."""
    name, pid = f"pt{uuid.uuid4().hex[:10]}", str(process.pid)
    command = [
        "ip",
        "link",
        "add",
        name,
        "netns",
        pid,
        "type",
        "veth",
        "peer",
        "name",
        f"{name}p",
        "netns",
        pid,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode:
        pytest.skip(f"no interface can be made: {result.stderr}")
    return name


def run_with(box: Bench, script: str, **interface: object) -> str:
    reader, writer = os.pipe()
    process = box.spawner.create(box.plan("sh", "-c", script), -1, writer, writer, pause=True)
    os.close(writer)
    try:
        given: Json = {"name": "eth0", "link": give_interface(process), **interface}
        process.release([given])
        assert process.wait(60) is not None
        return os.read(reader, 65536).decode()
    finally:
        process.kill()
        process.wait(60)
        os.close(reader)


def test_an_interface_gets_its_name_address_route_and_more(box: Bench) -> None:
    output = run_with(
        box,
        "ip addr show eth0; ip route; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu",
        address="172.30.5.2/16",
        gateway="172.30.0.1",
        mac="02:42:ac:1e:05:02",
        mtu=1400,
    )
    assert "172.30.5.2/16 brd 172.30.255.255" in output
    assert "default via 172.30.0.1 dev eth0" in output
    assert "02:42:ac:1e:05:02" in output and "1400" in output.split()


def test_an_interface_can_have_an_address_of_version_six(box: Bench) -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6")
    assert "fd00::5/64" in run_with(box, "ip -6 addr show eth0", address6="fd00::5/64")


def test_an_interface_that_does_not_exist_is_a_fault_of_the_network(box: Bench) -> None:
    plan = box.plan(config=defaults.config(["true"]))
    plan.interfaces = [{"name": "eth0", "address": "10.0.0.2/24"}]
    with pytest.raises(SandboxError, match="configure the network"):
        box.spawner.create(plan)
