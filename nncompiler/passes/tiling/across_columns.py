"""Register tiles whose lanes are columns: one broadcast per row and one load per vector of columns
in every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

from nncompiler.ir.scalar import axes_of
from nncompiler.passes.tiling.choice import Best, Choice
from nncompiler.passes.tiling.guards import besides
from nncompiler.passes.tiling.loops import LANE
from nncompiler.passes.tiling.pair import TURNED_LANE, Pair
from nncompiler.passes.tiling.reads import CACHE, LINE, PAGE
from nncompiler.passes.tiling.step_cycles import (
    WIDEST,
    fitting,
    flow,
    limit,
    over_tiles,
    pressure,
    registers,
)

#: Cycles of one lane of a packed panel, and of one vector.
_PACKED_LANE, _PACKED_VECTOR = 0.75, 1.5
#: Cycles of storing a part of a vector by powers of two: no registers for masks.
_PARTIAL = 2.0
#: Cycles of reading the columns of one step where the next step's lie on another page: no prefetch
#: of hardware crosses it; of so many bytes side by side, the wait hides behind them. Copied, of
#: one vector.
_PAGE_STEP, _PAGE_WIDE, _PAGE_VECTOR = 3.0, 1024, 4.0
#: Cycles more of a vector of columns that comes from the second-level cache in every step.
_SECOND = 0.25
#: Cycles of a guard that differs between the rows or columns of a tile, and of one that differs
#: between lanes: a mask, which stays the same over channels. Only tiles at an edge look at them.
#: And of what a factor reads besides one load.
_GUARD, _MASK, _CHOSEN = 0.75, 0.5, 3.0
#: Cycles of a round: for each accumulator, more where vectors are long, for each tile; and of a
#: step in a round whose factors fill the first-level cache, which a step of long vectors hides.
_SLOT, _SLOT_LONG, _ROUND = 0.5, 0.75, 5.0
_FILLED, _FILLED_LONG = 1.0, 0.25
#: Multiply-adds of a tile that are in flight together with the end of the one before; of a larger
#: one, cycles of each accumulator's end where a store of a long vector takes two. So many
#: accumulators, each of which is stored once, end behind the first steps of the next tile; cycles
#: of each one more. Where several arrays are stored, their arithmetic and memory take longest.
_FLIGHT, _END = 80, 0.3
_HIDDEN, _BEHIND = 16, 5.0


def across_columns(pair: Pair, best: Best) -> Iterable[Choice]:
    """The tiles that may be the best."""
    if pair.runs_on is not None:
        best.add(pair.runs_on.cycles)
        return [pair.runs_on]
    tiles = _AcrossColumns(pair)
    return best.of(tiles.sizes(), tiles.least, tiles.choice)


class _AcrossColumns:
    """What all tiles of a pair have in common."""

    def __init__(self, pair: Pair) -> None:
        order, products = pair.order, pair.products
        reductions = [p.reduction for p in order.form.products]
        self.pair, self.order, self.machine = pair, order, order.machine
        self.m, self.n, self.across = pair.m, pair.n, -(-pair.n // order.lanes)
        self.others = order.size(order.form.parallel) / (self.m * self.n)
        self.beside = pair.abreast()
        self.steps = sum(map(order.size, reductions)) // self.beside
        self.panel = max(map(order.size, reductions)) * len(products)
        self.unit = all(order.stride(b, pair.columns) == 1 for _, b in products)
        turned = all(
            any(order.stride(b, k.name) == 1 for k in reduction)
            for reduction, (_, b) in zip(reductions, products, strict=True)
        )
        self.packed_lane = TURNED_LANE if turned else _PACKED_LANE
        read_by = {x for _, b in products for x in axes_of(b)}
        sharing = (a for a in order.form.parallel if a.name not in (*read_by, pair.row))
        self.sharing = order.size(sharing)
        self.row_guards, self.column_guards = self.guards()
        rows_apart, self.pages = (
            all(order.apart(p[n], PAGE) for p in products) for n in (0, 1)
        )
        self.row_pages = rows_apart * _PAGE_STEP
        self.row_lines = order.apart(products[0][0], LINE)
        self.near = order.near(products, pair.columns)
        self.whole = max(order.bytes_of(b) for _, b in products)
        self.stored, self.bounds = pair.stored(), pair.masked()
        self.some = pair.computed(order.lanes)
        self.copied = cache(self.copied_panels)

    def sizes(self) -> Iterable[tuple[int, int]]:
        """All rows and vectors for which registers suffice."""
        most = limit(self.machine)
        widest = min(WIDEST, most - 1) // self.beside if self.beside > 1 else WIDEST
        return fitting(registers, most, min(self.m, WIDEST), min(self.across, widest))

    def guards(self) -> tuple[float, float]:
        """Cycles of a step, for a row and for a vector of columns, of what chooses operands."""
        order, pair = self.order, self.pair
        reduced = {k.name for p in order.form.products for k in p.reduction}
        columns = sum(
            _MASK * order.edges(b, pair.columns, order.lanes) + _CHOSEN * besides(b, reduced)
            for _, b in pair.products
        )
        rows = sum(
            _GUARD * order.edges(a, pair.row) + _CHOSEN * besides(a, reduced)
            for a, _ in pair.products
        )
        return rows / len(pair.products), columns / len(pair.products)

    def copied_panels(self, vectors: int) -> tuple[int, str | None, bool]:
        """Of panels of so many columns: the bytes, the axis of rounds, whether to copy."""
        order, pair = self.order, self.pair
        size = self.panel * vectors * self.machine.vector_bytes
        if pair.turned:
            return size, None, False
        around = order.round_of(pair.products, size, pair.row, pair.columns)
        width = vectors * order.lanes
        return size, around, not order.as_is(pair.products, pair.columns, width, around)

    def flow(self, rows: int, vectors: int) -> float:
        """Cycles of a step where everything is near."""
        across = vectors * self.beside
        return flow(self.machine, rows, across) + pressure(self.machine, rows, across)

    def least(self, rows: int, vectors: int) -> float:
        guards = self.row_guards * rows + self.column_guards * vectors + self.row_pages
        step = self.flow(rows, vectors) + guards
        points = self.steps * self.others * self.m * self.across
        return points * step / (rows * vectors) * self.some + self.stored

    def choice(self, rows: int, vectors: int) -> Choice:
        order, pair = self.order, self.pair
        copy, far = self.reading(rows, vectors)

        def step(r: int, v: int) -> float:
            guards = self.row_guards * r + self.column_guards * v + far + self.row_pages
            return self.flow(r, v) + copy * self.beside * v + guards

        m, n, width = self.m, self.n, vectors * order.lanes
        if self.bounds is None:
            cycles = over_tiles(m, rows, self.across, vectors, step)
        else:
            cycles = self.bounds.over_tiles(
                m, rows, n, width, lambda r, w: step(r, -(-w // order.lanes))
            )
        cycles = self.steps * self.others * cycles + self.stored + self.ends(rows, vectors)
        tile = rows, width
        return Choice(cycles, pair.columns, pair.columns, pair.row, tile, pair.turned)

    def reading(self, rows: int, vectors: int) -> tuple[float, float]:
        """Cycles that a step takes more for each vector of columns, copied or not; and as a whole,
        as it waits for memory.
        """
        order, vector = self.order, self.machine.vector_bytes
        readers = self.sharing * -(-self.m // rows)
        size, around, copies = self.copied(vectors)
        narrow = vectors * self.beside * vector < _PAGE_WIDE
        copy = 0.0 if self.unit else LANE * order.lanes
        far = (self.pages and narrow) * _PAGE_STEP
        if copies and order.pays(size if around is None else 0, readers, self.whole):
            lanes = self.packed_lane * order.lanes
            copy = (_PACKED_VECTOR if self.unit else lanes) / readers
            copy, far = copy + self.pages * _PAGE_VECTOR / readers, 0.0
        far += self.waiting(around, rows * vectors, size)
        return copy + _SECOND * (self.near and size > CACHE), far

    def waiting(self, around: str | None, vectors: int, panel: int) -> float:
        """What a step waits for memory: in rounds, a tile's accumulators come from there and go
        back in each; long ones fill the cache where the rows' factor lies lines apart.
        """
        order, reduction = self.order, self.order.form.products[0].reduction
        inside = math.prod(k.extent for k in reduction if k.name != around)
        long = inside * (LINE + panel // order.size(reduction)) > CACHE // 8 * 5
        slot = _SLOT_LONG if order.long else _SLOT
        rounds = (slot * vectors + _ROUND) / inside if around else 0.0
        fills = _FILLED_LONG if order.long else _FILLED
        return rounds + fills * (long and self.row_lines)

    def ends(self, rows: int, vectors: int) -> float:
        """Cycles of all epilogues, beside the stores of whole vectors."""
        order, few = self.order, self.machine.registers <= 16
        along, lines = (self.m, self.n) if self.pair.turned else (self.n, self.m)
        cycles = 0.0
        if along % order.lanes and few:
            cycles += self.others * lines * _PARTIAL * order.stores
        if not few and rows * vectors * self.steps > _FLIGHT:
            cycles += self.others * self.m * self.across * _END * order.stores
            if order.stores == 1:
                down = -(-self.m // rows)
                behind = max(0, -(-self.m // down) * vectors - _HIDDEN)
                cycles += self.others * down * -(-self.across // vectors) * _BEHIND * behind
        return cycles
