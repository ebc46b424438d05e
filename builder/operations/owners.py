"""Whose a file is: `--chown` and the owner of a WORKDIR, looked up in the root the step works on (A-69, A-45).

One rule for both, as in BuildKit: a number alone is user and group, whatever group a *process* of that user would have.
"""

from __future__ import annotations

from typing import Protocol

from registry_client.tuples import NamedTuple
from runtime.errors import InvalidInput

_FILE_LIMIT = 16 << 20
_ID_LIMIT = 2**32 - 1


class Readable(Protocol):
    """A root that can be asked for one of its files."""

    def read(self, path: str, limit: int) -> bytes | None: ...


class Owner(NamedTuple):
    uid: int
    gid: int


ROOT = Owner(0, 0)


def resolve_owner(text: str, root: Readable) -> Owner:
    """`user[:group]` by name or number. A number alone is both; a name alone takes its group from /etc/passwd.

    Nothing on a side of a colon is 0, as in BuildKit: `"$USER_ID:$GROUP_ID"` where neither is set.
    """
    user, colon, group = text.partition(":")
    if colon:
        user, group = user or "0", group or "0"
    if not user:
        raise InvalidInput(f"invalid owner {text!r}", hint="write user, user:group, uid or uid:gid")
    number = _number(user)
    if number is not None:
        uid, own_group = number, number
    else:
        uid, own_group = _user(user, root)
    return Owner(uid, _group(group, root) if colon else own_group)


def needs_files(text: str) -> bool:
    """True when the answer depends on the root's passwd or group file."""
    return any(_number(part) is None for part in text.split(":"))


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text)
    if value > _ID_LIMIT:
        raise InvalidInput(f"invalid id {text}: ids end at {_ID_LIMIT}")
    return value


def _user(name: str, root: Readable) -> tuple[int, int]:
    for fields in _lines(root, "etc/passwd"):
        if fields[0] == name and len(fields) > 3:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                return uid, gid
    raise InvalidInput(
        f"no user {name!r} in the image's /etc/passwd", hint="create it before, or give its number"
    )


def _group(name: str, root: Readable) -> int:
    number = _number(name)
    if number is not None:
        return number
    for fields in _lines(root, "etc/group"):
        if fields[0] == name and len(fields) > 2 and (gid := _number(fields[2])) is not None:
            return gid
    raise InvalidInput(
        f"no group {name!r} in the image's /etc/group", hint="create it before, or give its number"
    )


def _lines(root: Readable, path: str) -> list[list[str]]:
    data = root.read(path, _FILE_LIMIT) or b""
    return [line.split(":") for line in data.decode("utf-8", "surrogateescape").splitlines() if line]
