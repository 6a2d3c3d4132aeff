"""Sums whose lanes run along one axis while they are added up, and along another in the epilogue.

    for i, j { acc = sum k { x[k,i] * d[k,j] };  w[i,j] = w[i,j] - acc }     vector i j, register j

A few columns `j` would leave lanes empty, lanes along `i` reach `w` far apart. So all rows of a
tile's columns are added up, some at a time, then squares of sums are turned in registers.
"""

from __future__ import annotations

from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.slots import Slots
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.nests.turn import turned
from nncompiler.ir.scalar import Affine
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
        for row in range(0, extent, n):
            active = min(n, extent - row)
            lines = [literal(tiles.zero, n)] * n
            for r in range(active):
                (lines[r],) = self._slots(1, column, (row + r) * self._step).load()
            over = Lanes(self._rows, n, active)
            for c, line in enumerate(turned(tiles.w, lines)[:count]):
                tiles.epilogue(block, At("", row), over, c, {key: line})

    def _slots(self, count: int, *first: Counter) -> Slots:
        tiles = self._tiles
        return Slots(tiles.w, self._memory, tiles.dtype, self._lanes, count, first)
