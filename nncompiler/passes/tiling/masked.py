"""Tiles for which bounds leave a sum no step, as those above the diagonal of causal scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from nncompiler.ir.affine import Affine
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows and columns of a sum that has no terms where one of the forms `within` is negative: a
    tile all over which that holds takes no steps.
    """

    within: tuple[Affine, ...]
    row: str
    columns: str

    def over_tiles(
        self, m: int, rows: int, n: int, width: int, step: Callable[[int, int], float]
    ) -> float:
        """The cycles of one step summed over the tiles that take any: rows divided evenly, columns
        with a rest. `step` is asked for so many rows and columns.
        """
        total, last = 0.0, (n - 1) // width
        step = cache(step)
        for some in _evenly(m, rows):
            tiles = self._tiles(some, last + 1, width)
            whole = range(tiles.start, min(tiles.stop, last))
            total += len(whole) * step(len(some), width)
            if last in tiles:
                total += step(len(some), n - last * width)
        return total

    def _tiles(self, rows: range, tiles: int, width: int) -> range:
        """Those of so many tiles of columns that take steps for these rows."""
        first, stop = 0, tiles
        for form in self.within:
            k = form.coefficient(self.row)
            most = form.const + max(k * rows[0], k * rows[-1])
            each = form.coefficient(self.columns)
            if each > 0:
                first = max(first, -(most // each) // width)
            elif each < 0:
                stop = min(stop, most // -each // width + 1)
            elif most < 0:
                stop = 0
        return range(first, max(first, stop))


def masked(sums: Sequence[Sequence[Affine]], row: str | None, columns: str) -> Masked | None:
    """The bounds of a single sum that these rows and columns tell, if there are any."""
    if row is None or len(sums) != 1:
        return None
    ours = tuple([f for f in sums[0] if f.axes and {*f.axes} <= {row, columns}])
    return Masked(ours, row, columns) if ours else None


def _evenly(m: int, rows: int) -> Iterable[range]:
    """Rows in tiles of so many at most, larger ones first."""
    count = -(-m // rows)
    less, more = divmod(m, count)
    start = 0
    for n in range(count):
        size = less + (n < more)
        yield range(start, start + size)
        start += size
