"""Register tiles of a contraction to choose from, and which of them need not be looked at."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable

from nncompiler.record import dataclass, field


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
    """The best choices so far, as many as are `wanted`; `cycles` are those of the last of them."""

    wanted: int = 1
    cycles: float = math.inf
    found: list[float] = field(default_factory=list)

    def add(self, cycles: float) -> None:
        """One more choice."""
        insort(self.found, cycles)
        del self.found[self.wanted :]
        if len(self.found) == self.wanted:
            self.cycles = self.found[-1]

    def beats(self, bound: float) -> bool:
        """Whether what takes so many cycles at least cannot be among them."""
        return bound * _ROUNDED > self.cycles

    def of(
        self,
        tiles: Iterable[tuple[int, int]],
        least: Callable[[int, int], float],
        choice: Callable[[int, int], Choice],
    ) -> Iterable[Choice]:
        """The choices for these tiles, in their order, without those that take `least` more than
        the best ones. Small tiles never take fewer cycles for a result than large ones.
        """
        found: dict[int, Choice] = {}
        for bound, n, tile in sorted((least(*t), n, t) for n, t in enumerate(tiles)):
            if self.beats(bound):
                break
            found[n] = made = choice(*tile)
            self.add(made.cycles)
        return (found[n] for n in sorted(found))
