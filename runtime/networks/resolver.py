"""A container's name server, 127.0.0.11: names of its networks from the database, the rest from the host's resolvers.

It runs in whatever process keeps the container. Its two sockets live in the container's network namespace, those it asks
others with in the host's: so a resolver on the host's own loopback can be reached too. dnslib is imported with the first
question, not with the container.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from runtime.networks.addresses import dotted, number
from runtime.networks.names import nameservers, read_host_resolv_conf

TTL = 5  # containers come and go; long enough for one burst of connections
_TIMEOUT, _PARALLEL = 4.0, 64
_SERVFAIL = 2


class Names(Protocol):
    """Who knows the names; `records.NetworkRecords` does."""

    def lookup(self, container: str, name: str) -> list[int]: ...
    def name_of(self, container: str, address: int) -> str: ...
    def reaches_outside(self, container: str) -> bool: ...


class Resolver:
    """Answers on two sockets until closed; every forwarded question has a thread of its own, a limited number at once."""

    def __init__(
        self,
        sockets: tuple[socket.socket, socket.socket],
        names: Names,
        container: str,
        servers: Sequence[str] = (),
        *,
        port: int = 53,
    ) -> None:
        self._datagrams, self._stream = sockets
        self._names, self._container = names, container
        self._servers, self._port = tuple(servers), port
        self._wake, self._closer = socket.socketpair()
        self._slots = threading.BoundedSemaphore(_PARALLEL)
        self._thread = threading.Thread(target=self._serve, name="resolver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop answering; what is under way is given up."""
        self._closer.close()
        if self._thread.ident is not None:
            self._thread.join()
        for each in (self._wake, self._datagrams, self._stream):
            each.close()

    def _serve(self) -> None:
        poll = select.poll()
        for each in (self._wake, self._datagrams, self._stream):
            poll.register(each, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._wake.fileno():
                    return
                with contextlib.suppress(OSError):  # a client that went away, a namespace that ended
                    if descriptor == self._datagrams.fileno():
                        self._datagram()
                    else:
                        connection, _ = self._stream.accept()
                        self._spawn(functools.partial(self._converse, connection), connection.close)

    def _spawn(self, action: Callable[[], None], give_up: Callable[[], object]) -> None:
        if not self._slots.acquire(blocking=False):
            give_up()  # the client asks again
            return

        def body() -> None:
            try:
                with contextlib.suppress(OSError):
                    action()
            finally:
                self._slots.release()

        threading.Thread(target=body, name="resolve", daemon=True).start()

    def _datagram(self) -> None:
        question, client = self._datagrams.recvfrom(65535)
        own = self.own_answer(question)
        if own is not None:
            if own:
                self._datagrams.sendto(own, client)
            return
        self._spawn(lambda: self._relay(question, client), lambda: None)

    def _relay(self, question: bytes, client: Any) -> None:
        self._datagrams.sendto(self._forward(question, _ask_datagram), client)

    def _converse(self, connection: socket.socket) -> None:
        """Questions on a TCP connection, each behind its length (RFC 1035, 4.2.2)."""
        with connection:
            connection.settimeout(30)
            while (question := _read_message(connection)) is not None:
                answer = self.own_answer(question)
                if answer is None:
                    answer = self._forward(question, _ask_stream)
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def own_answer(self, question: bytes) -> bytes | None:
        """The answer if it is ours to give, b"" for none at all; None when somebody else must be asked."""
        from dnslib import DNSError, DNSRecord

        try:
            record = DNSRecord.parse(question)
        except (DNSError, ValueError, IndexError):
            return _refusal(question, 1)  # FORMERR
        if record.header.qr:
            return b""  # an answer; to answer it could go on forever
        if len(record.questions) != 1:
            return _refusal(question, 1)
        name = str(record.q.qname).rstrip(".").lower()
        if name.endswith(".in-addr.arpa"):
            return self._reverse(record, name)
        addresses = self._names.lookup(self._container, name)
        if addresses:
            return _with_addresses(record, addresses)
        return None if self._names.reaches_outside(self._container) else _refusal(question, _SERVFAIL)

    def _reverse(self, record: Any, name: str) -> bytes | None:
        from dnslib import PTR, QTYPE, RR

        labels = name.removesuffix(".in-addr.arpa").split(".")
        if len(labels) != 4 or not all(label.isdigit() and int(label) < 256 for label in labels):
            return None
        known = self._names.name_of(self._container, number(".".join(reversed(labels))))
        if not known:
            return None
        reply = record.reply()
        if record.q.qtype in (QTYPE.PTR, QTYPE.ANY):
            reply.add_answer(RR(record.q.qname, QTYPE.PTR, rdata=PTR(known), ttl=TTL))
        return bytes(reply.pack())

    def _forward(self, question: bytes, ask: Callable[[tuple[str, int], bytes], bytes]) -> bytes:
        # The host's are read every time: it may have moved to another network since.
        for server in self._servers or nameservers(read_host_resolv_conf()):
            try:
                answer = ask((server, self._port), question)
            except OSError:
                continue
            if len(answer) >= 12 and answer[:2] == question[:2]:
                return answer
        return _refusal(question, _SERVFAIL)


def _with_addresses(record: Any, addresses: list[int]) -> bytes:
    """All addresses of a name, in another order each time. A question for AAAA gets an empty answer, not NXDOMAIN: the name exists."""
    import random

    from dnslib import QTYPE, RR, A

    reply = record.reply()
    if record.q.qtype in (QTYPE.A, QTYPE.ANY):
        for address in random.sample(addresses, len(addresses)):
            reply.add_answer(RR(record.q.qname, QTYPE.A, rdata=A(dotted(address)), ttl=TTL))
    return bytes(reply.pack())


def _refusal(question: bytes, code: int) -> bytes:
    """An answer without content, made from the question's first bytes only: it need not be readable."""
    if len(question) < 12:
        return b""
    flags = struct.unpack("!H", question[2:4])[0]
    header = question[:2] + struct.pack("!HHHHH", 0x8080 | (flags & 0x7900) | code, 1, 0, 0, 0)
    end = _end_of_question(question)
    return (
        header + question[12:end] if end else question[:2] + struct.pack("!HHHHH", 0x8080 | code, 0, 0, 0, 0)
    )


def _end_of_question(message: bytes) -> int:
    position = 12
    while position < len(message) and (length := message[position]):
        position += length + 1
        if length > 63:
            return 0
    return position + 5 if position + 5 <= len(message) else 0


def _ask_datagram(server: tuple[str, int], question: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_TIMEOUT)
        asking.connect(server)
        asking.send(question)
        return asking.recv(65535)


def _ask_stream(server: tuple[str, int], question: bytes) -> bytes:
    with socket.create_connection(server, timeout=_TIMEOUT) as asking:
        asking.sendall(struct.pack("!H", len(question)) + question)
        answer = _read_message(asking)
    if answer is None:
        raise ConnectionError(f"{server[0]} closed the connection")
    return answer


def _read_message(connection: socket.socket) -> bytes | None:
    size = _read_exactly(connection, 2)
    return None if size is None else _read_exactly(connection, struct.unpack("!H", size)[0])


def _read_exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            return None
        data += chunk
    return data
