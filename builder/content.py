"""The content a COPY or a bind mount takes in, as one digest (FEATURES B-4).

It is the digest of a list with one line for every directory and every stretch of files (`operations.walking`); a
stretch's own digest is that of its files' lines. So a stretch that is remembered answers for all of its files, and
nothing grows with their number but the lines that are kept for `pipe why`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from registry_client.values import frozen

if TYPE_CHECKING:
    from builder.digests import Memory
    from builder.lines import Piece
    from builder.operations.seen import Seen
    from builder.operations.selection import Group
    from builder.operations.walking import Item, Stretch
    from runtime.cancel import Cancel

_MOST_KEPT = 32 << 20  # bytes of lines: more is not compared file by file
_LOOSE = 512  # lines of a piece that is no stretch
NOTHING_STORED: Mapping[bytes, int] = {}


@frozen
class Content:
    """One digest over all, and for `pipe why` the files' lines in pieces (none where only the digest is needed).

    `copied` are the fingerprints of stretches that were copied with nothing special about them (`Style.as_copied`).
    """

    digest: str
    pieces: tuple[Piece, ...] = ()
    copied: tuple[bytes, ...] = ()


EMPTY_CONTENT = Content("")


def combined(parts: Sequence[Content]) -> Content:
    """The content of several sources."""
    if len(parts) == 1:
        return parts[0]
    text = "\n".join(part.digest for part in parts)
    return Content(_digest(text.encode()), tuple(piece for part in parts for piece in part.pieces))


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class ContentWriter:
    """Takes in a selection, group by group and stretch by stretch, in its order.

    With `newest_ns`, which later times are set to, an earlier time counts: the layer will carry it. Owners count where
    they are kept. With `keep_lines` a stretch that is only `known` does not do, unless its lines are among those `stored`
    (names of pieces, and their lengths).
    """

    def __init__(
        self,
        *,
        keep_owner: bool,
        newest_ns: int | None = None,
        keep_lines: bool = False,
        stored: Mapping[bytes, int] = NOTHING_STORED,
    ) -> None:
        self._keep_owner, self._newest_ns, self._keep_lines = keep_owner, newest_ns, keep_lines
        self.flavour = (
            f"1 {int(keep_owner)} {newest_ns}"  # what a stretch's digest depends on besides the stretch
        )
        self._hash = hashlib.sha256()
        self._stored = stored
        self._pieces: list[Piece] = []
        self._kept = 0
        self._own = b""  # the line of a directory, which goes with the first stretch in it
        self._loose: list[bytes] = []
        self.copied: list[bytes] = []

    def group(self, group: Group) -> None:
        # A group's own name is part of what COPY makes of a single file, not of a directory's contents.
        self._hash.update(b"dir\0" if group.is_directory else b"file\0")

    def directory(self, item: Item) -> None:
        line = self._line(item, b"")
        self._hash.update(line + b"\0")
        self._end_directory()
        self._own = line

    def takes_known(self, digest: bytes) -> bool:
        """Whether the next stretch can be taken in by its digest alone."""
        return not self._keep_lines or self._name_of_piece(digest) in self._stored

    def known(self, digest: bytes) -> None:
        """A stretch whose files need not be looked at."""
        self._hash.update(digest.hex().encode() + b"\0")
        if self._keep_lines:
            name = self._name_of_piece(digest)
            self._keep(name, None, self._stored[name])
            self._own = b""

    def _name_of_piece(self, digest: bytes) -> bytes:
        return hashlib.sha256(digest + self._own).digest()

    def files(self, stretch: Stretch, digests: Iterable[bytes]) -> bytes:
        """A stretch, with each file's digest (empty for what is no regular file); its own digest."""
        lines = b"\n".join(map(self._line, stretch.files(), digests))
        digest = hashlib.sha256(lines).digest()
        self._hash.update(digest.hex().encode() + b"\0")
        if not self._keep_lines:
            return digest
        if stretch.single is not None:
            self._end_directory()
            self._keep_loose(lines)
            return digest
        text = self._own + b"\n" + lines if self._own else lines
        self._keep(self._name_of_piece(digest), text, len(text))
        self._own = b""
        return digest

    def _line(self, item: Item, digest: bytes) -> bytes:
        """Name, mode, owner, size, link target, device: all but the times, unless they are to be reproduced."""
        name, path, status = item
        mode = status.st_mode
        more = ""
        if stat.S_ISREG(mode):
            size = status.st_size
        else:
            size = 0  # what a directory's is depends on the file system
            if stat.S_ISLNK(mode):
                more = os.readlink(path)
            elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                more = str(status.st_rdev)
        owner = f"{status.st_uid}:{status.st_gid}" if self._keep_owner else "0:0"
        if self._newest_ns is not None and status.st_mtime_ns < self._newest_ns:
            more += f"@{status.st_mtime_ns}"
        line = f"{digest.hex()}\0{mode:o}\0{owner}\0{size}\0{more}\0{name}"
        return line.encode("utf-8", "surrogateescape")

    def _end_directory(self) -> None:
        """Let the line of one that has no files of its own not wait any longer."""
        own, self._own = self._own, b""
        if own and self._keep_lines:
            self._keep_loose(own)

    def _keep_loose(self, line: bytes) -> None:
        """Lines that come one by one share a piece."""
        self._loose.append(line)
        if len(self._loose) == _LOOSE:
            self._end_loose()

    def _end_loose(self) -> None:
        if self._loose:
            text = b"\n".join(self._loose)
            self._loose.clear()
            self._keep(hashlib.sha256(text).digest(), text, len(text))

    def _keep(self, name: bytes, lines: bytes | None, size: int) -> None:
        self._kept += size
        if self._kept > _MOST_KEPT:
            self._keep_lines = False
            self._pieces.clear()
            self._loose.clear()
        else:
            self._pieces.append((name, lines))

    def finish(self) -> Content:
        self._end_directory()
        self._end_loose()
        return Content("sha256:" + self._hash.hexdigest(), tuple(self._pieces), tuple(self.copied))


def content_of(
    groups: Sequence[Group],
    memory: Memory,
    *,
    keep_owner: bool,
    newest_ns: int | None = None,
    cancel: Cancel | None = None,
    keep_lines: bool = False,
    seen: Seen | None = None,
) -> Content:
    """The content of a selection; files that are not remembered are read. What it comes upon is noted in `seen`."""
    from builder.operations.regular import read_digest

    writer = ContentWriter(keep_owner=keep_owner, newest_ns=newest_ns, keep_lines=keep_lines)
    for group in groups:
        writer.group(group)
        for stretch in group.stretches():
            if stretch.directory is not None:
                writer.directory(stretch.directory)
            kept = stretch if seen is None else seen.add(stretch)
            if not stretch.is_filled:
                continue
            if cancel is not None:
                cancel.check()
            fingerprint = memory.fingerprint(kept, writer.flavour)
            known = memory.know_stretch(fingerprint)
            if known is not None and writer.takes_known(known):
                writer.known(known)
                continue
            files = memory.directory(stretch.inode)
            digests = [read_digest(item, files, cancel) for item in stretch.files()]
            digest = writer.files(stretch, digests)
            if known is None:
                memory.learn_stretch(fingerprint, stretch.statuses, digest)
    if seen is not None:
        seen.end()
    return writer.finish()
