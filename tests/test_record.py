"""Records behave as dataclasses of the standard library do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from nncompiler import record

Decorator = Callable[..., Callable[[type], Any]]


def classes(dataclass: Decorator) -> tuple[Any, Any, Any]:
    """A frozen class, one that derives from it, and one that is not frozen."""

    @dataclass(frozen=True, slots=True)
    class Point:
        kind: ClassVar[str] = "place"
        x: float
        label: str = dataclasses.field(default="p", repr=False)
        near: list[int] = dataclasses.field(default_factory=list, compare=False)
        spare: int = dataclasses.field(default=3, hash=False)

    @dataclass(frozen=True, slots=True)
    class Deep(Point):
        z: float = 0.5
        known: dict[str, int] = dataclasses.field(default_factory=dict, init=False, repr=False,
                                                  compare=False)
        where: int = dataclasses.field(default=0, kw_only=True)

    @dataclass(slots=True)
    class Counter:
        count: int = 0
        double: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            self.double = 2 * self.count

    return Point, Deep, Counter


OURS, THEIRS = classes(record.dataclass), classes(dataclasses.dataclass)
VALUES: list[tuple[int, tuple[Any, ...], dict[str, Any]]] = [
    (0, (1.0,), {}), (0, (1.0, "q"), {"near": [1]}), (0, (float("nan"),), {}),
    (1, (1.0,), {}), (1, (1.0, "p", [2], 4, 2.0), {"where": 1}), (2, (), {}), (2, (4,), {}),
]  # fmt: skip


@pytest.mark.parametrize(("which", "given", "named"), VALUES)
def test_the_same_values(which: int, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Fields, text, hash, and what `replace` gives."""
    a, b = OURS[which](*given, **named), THEIRS[which](*given, **named)
    assert repr(a) == repr(b).replace("dataclass.", "record.")
    assert dataclasses.asdict(a) == dataclasses.asdict(b) or given[0] != given[0]
    assert type(a).__match_args__ == type(b).__match_args__
    assert not hasattr(a, "__dict__")
    if which < 2:
        assert hash(a) == hash(b)
        assert repr(record.replace(a, x=7.0)) == repr(dataclasses.replace(b, x=7.0))
    else:
        assert type(a).__hash__ is type(b).__hash__ is None


def test_the_same_comparisons() -> None:
    """Equal where the fields that are compared are, and the classes are the same."""
    for made in (OURS, THEIRS):
        point, deep, counter = made
        assert point(1.0, near=[1]) == point(1.0, near=[2]) != point(2.0)
        assert point(1.0, spare=1) != point(1.0) and hash(point(1.0, spare=1)) == hash(point(1.0))
        assert point(1.0) != deep(1.0) and deep(1.0, where=1) != deep(1.0)
        assert counter(1) == counter(1) != counter(2)


@pytest.mark.parametrize("made", [OURS, THEIRS])
def test_frozen_ones_stay(made: tuple[Any, Any, Any]) -> None:
    """Neither fields nor other names can be set or deleted; of the others, fields can."""
    point, deep, counter = made
    for value in (point(1.0), deep(1.0)):
        for name in ("x", "other"):
            with pytest.raises((AttributeError, TypeError)):
                setattr(value, name, 2)
        with pytest.raises(AttributeError):
            del value.x
    count = counter(1)
    count.count = 5
    assert count.count == 5
    with pytest.raises(AttributeError):
        count.other = 1


@pytest.mark.parametrize("made", [OURS, THEIRS])
def test_wrong_arguments(made: tuple[Any, Any, Any]) -> None:
    """Too few, too many, unknown, positional for a keyword."""
    point, deep, _ = made
    for call in (
        lambda: point(), lambda: point(1, 2, 3, 4, 5), lambda: point(1, y=2),
        lambda: deep(1, "p", [], 3, 0.5, 1),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()


def test_class_variables_are_no_fields() -> None:
    """They are read from the class, and are not among its fields."""
    for point, deep, _ in (OURS, THEIRS):
        assert [f.name for f in dataclasses.fields(point)] == ["x", "label", "near", "spare"]
        assert deep(1.0).kind == deep.kind == "place"


def test_a_default_that_can_change_is_refused() -> None:
    """One list for all records would be a mistake."""
    for dataclass, error in ((record.dataclass, TypeError), (dataclasses.dataclass, ValueError)):
        with pytest.raises(error, match="default_factory"):

            @dataclass(slots=True)
            class Shared:
                items: list[int] = []  # noqa: RUF012


@pytest.mark.parametrize("dataclass", [record.dataclass, dataclasses.dataclass])
def test_a_default_in_front_of_a_field_without_is_refused(dataclass: Decorator) -> None:
    """Positional arguments could not say which field they are for."""
    with pytest.raises(TypeError, match="y"):

        @dataclass(slots=True)
        class Late:
            x: int = 1
            y: int  # type: ignore[misc]


def test_what_a_class_defines_itself_stays() -> None:
    """Its own comparison, hash and text."""

    @record.dataclass(frozen=True, slots=True)
    class Name:
        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Name) and self.text.lower() == other.text.lower()

        def __hash__(self) -> int:
            return hash(self.text.lower())

        def __repr__(self) -> str:
            return f"<{self.text}>"

    assert Name("A") == Name("a") and hash(Name("A")) == hash(Name("a"))
    assert repr(Name("A")) == "<A>"
