"""The embedded name server, on sockets of this host's loopback, with names and servers made up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from runtime.networks.addresses import dotted, number
from runtime.networks.resolver import Resolver

PATIENCE = 30.0
ME = "c" * 64


class Names:
    """Two containers called db, on a network that leads outside unless told otherwise."""

    outside = True

    def lookup(self, container: str, name: str) -> list[int]:
        assert container == ME
        return [number("172.30.0.2"), number("172.30.0.3")] if name in ("db", "db.web") else []

    def name_of(self, container: str, address: int) -> str:
        return "db.web" if dotted(address) == "172.30.0.2" else ""

    def reaches_outside(self, container: str) -> bool:
        return self.outside


class Upstream:
    """A name server that knows one name, over UDP (truncated) and TCP; it remembers what it was asked."""

    def __init__(self) -> None:
        self.datagrams, self.stream = sockets()
        self.port = self.stream.getsockname()[1]
        self.asked: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=(each,)) for each in (self._udp, self._tcp)]
        for each in (self.datagrams, self.stream):
            each.settimeout(0.2)
        for thread in self._threads:
            thread.start()

    def _loop(self, step: object) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                step()  # type: ignore[operator]

    def _udp(self) -> None:
        data, peer = self.datagrams.recvfrom(4096)
        reply = self.answer(data, "udp")
        if "big" in str(reply.q.qname):
            reply = reply.truncate()
        self.datagrams.sendto(reply.pack(), peer)

    def _tcp(self) -> None:
        connection, _ = self.stream.accept()
        with connection:
            connection.settimeout(PATIENCE)
            reply = self.answer(connection.recv(4096)[2:], "tcp").pack()
            connection.sendall(struct.pack("!H", len(reply)) + reply)

    def answer(self, data: bytes, over: str) -> DNSRecord:
        question = DNSRecord.parse(data)
        self.asked.append(f"{over} {question.q.qname}")
        reply = question.reply()
        reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A("192.0.2.80"), ttl=60))
        return reply

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self.datagrams.close()
        self.stream.close()


def sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one free port."""
    for _ in range(50):
        stream = socket.create_server(("127.0.0.1", 0))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagrams.bind(stream.getsockname())
        except OSError:
            stream.close()
            datagrams.close()
        else:
            return datagrams, stream
    raise AssertionError("no free port")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def resolver(upstream: Upstream, names: Names) -> Iterator[tuple[str, int]]:
    pair = sockets()
    server = Resolver(pair, names, ME, ("127.0.0.1",), port=upstream.port)
    server.start()
    yield pair[1].getsockname()
    server.close()


def ask(server: tuple[str, int], name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    packed = DNSRecord.question(name, kind)
    return DNSRecord.parse(packed.send(*server, tcp=tcp, timeout=PATIENCE))


def values(answer: DNSRecord) -> list[str]:
    return sorted(str(record.rdata) for record in answer.rr)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_containers_name_stands_for_all_its_addresses(resolver: tuple[str, int], tcp: bool) -> None:
    for name in ("db", "DB", "db.web"):
        assert values(ask(resolver, name, tcp=tcp)) == ["172.30.0.2", "172.30.0.3"]


def test_a_known_name_has_no_ipv6_address_but_exists(resolver: tuple[str, int], upstream: Upstream) -> None:
    answer = ask(resolver, "db", "AAAA")
    assert (answer.header.rcode, answer.rr) == (0, [])
    assert upstream.asked == []


def test_an_address_is_traced_back_to_its_container(resolver: tuple[str, int], upstream: Upstream) -> None:
    assert values(ask(resolver, "2.0.30.172.in-addr.arpa", "PTR")) == ["db.web."]
    ask(resolver, "9.0.30.172.in-addr.arpa", "PTR")
    assert upstream.asked == ["udp 9.0.30.172.in-addr.arpa."]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_other_names_are_asked_for_outside(resolver: tuple[str, int], upstream: Upstream, tcp: bool) -> None:
    assert values(ask(resolver, "example.com", tcp=tcp)) == ["192.0.2.80"]
    assert upstream.asked == [f"{'tcp' if tcp else 'udp'} example.com."]


def test_a_truncated_answer_is_handed_on_so_that_the_client_asks_again_over_tcp(
    resolver: tuple[str, int],
) -> None:
    assert ask(resolver, "big.example.com").header.tc
    assert values(ask(resolver, "big.example.com", tcp=True)) == ["192.0.2.80"]


def test_one_on_internal_networks_only_asks_nobody_outside(
    resolver: tuple[str, int], upstream: Upstream, names: Names
) -> None:
    names.outside = False
    assert ask(resolver, "example.com").header.rcode == 2  # SERVFAIL
    assert values(ask(resolver, "db")) == ["172.30.0.2", "172.30.0.3"]
    assert upstream.asked == []


def test_without_a_server_that_answers_the_question_fails_at_once(names: Names) -> None:
    pair, silent = sockets(), sockets()
    dead = silent[1].getsockname()[1]
    for each in silent:
        each.close()
    server = Resolver(pair, names, ME, ("127.0.0.1",), port=dead)
    server.start()
    try:
        assert ask(pair[1].getsockname(), "example.com").header.rcode == 2
    finally:
        server.close()


def test_a_server_may_have_an_ipv6_address(names: Names) -> None:
    pair = sockets()
    asked = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        asked.bind(("::1", 0))
    except OSError:
        asked.close()
        for each in pair:
            each.close()
        pytest.skip("no IPv6 loopback here")
    asked.settimeout(PATIENCE)
    server = Resolver(pair, names, ME, ("::1",), port=asked.getsockname()[1])
    server.start()

    def answer() -> None:
        data, peer = asked.recvfrom(4096)
        reply = DNSRecord.parse(data).reply()
        reply.add_answer(RR("example.com", QTYPE.A, rdata=A("192.0.2.81")))
        asked.sendto(reply.pack(), peer)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert values(ask(pair[1].getsockname(), "example.com")) == ["192.0.2.81"]
    finally:
        thread.join()
        server.close()
        asked.close()


def test_garbage_is_answered_and_survived(resolver: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        for garbage in (b"\x12\x34" + bytes([0xFF]) * 30, b"", b"\x00", b"\x12\x34" + bytes(10)):
            client.sendto(garbage, resolver)
    assert values(ask(resolver, "db")) == ["172.30.0.2", "172.30.0.3"]


def test_several_questions_go_over_one_connection(resolver: tuple[str, int]) -> None:
    with socket.create_connection(resolver, timeout=PATIENCE) as connection:
        stream = connection.makefile("rb")
        for name in ("db", "example.com", "db.web"):
            question = DNSRecord.question(name).pack()
            connection.sendall(struct.pack("!H", len(question)) + question)
            (length,) = struct.unpack("!H", stream.read(2))
            assert DNSRecord.parse(stream.read(length)).rr
        stream.close()
