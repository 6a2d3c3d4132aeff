"""What passes ask about the same immutable object again and again, found once.

Objects are told apart by identity: comparing nests takes longer than reading them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST = 4096


def once(find: Callable[[T], R]) -> Callable[[T], R]:
    """`find`, which remembers what it found for the last few thousand objects."""
    known: dict[int, tuple[T, R]] = {}  # the object is kept, so that no other has its identity

    def found(of: T) -> R:
        entry = known.get(id(of))
        if entry is None:
            if len(known) >= _MOST:
                known.clear()
            entry = known[id(of)] = of, find(of)
        return entry[1]

    return found
