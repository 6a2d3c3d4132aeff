"""Sums for one row of a few columns that lie without gaps: vectors run on from line to line.

    for j < 10 { acc = sum k { a[k] * b[k,j] };  epilogue }

Of 16 lanes ten columns would leave six empty, and every second load would cross lines of the
cache. Eight lines of ten are five whole vectors; what each lane multiplies is picked from a vector
of eight elements of `a` in registers. In the end half of the lines is added to the other half,
until there is one.
"""

from __future__ import annotations

from nncompiler.codegen.contractions.expected import stride_along
from nncompiler.codegen.contractions.product import Roles
from nncompiler.codegen.contractions.register_tile import IN_FLIGHT, RegisterTiles
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.contractions.turned_sums import gathered
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.ir.scalar import Load
from nncompiler.ir.tile_roles import run_on


class RunOn:
    """The sums of a tile that has all columns, `lines` at a time: as many as fill `vectors`."""

    def __init__(
        self, tiles: RegisterTiles, product: Roles, tile: Tile, lines: int, vectors: int
    ) -> None:
        self._tiles, self._product, self._tile = tiles, product, tile
        self._lanes, self.lines, self.vectors = tiles.lanes, lines, vectors

    def sums(self) -> list[Value]:
        """One vector of columns, or several."""
        tiles, w = self._tiles, self._tiles.w
        ((axis, _),) = self._product.loops
        chains = max(1, IN_FLIGHT // self.vectors)
        step = self.lines * chains
        whole = axis.extent // step * step
        zeros = [literal(tiles.zero, self._lanes)] * (self.vectors * chains)

        def body(at: Counter, acc: list[Value]) -> list[Value]:
            return self._round(At.of(at, range(0, whole, step)), step, acc)

        acc = w.loop(0, whole, step, zeros, body)
        acc = self._round(At("", whole), axis.extent - whole, acc)
        while len(acc) > self.vectors:
            last = acc[-self.vectors :]
            acc = [*map(tiles.w.sum, acc, last), *acc[self.vectors : -self.vectors]]
        return self._joined(acc)

    def _round(self, at: At, steps: int, acc: list[Value]) -> list[Value]:
        """So many lines, a number of vectors after the other."""
        tiles, n, width = self._tiles, self._lanes, self._tile.width
        ((axis, _),), found = self._product.loops, list(acc)
        for chain, first in enumerate(range(0, steps, self.lines)):
            lines = min(self.lines, steps - first)
            here = {axis.name: at + first, tiles.columns: self._tile.column}
            with tiles.e.scope(here, Lanes(axis.name, self.lines, lines)):
                factors = tiles.e.value(self._product.a)
            for v in range(-(-lines * width // n)):
                here[tiles.columns] = self._tile.column + v * n
                with tiles.e.scope(here, Lanes(tiles.columns, n, min(n, lines * width - v * n))):
                    b = tiles.e.value(self._product.b)
                picks = [(v * n + lane) // width for lane in range(n)]
                a, number = tiles.w.shuffle(factors, None, picks), chain * self.vectors + v
                found[number] = tiles.multiply_add(a, b, found[number])
        return found

    def _joined(self, acc: list[Value]) -> list[Value]:
        """All lines added up."""
        tiles, n, lines = self._tiles, self._lanes, self.lines
        while lines > 1:
            lines //= 2
            size = lines * self._tile.width
            for v in range(-(-size // n)):
                places = range(size + v * n, min(size + (v + 1) * n, 2 * size))
                other = gathered(tiles.w, [(acc[p // n], p % n) for p in places], n)
                acc[v] = tiles.w.sum(acc[v], other)
        count, found = tiles.lanes_of(self._tile), list[Value]()
        for v in range(tiles.vectors_of(self._tile)):
            first = tiles.column_of(self._tile, v, count)
            places = range(first, min(first + count, self._tile.width))
            x = gathered(tiles.w, [(acc[p // n], p % n) for p in places], n)
            found.append(x if count == n else tiles.w.shuffle(x, None, range(count)))
        return found


def runs_on(tiles: RegisterTiles, product: Roles, tile: Tile) -> RunOn | None:
    """The sums of a tile, where lines follow each other and vectors that begin with them are many
    more."""
    whole = tile.width == tiles.extents[tiles.columns] and tile.rows == 1 and not tile.panels
    if tiles.reduced or not whole or len(product.loops) != 1 or product.fold.within:
        return None
    ((axis, bounds),), a, b = product.loops, product.a, product.b
    if not (isinstance(a, Load) and isinstance(b, Load)) or bounds.low or bounds.high:
        return None
    places = (b, tiles.columns), (b, axis.name), (a, axis.name)
    steps = [stride_along(tiles.e, load, x) for load, x in places]
    if a.guard is not None or b.guard is not None or steps != [1, tile.width, 1]:
        return None
    found = run_on(tile.width, tiles.lanes, axis.extent)
    return RunOn(tiles, product, tile, *found) if found else None
