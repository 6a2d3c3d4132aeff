"""What register tiles do with finished sums: the statements behind the fold, vector by vector or
as a loop over rows, and requests for the memory that these read and write.
"""

from __future__ import annotations

import math

from nncompiler.codegen.contractions.expected import LINE, expected
from nncompiler.codegen.contractions.product import columns_of, roles_of
from nncompiler.codegen.contractions.repeated import repeatable
from nncompiler.codegen.contractions.slots import Slots
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value
from nncompiler.codegen.nests.footprint import footprint
from nncompiler.codegen.nests.loops import Nest
from nncompiler.ir.kernel import Fold, Schedule
from nncompiler.ir.nests import Contraction
from nncompiler.ir.tile_roles import ordered
from nncompiler.ir.types import DType

#: Number of distinct expressions from which on an epilogue is a loop over rows.
_LONG = 16


class Epilogues:
    """Writes the epilogue of single tiles."""

    def __init__(self, form: Contraction, schedule: Schedule, emitter: Emitter) -> None:
        self.e = emitter
        self.w = emitter.w
        self.body = form.body
        self.parallel = ordered(form.parallel, schedule)
        self.products = {id(p.fold): roles_of(p, self.parallel, schedule) for p in form.products}
        self.vector, self.rows = schedule.vector[0], schedule.register
        self.reduced = all(a.name != self.vector for a in self.parallel)
        first = self.products[id(form.products[0].fold)]
        self.columns = columns_of(first, self.parallel, schedule)
        self.extents = {a.name: a.extent for a in (*self.parallel, *first.reduction)}
        self.dtype: DType = first.a.dtype
        self.lanes = emitter.target.vector_bytes // self.dtype.bytes
        self.pack = min(schedule.pack, self.extents[self.columns])
        # With registers for masks one row gains nothing: its loads decide, and more cross lines.
        gains = self.rows is not None or not emitter.target.masks
        alone = not self.reduced and not self.pack and gains
        self.repeats = alone and repeatable(form.body, self.columns, emitter)
        behind = tuple(s for s in form.body if not isinstance(s, Fold))
        seen = footprint(behind, (), emitter.expand)
        self.long = seen.cost > _LONG and not seen.guarded
        steps = math.prod(a.extent for a in first.reduction)
        roles = self.columns, self.rows
        self.expected = expected(form.body, roles, self.extents, steps, emitter)

    def expect(self, tile: Tile) -> None:
        """Ask for the lines of memory that the epilogue reads and writes."""

        def body(row: Counter, _: list[Value]) -> list[Value]:
            self.expect_row(tile, row)
            return []

        if self.expected and not self.reduced:
            self.w.loop(0, tile.rows, 1, [], body)

    def expect_row(self, tile: Tile, row: Counter) -> None:
        """Those of one row."""
        at = {self.rows: self.row_at(tile, row)} if self.rows else {}
        for x, written in self.expected:
            for first in range(0, tile.width, LINE // x.dtype.bytes):
                with self.e.scope({**at, self.columns: tile.column + first}):
                    self.e.prefetch(x, written)

    def finish(self, tile: Tile, sums: dict[int, list[Value]]) -> None:
        """The epilogue: row by row where that pays, else vector by vector."""
        lanes = next(iter(sums.values()))[0].lanes
        if self.by_row(tile, lanes):
            self.finish_rows(tile, {k: self._kept(s) for k, s in sums.items()})
            return
        across = -(-tile.width // lanes)
        for r in range(tile.rows):
            for v in range(across):
                column = self.column_of(tile, v, lanes)
                over = Lanes(self.columns, lanes, min(lanes, tile.width - column))
                self.epilogue(
                    tile, tile.row + r, over, column,
                    {k: s[r * across + v] for k, s in sums.items()},
                )  # fmt: skip

    def by_row(self, tile: Tile, lanes: int) -> bool:
        """Whether the epilogue is long enough to be a loop over rows: the vectors of a row take
        turns, while LLVM puts those of a whole tile one after the other, each waiting for itself.
        """
        return self.long and tile.rows > 1 and tile.width % lanes == 0

    def _kept(self, sums: list[Value]) -> Slots:
        """Sums in scratch memory."""
        lanes, count = sums[0].lanes, len(sums)
        memory = self.w.scratch(count * lanes * self.dtype.bytes)
        slots = Slots(self.w, memory, self.dtype, lanes, count, ())
        slots.store(sums)
        return slots

    def finish_rows(self, tile: Tile, sums: dict[int, Slots]) -> None:
        """The epilogue as a loop over rows."""
        over = Lanes(self.columns, tile.width, tile.width)

        def body(row: Counter, _: list[Value]) -> list[Value]:
            found = {k: s.several(row, tile.width // s.lanes) for k, s in sums.items()}
            self.epilogue(tile, self.row_at(tile, row), over, 0, found)
            return []

        self.w.loop(0, tile.rows, 1, [], body)

    def row_at(self, tile: Tile, row: Counter) -> At:
        """Where a row of a tile is."""
        return self.moved(tile.row, row)

    def moved(self, at: At, steps: Counter) -> At:
        """So many steps further on."""
        if isinstance(steps, int):
            return at + steps
        if not at.base:
            return At(steps, at.plus)
        return At(self.w.assign(f"add nuw nsw i64 {at.base}, {steps}"), at.plus)

    def column_of(self, tile: Tile, number: int, lanes: int) -> int:
        """The first column of an accumulator of a tile."""
        column = number if self.reduced else number * lanes
        return min(column, tile.width - lanes) if self.repeats and tile.width > lanes else column

    def epilogue(
        self, tile: Tile, row: At, over: Lanes, first: int, sums: dict[int, Value]
    ) -> None:
        """Every statement in its order, for a vector of columns of one row."""
        at = {self.columns: tile.column + first}
        if self.rows:
            at[self.rows] = row
        with self.e.scope(at, over):
            nest = Nest(self.e)
            for statement in self.body:
                if isinstance(statement, Fold):
                    self.e.locals[statement.names[0]] = sums[id(statement)]
                else:
                    nest.run((statement,))
