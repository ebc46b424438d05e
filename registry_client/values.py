"""`@frozen`: frozen, slotted, keyword-friendly classes that cost almost nothing to define.

`dataclasses` compiles six methods for every class when it is defined, 0.3 to 1 ms each time a program starts, and a
command here defines sixty. `@frozen` means `@dataclass(frozen=True, slots=True)`, with methods shared by all classes:
defining one takes microseconds, making an instance about three times as long as a dataclass's. So values that are made
by the ten thousand stay dataclasses. `dataclasses.fields`, `replace`, `asdict` and `match` work on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, dataclass_transform, overload

T = TypeVar("T")

_MISSING: Any = object()


class _Field:
    """How one field is treated; `field()` makes it where a default alone does not say enough."""

    __slots__ = ("compare", "default", "factory", "hash", "init", "kw_only", "name", "repr")

    def __init__(
        self,
        default: Any = _MISSING,
        factory: Any = _MISSING,
        init: bool = True,
        repr: bool = True,  # noqa: A002  dataclasses' own names
        compare: bool = True,
        hash: bool | None = None,  # noqa: A002
    ) -> None:
        self.default, self.factory, self.init, self.repr, self.compare = default, factory, init, repr, compare
        self.hash = compare if hash is None else hash
        self.name, self.kw_only = "", False

    def start(self) -> Any:
        return self.default if self.factory is _MISSING else self.factory()

    @property
    def optional(self) -> bool:
        return self.default is not _MISSING or self.factory is not _MISSING


def field(
    *,
    default: Any = _MISSING,
    default_factory: Any = _MISSING,
    init: bool = True,
    repr: bool = True,  # noqa: A002  dataclasses' own names
    compare: bool = True,
    hash: bool | None = None,  # noqa: A002
) -> Any:
    """As `dataclasses.field`."""
    return _Field(default, default_factory, init, repr, compare, hash)


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T] | None = None, /, *, kw_only: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """A frozen class with slots made of the annotated names, in order; bases may be values too."""
    return (lambda cls: _make(cls, kw_only)) if cls is None else _make(cls, kw_only)


def _make(cls: type[T], kw_only: bool) -> type[T]:
    body = dict(cls.__dict__)
    own = [
        _own_field(body, name, kw_only)
        for name, kind in _annotations(body).items()
        if not _is_class_variable(kind)
    ]
    inherited = {
        f.name: f for base in reversed(cls.__mro__[1:]) for f in base.__dict__.get("__value_fields__", ())
    }
    fields = tuple({**inherited, **{f.name: f for f in own}}.values())
    body["__slots__"] = tuple(f.name for f in own if f.name not in inherited)
    body["__value_fields__"] = fields
    body["__match_args__"] = tuple(f.name for f in fields if f.init and not f.kw_only)
    body["__dataclass_fields__"] = _DataclassFields()
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    for name, method in _METHODS.items():
        body.setdefault(name, method)
    if body["__hash__"] is None:  # Python's mark for a class with __eq__ of its own and no __hash__
        body["__hash__"] = _hash
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)  # type: ignore[misc]
    made.__qualname__ = cls.__qualname__
    return cast("type[T]", made)


def _annotations(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", body.get("__annotations__", {}))


def _is_class_variable(kind: Any) -> bool:
    return str(kind).startswith(("ClassVar", "typing.ClassVar"))


def _own_field(body: dict[str, Any], name: str, kw_only: bool) -> _Field:
    given = body.pop(name, _MISSING)
    made = given if isinstance(given, _Field) else _Field(given)
    made.name, made.kw_only = name, kw_only
    return made


def _init(self: Any, *args: Any, **given: Any) -> None:
    cls = type(self)
    put = object.__setattr__
    if args:
        names = cls.__match_args__
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes {len(names)} positional arguments, {len(args)} were given")
        for name, argument in zip(names, args):
            if name in given:
                raise TypeError(f"{cls.__name__} got two values for {name!r}")
            given[name] = argument
    used = 0
    for f in cls.__value_fields__:
        if f.name in given and f.init:
            put(self, f.name, given[f.name])
            used += 1
        elif f.default is not _MISSING:
            put(self, f.name, f.default)
        elif f.factory is not _MISSING:
            put(self, f.name, f.factory())
        elif f.init:
            raise TypeError(f"{cls.__name__} needs {f.name!r}")
    if used != len(given):
        known = {f.name for f in cls.__value_fields__ if f.init}
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(map(repr, given.keys() - known)))}")
    after = getattr(self, "__post_init__", None)
    if after is not None:
        after()


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, f.name) for f in type(self).__value_fields__ if f.compare)


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(getattr(self, f.name) for f in type(self).__value_fields__ if f.hash))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in type(self).__value_fields__ if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _setattr(self: Any, name: str, to: object) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} is frozen")


def _delattr(self: Any, name: str) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} is frozen")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, f.name) for f in type(self).__value_fields__]


def _setstate(self: Any, state: list[Any]) -> None:
    for f, item in zip(type(self).__value_fields__, state):
        object.__setattr__(self, f.name, item)


_METHODS: dict[str, Any] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}


class _DataclassFields:
    """`__dataclass_fields__` for those who ask: made when `dataclasses` itself is needed, not before."""

    def __get__(self, instance: object, owner: Any) -> dict[str, Any]:
        import dataclasses

        def as_dataclass(f: _Field) -> Any:
            made: Any = dataclasses.field(
                init=f.init, repr=f.repr, hash=f.hash, compare=f.compare, kw_only=f.kw_only
            )
            if f.default is not _MISSING:
                made.default = f.default
            if f.factory is not _MISSING:
                made.default_factory = f.factory
            made.name, made.type = f.name, _annotations(owner.__dict__).get(f.name)
            made._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
            return made

        return {f.name: as_dataclass(f) for f in owner.__value_fields__}


def replace(record: T, /, **changes: Any) -> T:
    """A copy with some fields changed; for dataclasses too."""
    known = getattr(type(record), "__value_fields__", None)
    if known is None:
        import dataclasses

        return dataclasses.replace(record, **changes)  # type: ignore[type-var]
    given = {f.name: getattr(record, f.name) for f in known if f.init}
    return type(record)(**{**given, **changes})


def is_value(record: object) -> bool:
    """Is it an instance of a class made by `frozen`?"""
    return hasattr(type(record), "__value_fields__")


def fields_of(record: Any) -> tuple[str, ...]:
    """The names of a value's fields, in order."""
    return tuple(f.name for f in record.__value_fields__)


def as_dict(record: Any) -> dict[str, Any]:
    """Field and content of a value; what is inside stays as it is."""
    return {f.name: getattr(record, f.name) for f in record.__value_fields__}


def differing(record: Any) -> dict[str, Any]:
    """The fields of a value that are not at their default."""
    pairs = ((f, getattr(record, f.name)) for f in record.__value_fields__)
    return {f.name: content for f, content in pairs if not f.optional or content != f.start()}
