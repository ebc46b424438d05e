"""`NamedTuple`, defined for a tenth of the price.

`typing.NamedTuple` compiles every annotation and a constructor when a class is defined, a tenth of a millisecond each time
a program starts, and a command here defines forty. This one makes the same classes (a tuple with names, defaults,
methods, `_replace`, `_asdict`, `_make`, positional patterns) from methods they share. To type checkers it is typing's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    try:
        from _collections import _tuplegetter
    except ImportError:  # as `collections` does

        def _tuplegetter(index: int, doc: str) -> property:
            return property(itemgetter(index), doc=doc)

    class _Named(type):
        """Makes the names of a class body into the places of a tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if bases == (tuple,):
                return type.__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {each: body[each] for each in fields if each in body}
            places = {each: _tuplegetter(index, "") for index, each in enumerate(fields)}
            own = {"__slots__": (), "__match_args__": fields, "_fields": fields, "_field_defaults": defaults}
            return type.__new__(cls, name, bases, {**body, **own, **places})

    class NamedTuple(tuple, metaclass=_Named):
        __slots__ = ()
        _fields = ()

        def __new__(cls, /, *args: Any, **given: Any) -> Any:
            if given or len(args) != len(cls._fields):
                args = _complete(cls, args, given)
            return tuple.__new__(cls, args)

        @classmethod
        def _make(cls, items: Iterable[Any]) -> Any:
            return cls(*items)

        def _replace(self, /, **changes: Any) -> Any:
            return type(self)(**{**self._asdict(), **changes})

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))

        def __repr__(self) -> str:
            shown = ", ".join(f"{name}={content!r}" for name, content in zip(self._fields, self))
            return f"{type(self).__name__}({shown})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)


def _complete(cls: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, ...]:
    """All places in order: what was given by position, by name, or is a default."""
    fields = cls._fields
    if len(args) > len(fields):
        raise TypeError(f"{cls.__name__} takes {len(fields)} arguments, {len(args)} were given")
    if twice := [name for name in fields[: len(args)] if name in given]:
        raise TypeError(f"{cls.__name__} got two values for {twice[0]!r}")
    known = {**cls._field_defaults, **dict(zip(fields, args)), **given}
    if missing := [name for name in fields if name not in known]:
        raise TypeError(f"{cls.__name__} needs {', '.join(map(repr, missing))}")
    if len(known) > len(fields):
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(map(repr, known.keys() - set(fields))))}")
    return tuple([known[name] for name in fields])
