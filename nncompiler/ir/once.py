"""What passes ask about the same immutable object again and again, found once.

Objects are told apart by identity: comparing nests takes longer than reading them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Of = TypeVar("Of", contravariant=True)
Found = TypeVar("Found")

_MOST = 4096


class Once(Protocol[Of, Found]):
    """A function of an object; it can be told what it would find."""

    def __call__(self, of: Of, /) -> Found: ...

    def tell(self, of: Of, found: Found, /) -> None: ...


def once(find: Callable[[T], R], most: int = _MOST) -> Once[T, R]:
    """`find`, which remembers what it found for the last objects, up to `most`."""
    known: dict[int, tuple[T, R]] = {}  # the object is kept, so that no other has its identity

    def tell(of: T, result: R) -> None:
        if len(known) >= most:
            known.clear()
        known[id(of)] = of, result

    def found(of: T) -> R:
        entry = known.get(id(of))
        if entry is None:
            result = find(of)
            tell(of, result)
            return result
        return entry[1]

    made: Any = found
    made.tell = tell
    return made  # type: ignore[no-any-return]
