"""Values behave as frozen, slotted dataclasses do; only their definition is cheaper."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import pytest

from registry_client.values import as_dict, differing, field, fields_of, frozen, is_value, replace


@frozen
class Point:
    """A place."""

    x: int
    y: int = 0
    tags: tuple[str, ...] = field(default_factory=tuple, compare=False)
    sum: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sum", self.x + self.y)

    @property
    def doubled(self) -> int:
        return 2 * self.x


@frozen
class Solid(Point):
    z: int = 1


@frozen(kw_only=True)
class Named:
    name: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Plain:
    x: int


def test_fields_come_by_position_by_name_and_by_default() -> None:
    assert Point(1) == Point(x=1, y=0) and Point(1, 2).sum == 3 and Point(1).doubled == 2
    assert repr(Named(name="a")) == "Named(name='a', size=0)"
    assert Solid(1, 2, z=5).z == 5 and Solid(1, 2).sum == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: Point(),
        lambda: Point(1, 2, (), 4),
        lambda: Point(1, x=1),
        lambda: Point(1, q=2),
        lambda: Named("a"),
    ],
)
def test_wrong_arguments_are_type_errors(call) -> None:
    with pytest.raises(TypeError):
        call()


def test_a_value_cannot_be_changed_and_has_no_room_for_more() -> None:
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        point.other = 2  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        del point.x


def test_equality_and_hash_go_by_the_compared_fields_of_the_same_class() -> None:
    assert Point(1, tags=("a",)) == Point(1) and hash(Point(1, tags=("a",))) == hash(Point(1))
    assert Point(1, 2) != Solid(1, 2) and Point(1) != (1, 0)
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_dataclasses_own_functions_know_values() -> None:
    assert [f.name for f in dataclasses.fields(Point)] == ["x", "y", "tags", "sum"]
    assert dataclasses.asdict(Named(name="a")) == {"name": "a", "size": 0}
    assert dataclasses.replace(Named(name="a"), size=3) == Named(name="a", size=3)
    assert dataclasses.is_dataclass(Point)
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)


def test_replace_and_fields_of_work_on_both_kinds() -> None:
    assert replace(Point(1, 2), x=5).sum == 7
    assert replace(Plain(1), x=2) == Plain(2)


def test_a_value_tells_its_fields_and_which_are_not_at_their_default() -> None:
    assert fields_of(Named) == ("name", "size") and is_value(Named(name="a")) and not is_value(Plain(1))
    assert as_dict(Named(name="a", size=2)) == {"name": "a", "size": 2}
    assert differing(Named(name="a")) == {"name": "a"} and differing(Point(1, 0, ("t",)))["tags"] == ("t",)


def test_values_are_copied_and_pickled() -> None:
    assert copy.deepcopy(Point(1, 2)) == Point(1, 2) == pickle.loads(pickle.dumps(Point(1, 2)))
