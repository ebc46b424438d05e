"""Network namespaces from a process that has threads.

A namespace belongs to a thread, so work inside another one is done by a thread made for it and ended with it. A
namespace made here is held by a file descriptor and by nothing else: it goes with the process, also by kill -9.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from runtime.linux.namespaces import CLONE_NEWNET, setns, unshare
from runtime.linux.netlink import loopback_up

T = TypeVar("T")


def _in_thread(action: Callable[[], T]) -> T:
    """Run `action` on a thread of its own and hand on what it returns or raises."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001  # raised again by the one who waits
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def inside(namespace: int, action: Callable[[], T]) -> T:
    """Run `action` in the network namespace behind a descriptor; sockets it opens stay there."""

    def body() -> T:
        setns(namespace, CLONE_NEWNET)
        return action()

    return _in_thread(body)


def open_of(pid: int) -> int:
    """The network namespace of a process, as a descriptor."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def inside_of(pid: int, action: Callable[[], T]) -> T:
    namespace = open_of(pid)
    try:
        return inside(namespace, action)
    finally:
        os.close(namespace)


def new() -> int:
    """A new network namespace with its loopback up, as a descriptor."""

    def body() -> int:
        unshare(CLONE_NEWNET)
        loopback_up()
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(body)


def dns_sockets(address: str = "127.0.0.11", port: int = 53) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on the loopback of the namespace one is in."""
    loopback_up()  # a container's init, paused before its own set-up, has not got to that yet
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        datagrams.bind((address, port))
        stream.bind((address, port))
        stream.listen(64)
    except BaseException:
        datagrams.close()
        stream.close()
        raise
    return datagrams, stream
