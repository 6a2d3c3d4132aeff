"""Register tiles of a contraction to choose from, and which of them need not be looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """`columns` is the vector axis, or with a reduced vector axis the axis its sums are gathered
    along. Where they are `turned`, the epilogue's lanes are rows.
    """

    cycles: float
    vector: str
    columns: str
    rows: str | None
    tile: tuple[int, int]
    turned: bool = False

#: A bound is added up in another order than the cycles, and may be rounded up.
_ROUNDED = 1 - 1e-9


@dataclass(slots=True)
class Best:
    """The cycles of the best choice so far."""

    cycles: float = math.inf

    def beats(self, bound: float) -> bool:
        """Whether what takes so many cycles at least cannot be as good."""
        return bound * _ROUNDED > self.cycles

    def of(
        self,
        tiles: Iterable[tuple[int, int]],
        least: Callable[[int, int], float],
        choice: Callable[[int, int], Choice],
    ) -> Iterable[Choice]:
        """The choices for these tiles, in their order, without those that take `least` more than
        another one. Small tiles never take fewer cycles for a result than large ones.
        """
        found: dict[int, Choice] = {}
        for bound, n, tile in sorted((least(*t), n, t) for n, t in enumerate(tiles)):
            if self.beats(bound):
                break
            found[n] = made = choice(*tile)
            self.cycles = min(self.cycles, made.cycles)
        return (found[n] for n in sorted(found))
