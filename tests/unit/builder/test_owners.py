"""`--chown` and WORKDIR owners (FEATURES A-69, A-45, A-46)."""

from __future__ import annotations

import pytest

from builder.operations.owners import Owner, needs_files, resolve_owner
from runtime.errors import InvalidInput


class Files:
    """A root with passwd and group."""

    def read(self, path: str, limit: int) -> bytes | None:
        return {
            "etc/passwd": b"root:x:0:0:::\napp:x:1000:2000:::\nbroken\n1234:x:7:8:::\n",
            "etc/group": b"root:x:0:\nweb:x:3000:app\n",
        }.get(path)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("5", Owner(5, 5)),
        ("5:6", Owner(5, 6)),
        ("app", Owner(1000, 2000)),
        ("app:web", Owner(1000, 3000)),
        ("app:7", Owner(1000, 7)),
        ("0:web", Owner(0, 3000)),
        ("1234", Owner(1234, 1234)),
        ("5:", Owner(5, 0)),
        (":6", Owner(0, 6)),
        ("app:", Owner(1000, 0)),
        (":web", Owner(0, 3000)),
        (":", Owner(0, 0)),
    ],
)
def test_an_owner_by_name_or_number(text: str, owner: Owner) -> None:
    assert resolve_owner(text, Files()) == owner


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "4294967296"])
def test_an_unknown_owner_fails_the_build(text: str) -> None:
    with pytest.raises(InvalidInput):
        resolve_owner(text, Files())


def test_a_number_alone_is_user_and_group_whatever_passwd_says() -> None:
    assert resolve_owner("1000", Files()) == Owner(1000, 1000)
    assert resolve_owner("app", Files()) == Owner(1000, 2000)


def test_only_names_need_the_roots_files() -> None:
    assert not needs_files("1:2")
    assert needs_files("1:web")
