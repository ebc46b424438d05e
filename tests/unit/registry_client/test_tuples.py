"""Our `NamedTuple` is typing's, as far as anybody here can tell."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from registry_client.tuples import NamedTuple


class Ours(NamedTuple):
    """A doc."""

    name: str
    size: int = 0
    index: tuple[str, ...] = ()  # as a method of tuples is called

    def doubled(self) -> int:
        return 2 * self.size


class Theirs(typing.NamedTuple):
    """A doc."""

    name: str
    size: int = 0
    index: tuple[str, ...] = ()  # type: ignore[assignment]

    def doubled(self) -> int:
        return 2 * self.size


ATTEMPTS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    (("a",), {}),
    (("a", 1), {}),
    (("a", 1, ("x",)), {}),
    ((), {"name": "a", "index": ("y",)}),
    (("a",), {"size": 3}),
    ((), {}),
    (("a",), {"name": "b"}),
    (("a", 1, (), 4), {}),
    (("a",), {"colour": 1}),
)


def made(cls: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    try:
        return cls(*args, **given)
    except TypeError:
        return TypeError


@pytest.mark.parametrize("args, given", ATTEMPTS)
def test_it_is_made_of_the_same_arguments(args: tuple[Any, ...], given: dict[str, Any]) -> None:
    ours, theirs = made(Ours, args, given), made(Theirs, args, given)
    assert ours == theirs
    if theirs is not TypeError:
        assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
        assert (ours._asdict(), ours.doubled(), hash(ours)) == (
            theirs._asdict(),
            theirs.doubled(),
            hash(theirs),
        )


def test_it_says_the_same_of_itself() -> None:
    assert (Ours._fields, Ours._field_defaults) == (Theirs._fields, Theirs._field_defaults)
    assert Ours.__match_args__ == Theirs.__match_args__
    assert Ours.__doc__ == Theirs.__doc__


def test_it_is_changed_copied_matched_and_pickled() -> None:
    one = Ours("a", 1)
    assert one._replace(size=5) == ("a", 5, ()) and Ours._make(["b", 2, ()]) == ("b", 2, ())
    with pytest.raises(TypeError):
        one._replace(colour=1)
    assert copy.deepcopy(one) == one and type(pickle.loads(pickle.dumps(one))) is Ours
    match one:
        case Ours(name, size=size):
            assert (name, size) == ("a", 1)
        case _:
            pytest.fail("it did not match")


def test_it_has_no_room_for_anything_else() -> None:
    with pytest.raises(AttributeError):
        Ours("a").colour = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        Ours("a").name = "b"  # type: ignore[misc]
