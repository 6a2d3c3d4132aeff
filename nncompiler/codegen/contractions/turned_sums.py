"""Sums whose lanes run along one axis while they are added up, and along another in the epilogue.

    for i, j { acc = sum k { x[k,i] * d[k,j] };  w[i,j] = w[i,j] - acc }     vector i j, register j

A few columns `j` would leave lanes empty, lanes along `i` reach `w` far apart. So all rows of a
tile's columns are added up, some at a time, then squares of sums are turned in registers. Where
`w[i+1,0]` follows the last `w[i,j]`, vectors of the epilogue run on from one column to the next.
"""

from __future__ import annotations

from nncompiler.codegen.contractions.expected import stride_along
from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.slots import Slots
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.nests.turn import turned
from nncompiler.ir.body import accesses, expressions, statements
from nncompiler.ir.kernel import Fold
from nncompiler.ir.scalar import Affine, Iota, Load, walk
from nncompiler.record import replace


class TurnedSums:
    """The sums of all rows for the columns of a `block`, as wide as a tile."""

    def __init__(self, tiles: RegisterTiles, block: Tile) -> None:
        self._tiles, self._block = tiles, block
        self._rows = tiles.rows or ""
        self._lanes = tiles.lanes_of(block)
        #: Elements from one row to the next.
        self._step = tiles.vectors_of(block) * self._lanes
        size = tiles.extents[self._rows] * self._step * tiles.dtype.bytes
        if size not in tiles.waiting:
            tiles.waiting[size] = tiles.w.scratch(size)
        self._memory = tiles.waiting[size]

    def add(self, tile: Tile) -> None:
        """The sums of some rows."""
        (product,) = self._tiles.products.values()
        first = self._tiles.e.integer(Affine.axis(self._rows) * self._step)
        count = tile.rows * self._step // self._lanes
        self._slots(count, first).store(self._tiles.sums([product], tile))

    def finish(self) -> None:
        """The epilogue of all rows and columns."""
        w, n, width = self._tiles.w, self._lanes, self._block.width

        def body(number: Counter, _: list[Value]) -> list[Value]:
            self._finish(w.times(number, n), n)
            return []

        w.loop(0, width // n, 1, [], body)
        if width % n:
            self._finish(width // n * n, width % n)

    def _finish(self, column: Counter, count: int) -> None:
        """The epilogue of so many columns, one vector of them."""
        tiles, n, extent = self._tiles, self._lanes, self._tiles.extents[self._rows]
        (key,) = tiles.products
        block = replace(self._block, column=tiles.moved(self._block.column, column))
        if _runs_on(tiles):
            squares = [self._turned(column, row) for row in range(0, extent, n)]
            for first in range(0, count * extent, n):
                places = range(first, min(first + n, count * extent))
                lanes = [(squares[p % extent // n][p // extent], p % extent % n) for p in places]
                over = Lanes(self._rows, n, len(lanes))
                sums = {key: gathered(tiles.w, lanes, n)}
                tiles.epilogue(block, At("", first), over, 0, sums)
            return
        for row in range(0, extent, n):
            over = Lanes(self._rows, n, min(n, extent - row))
            for c, line in enumerate(self._turned(column, row)[:count]):
                tiles.epilogue(block, At("", row), over, c, {key: line})

    def _turned(self, column: Counter, row: int) -> list[Value]:
        """The sums of each column in a vector, from that row on."""
        tiles, n = self._tiles, self._lanes
        lines = [literal(tiles.zero, n)] * n
        for r in range(min(n, tiles.extents[self._rows] - row)):
            (lines[r],) = self._slots(1, column, (row + r) * self._step).load()
        return turned(tiles.w, lines)

    def _slots(self, count: int, *first: Counter) -> Slots:
        tiles = self._tiles
        return Slots(tiles.w, self._memory, tiles.dtype, self._lanes, count, first)


def _runs_on(tiles: RegisterTiles) -> bool:
    """Whether the first row of a column follows the last one of the column before it, wherever the
    epilogue reads and writes: no lane of a vector is left empty then.
    """
    rows, extent = tiles.rows or "", tiles.extents[tiles.rows or ""]
    behind = tuple(s for s in tiles.body if not isinstance(s, Fold))
    for x in (x for s in statements(behind) for e in expressions(s) for x in walk(e)):
        if isinstance(x, Iota) or (isinstance(x, Load) and x.guard is not None):
            return False
    for access in accesses(behind):
        step, further = (stride_along(tiles.e, access, axis) for axis in (rows, tiles.columns))
        if step is None or further != step * extent:
            return False
    return True


def gathered(w: Writer, lanes: list[tuple[Value, int]], count: int) -> Value:
    """A vector of lanes of others, the last ones undefined if these are fewer than `count`."""
    found: Value | None = None
    for source in dict.fromkeys([v for v, _ in lanes]):
        picks = [count + n for n in range(count)]
        for n, (vector, lane) in enumerate(lanes):
            picks[n] = lane if vector == source else picks[n]
        found = w.shuffle(source, found, picks)
    assert found is not None
    return found
