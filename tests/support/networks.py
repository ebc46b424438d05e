"""A whole host to play with: the test runs in a network namespace of its own, with an uplink to an "outside".

What is made in it (bridges, rules, cables) goes with it, whatever happens to the test; the machine's own network is never
touched. Containers are processes in namespaces of their own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from runtime.containers.spec import NetworkAttachment
from runtime.linux.namespaces import CLONE_NEWNET, setns, unshare
from runtime.linux.netlink import Netlink, configure_interface, loopback_up
from runtime.networks import Endpoint, Networks
from runtime.networks.reclaim import remove_stores
from runtime.sandbox import netns

T = TypeVar("T")
PATIENCE = 20.0  # of a socket, on a machine that is busy with something else
REFUSAL = 1.0  # how long nothing must arrive where nothing may
HOST_ADDRESS, OUTSIDE_ADDRESS = "198.51.100.2", "198.51.100.1"


@contextlib.contextmanager
def own_host() -> Iterator[None]:
    """Within the block this thread, and what it starts, is in a fresh network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            loopback_up()
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def remove_networks_below(directory: Path) -> None:
    """Off the machine with what stores of tests left in its own namespace: bridges, cables, rules."""
    with Netlink() as netlink:
        remove_stores(netlink, lambda _, root: Path(root).is_relative_to(directory))


class Place:
    """A network namespace one can do things in."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._cleanup = contextlib.ExitStack()

    def do(self, action: Callable[[], T]) -> T:
        return netns.inside(self.descriptor, action)

    def fetch(self, address: str, port: int, *, patience: float = PATIENCE) -> str:
        """What a `serve` there answers, OSError when it cannot be reached."""
        with self.do(lambda: socket.create_connection((address, port), timeout=patience)) as connection:
            connection.settimeout(patience)
            return connection.makefile("rb").read().decode()

    def reaches(self, address: str, port: int) -> bool:
        try:
            self.fetch(address, port, patience=REFUSAL)
        except OSError:
            return False
        return True

    def serve(self, word: str, port: int = 0, address: str = "0.0.0.0") -> int:
        """A TCP server that answers `word` and the caller's address; its port."""
        listening = self.do(lambda: socket.create_server((address, port)))
        chosen: int = listening.getsockname()[1]
        self._background(listening, lambda: _greet(listening, word))
        return chosen

    def echo(self, port: int = 0, address: str = "0.0.0.0", word: str = "") -> int:
        """A UDP server that sends back what it gets, behind `word` and the caller's address; its port."""
        bound = self.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        bound.bind((address, port))
        chosen: int = bound.getsockname()[1]
        self._background(bound, lambda: _echo(bound, word))
        return chosen

    def send(self, address: str, port: int, data: bytes, *, patience: float = PATIENCE) -> bytes:
        with self.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sending:
            sending.settimeout(patience)
            sending.connect((address, port))
            sending.send(data)
            return sending.recv(4096)

    def run(self, *command: str, check: bool = True) -> str:
        """A program run in the namespace; what it printed."""
        done = self.do(
            lambda: subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        )
        if check:
            assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def _background(self, server: socket.socket, step: Callable[[], None]) -> None:
        server.settimeout(0.2)
        stopped = threading.Event()

        def body() -> None:
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    step()

        thread = threading.Thread(target=body, daemon=True)
        thread.start()

        def stop() -> None:
            stopped.set()
            thread.join()
            server.close()

        self._cleanup.callback(stop)

    def close(self) -> None:
        self._cleanup.close()
        os.close(self.descriptor)


def _greet(listening: socket.socket, word: str) -> None:
    connection, peer = listening.accept()
    with connection:
        connection.sendall(f"{word} to {peer[0]}".encode())


def _echo(bound: socket.socket, word: str) -> None:
    data, peer = bound.recvfrom(4096)
    bound.sendto(f"{word}{peer[0]}:".encode() + data, peer)


class Container(Place):
    """A process in a network namespace of its own, as the sandbox leaves it paused: without any network."""

    def __init__(self, name: str) -> None:
        script = "echo up; exec sleep 900"
        command = ["unshare", "--net", "/bin/sh", "-c", script]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        self.name, self.id, self.pid = name, os.urandom(32).hex(), self.process.pid
        super().__init__(netns.open_of(self.pid))

    def join(self, networks: Networks, network: str, **attachment: Any) -> Endpoint:
        endpoint = networks.connect(self.id, self.name, NetworkAttachment(network=network, **attachment))
        entry = networks.attach(endpoint, self.pid)
        self.do(loopback_up)
        self.do(lambda: configure_interface(**entry))  # type: ignore[arg-type]
        return endpoint

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def close(self) -> None:
        super().close()
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


class World:
    """The host the test is in, and what is around it."""

    def __init__(self) -> None:
        self._things = contextlib.ExitStack()
        self.host = self.adopt(Place(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
        self.outside = self.place()
        self.cable("eth0", f"{HOST_ADDRESS}/24", self.outside, f"{OUTSIDE_ADDRESS}/24", OUTSIDE_ADDRESS)

    def adopt(self, thing: Any) -> Any:
        self._things.callback(thing.close)
        return thing

    def place(self) -> Place:
        place: Place = self.adopt(Place(netns.new()))
        return place

    def container(self, name: str) -> Container:
        container: Container = self.adopt(Container(name))
        return container

    def cable(
        self, name: str, address: str, other: Place, other_address: str, gateway: str = "", master: int = 0
    ) -> None:
        """A pair of interfaces: `name` here, eth0 there."""
        with Netlink() as netlink:
            netlink.add_veth(name, "eth0", namespace=other.descriptor, master=master).commit()
        if address:
            configure_interface(name, address)
        # Both ends must be up before a route over them can be made.
        other.do(lambda: configure_interface("eth0", other_address, "" if gateway else address.split("/")[0]))
        if gateway:
            with Netlink() as netlink:
                link = netlink.link(name)
                assert link is not None
                netlink.add_route(link.index, gateway).commit()

    def other_engine(self, bridge: str = "docker0") -> Place:
        """A container of another engine, on its bridge, behind rules as dockerd makes them; FORWARD's policy is to drop."""
        with Netlink() as netlink:
            netlink.add_bridge(bridge).commit()
            link = netlink.link(bridge)
            assert link is not None
            netlink.add_address(link.index, "172.17.0.1/16").commit()
        theirs = self.place()
        self.cable("vethdocker", "", theirs, "172.17.0.2/16", master=link.index)
        theirs.do(lambda: configure_interface("eth0", "172.17.0.2/16", "172.17.0.1"))
        self.host.run("nft", DOCKER_RULES.replace("docker0", bridge))
        return theirs

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the kernel does in its own time."""
        end = time.monotonic() + PATIENCE * 3
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.05)

    def close(self) -> None:
        self._things.close()


# What `nft list ruleset` shows on a host with Docker 28 (iptables-nft), down to what matters for others.
DOCKER_RULES = """
table ip filter {
  chain DOCKER-USER { }
  chain DOCKER { iifname != "docker0" oifname "docker0" counter drop; }
  chain DOCKER-FORWARD {
    oifname "docker0" ct state related,established counter accept
    oifname "docker0" counter jump DOCKER
    iifname "docker0" counter accept
  }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
    counter jump DOCKER-FORWARD
  }
}
table ip nat {
  chain POSTROUTING {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
  }
}
"""
