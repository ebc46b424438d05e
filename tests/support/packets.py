"""A client of fsutil's protocol that plays what was recorded, or what a test makes up."""

from __future__ import annotations

import base64
import gzip
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from builder.control.messages.files import Packet, PacketType, Stat
from runtime.grpc.protobuf import Message

RECORDED = Path(__file__).resolve().parents[1] / "data" / "buildkit" / "diffcopy.json.gz"
M = TypeVar("M", bound=Message)


class Played:
    """Stands for a `Stream`: entries come at once, a content when it is asked for."""

    def __init__(
        self, stats: list[Stat], contents: dict[int, list[bytes]], *, cut_at: int | None = None
    ) -> None:
        """`cut_at`: the client is gone after so many packets of content."""
        self.coming = deque(Packet(PacketType.STAT, stat) for stat in stats)
        self.coming.append(Packet(PacketType.STAT))
        self.contents, self._cut_at = contents, cut_at
        self.asked: list[int] = []
        self.on_the_way = self.most_on_the_way = 0
        self.ended = False

    @property
    def has_more(self) -> bool:
        return bool(self.coming)

    def messages(self, kind: type[M]) -> Iterator[M]:
        while self.coming:
            packet = self.coming.popleft()
            if packet.type == PacketType.DATA:
                if self._cut_at == 0:
                    return
                if self._cut_at is not None:
                    self._cut_at -= 1
                self.on_the_way -= not packet.data
            yield kind.decode(packet.encode())

    def write(self, *packets: Message) -> None:
        for packet in packets:
            assert isinstance(packet, Packet)
            if packet.type == PacketType.END:
                self.coming.append(Packet(PacketType.END))
                continue
            assert packet.type == PacketType.REQUEST
            self.asked.append(packet.id)
            self.on_the_way += 1
            self.most_on_the_way = max(self.most_on_the_way, self.on_the_way)
            pieces = [Packet(PacketType.DATA, id=packet.id, data=data) for data in self.contents[packet.id]]
            self.coming.extend([*pieces, Packet(PacketType.DATA, id=packet.id)])

    def end_sending(self) -> None:
        self.ended = True


def recorded() -> Played:
    """What docker's client (buildx 0.29.1) sent of a directory with every kind of entry."""
    stats: list[Stat] = []
    contents: dict[int, list[bytes]] = {}
    for text in json.loads(gzip.decompress(RECORDED.read_bytes())):
        packet = Packet.decode(base64.b64decode(text or ""))
        if packet.type == PacketType.STAT and packet.stat is not None:
            stats.append(packet.stat)
        elif packet.type == PacketType.DATA:
            pieces = contents.setdefault(packet.id, [])
            if packet.data:
                pieces.append(packet.data)
    return Played(stats, contents)


def played(*entries: tuple[Stat, bytes], cut_at: int | None = None) -> Played:
    stats = [stat for stat, _ in entries]
    contents = {number: [data] if data else [] for number, (_, data) in enumerate(entries)}
    return Played(stats, contents, cut_at=cut_at)
