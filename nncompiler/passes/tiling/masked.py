"""Tiles for which bounds leave a sum no step, as those above the diagonal of causal scores, or
only some, as in sums over the rest of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from nncompiler.ir.affine import Affine
from nncompiler.ir.kernel import Axis, Fold
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows and columns of a sum that has no terms where one of the forms `within` is negative: a
    tile all over which that holds takes no steps. Of the axes in `reduction` it takes the steps
    that any of its results has.
    """

    within: tuple[Affine, ...]
    row: str
    columns: str
    reduction: tuple[Axis, ...] = ()

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
            here = len(whole) * step(len(some), width)
            if last in tiles:
                here += step(len(some), n - last * width)
            total += here * self._steps(self.row, some)
        across = (range(j, min(j + width, n)) for j in range(0, n, width))
        return total * sum(len(some) * self._steps(self.columns, some) for some in across) / n

    def _steps(self, axis: str, some: range) -> float:
        """The part of the steps that is taken for these rows, or these columns."""
        part = 1.0
        for k in self.reduction:
            first, stop = 0, k.extent
            for form in self.within:
                if {*form.axes} == {axis, k.name}:
                    each, along = form.coefficient(k.name), form.coefficient(axis)
                    most = form.const + max(along * some[0], along * some[-1])
                    first = max(first, -(most // each)) if each > 0 else first
                    stop = min(stop, most // -each + 1) if each < 0 else stop
            part *= max(0, stop - first) / k.extent
        return part

    def _tiles(self, rows: range, tiles: int, width: int) -> range:
        """Those of so many tiles of columns that take steps for these rows."""
        first, stop = 0, tiles
        for form in self.within:
            if not {*form.axes} <= {self.row, self.columns}:
                continue
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


def masked(
    sums: Sequence[Fold], row: str | None, columns: str, vector: str | None = None
) -> Masked | None:
    """The bounds of a single sum that these rows and columns tell, or one of the two and steps, if
    there are any; not those of steps that lanes run along.
    """
    if row is None or len(sums) != 1:
        return None
    ours = [f for f in sums[0].within if f.axes and {*f.axes} <= {row, columns}]
    found = [
        (k, f) for k in sums[0].axes if k.name != vector for f in sums[0].within
        if abs(f.coefficient(k.name)) == 1 and {*f.axes} in ({row, k.name}, {columns, k.name})
    ]  # fmt: skip
    reduction = tuple(dict.fromkeys(k for k, _ in found))
    ours += [f for _, f in found]
    return Masked(tuple(ours), row, columns, reduction) if ours else None


def _evenly(m: int, rows: int) -> Iterable[range]:
    """Rows in tiles of so many at most, larger ones first."""
    count = -(-m // rows)
    less, more = divmod(m, count)
    start = 0
    for n in range(count):
        size = less + (n < more)
        yield range(start, start + size)
        start += size
