"""Who the process is: a user given by number or by a name of the container's own /etc/passwd and /etc/group.

Parsing is pure; the files are read confined and size-capped by the caller (`paths.Root.read`). The rules are Docker's
(moby/sys/user, GetExecUser): a number needs no entry; without a group (`app`, `app:`) the user's
primary and supplementary groups apply; with one, only that group.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.sandbox.errors import SandboxError

_LARGEST = 2**32 - 2
_FILE_LIMIT = 4 << 20


class Identity:
    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and int(word) <= _LARGEST else None


def _rows(text: bytes, fields: int) -> list[list[str]]:
    rows = (
        line.split(":") for line in text.decode("utf-8", "replace").splitlines() if not line.startswith("#")
    )
    return [row for row in rows if len(row) >= fields]


def _find_user(word: str, passwd: bytes) -> tuple[int, int, str, str]:
    """uid, gid, name, home."""
    number = _number(word)
    for row in _rows(passwd, 6):
        uid, gid = _number(row[2]), _number(row[3])
        if uid is not None and (row[0] == word or uid == number):
            return uid, gid or 0, row[0], row[5] or "/"
    if number is None:
        raise SandboxError(f"no user {word!r} in /etc/passwd of the container", kind="input")
    return number, 0, "", "/"


def _find_group(word: str, group: bytes) -> int:
    number = _number(word)
    if number is not None:
        return number
    for row in _rows(group, 3):
        gid = _number(row[2])
        if row[0] == word and gid is not None:
            return gid
    raise SandboxError(f"no group {word!r} in /etc/group of the container", kind="input")


def _memberships(name: str, group: bytes) -> list[int]:
    if not name:
        return []
    rows = [row for row in _rows(group, 4) if name in row[3].split(",")]
    return [gid for row in rows if (gid := _number(row[2])) is not None]


def resolve_user(text: str, groups: list[str], read: Callable[[str, int], bytes]) -> Identity:
    """`text` is "user", "uid", "user:group", … or "" for root; `groups` are additional ones, by name or number."""
    user, _, group = text.partition(":")
    passwd = read("/etc/passwd", _FILE_LIMIT)
    uid, gid, name, home = _find_user(user or "0", passwd)
    needs_groups = bool(name) or bool(group) or bool(groups)
    table = read("/etc/group", _FILE_LIMIT) if needs_groups else b""
    members = [] if group else _memberships(name, table)
    if group:
        gid = _find_group(group, table)
    extra = [_find_group(word, table) for word in groups]
    # The primary group stands among the others too, as Docker has it (CVE-2022-36109): leaving it out was a way around a group's denial.
    return Identity(uid, gid, list(dict.fromkeys((gid, *members, *extra))), home)
