"""One register tile: accumulators for rows and columns, live across all reduction loops. What uses
their sums is in `epilogues`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompiler.codegen.contractions.direction import Direction
from nncompiler.codegen.contractions.product import Loops, Roles, narrowed
from nncompiler.codegen.contractions.requests import Requests
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value, active_mask, literal
from nncompiler.codegen.nests.horizontal import transpose_add
from nncompiler.ir.kernel import Axis, Schedule
from nncompiler.ir.nests import Contraction, abreast
from nncompiler.ir.scalar import Const, Expr, Load

#: Multiply-adds that a processor has under way at a time; steps that are worth several chains.
IN_FLIGHT, LONG_CHAIN = 8, 32
#: Accumulators of products that a tile takes steps of at a time, at most.
WIDEST = 16
#: Bytes of the shortest vectors.
_SHORTEST = 16


class RegisterTiles(Requests):
    """Writes the sums and the epilogue of single tiles."""

    def __init__(self, form: Contraction, schedule: Schedule, emitter: Emitter) -> None:
        super().__init__(form, schedule, emitter)
        assert schedule.tile is not None
        rows, across = schedule.tile
        # Whole vectors: a plan may have been made for shorter ones.
        self.tile = rows, across if self.reduced else -(-across // self.lanes) * self.lanes
        self.zero = Const(0.0, self.dtype)
        #: Scratch memory by its size, for accumulators between rounds.
        self.waiting: dict[int, str] = {}
        self.direction: Direction | None = None
        if schedule.backwards is not None and schedule.alternate is not None:
            axis, round = schedule.backwards, self.e.axes[schedule.alternate].base
            self.direction = Direction(self.w, axis, self.extents[axis], round)
        self.abreast = abreast(form)

    def _tile(self, tile: Tile) -> None:
        """All sums of a tile, then its epilogue."""
        if not self.asks_by_row(tile):
            self.expect(tile)
        sums: dict[int, list[Value]] = {}
        for products in self.together_in(tile):
            found = self.sums(products, tile)
            each = len(found) // len(products)
            for n, product in enumerate(products):
                sums[id(product.fold)] = found[n * each : (n + 1) * each]
        self.finish(tile, sums)

    def together_in(self, tile: Tile) -> list[list[Roles]]:
        """The products in groups of which a tile takes steps at a time."""
        products = [*self.products.values()]
        fits = len(products) * self.vectors_of(tile) < min(self.e.target.registers, WIDEST + 1)
        if self.rows is None and self.abreast and fits and not tile.panels:
            return [products]
        return [[p] for p in products]

    def column_at(self, block: Tile, number: Counter) -> At:
        """Where the first column of a tile of a block is."""
        return self.moved(block.column, self.w.times(number, self.tile[1]))

    def _column(self, product: Roles, tile: Tile, first: int, lanes: int) -> Value:
        """One vector of `b`, from its panel if there is one."""
        panel = dict(tile.panels).get(id(product.fold))
        if panel is not None and not tile.fills:
            return panel.load(tile.number, first, lanes)
        value = self.direct(product, tile, first, lanes)
        if panel is not None:
            self.ask_column(product, tile.column + first)
            panel.store(tile.number, first, value)
        return value

    def direct(self, product: Roles, tile: Tile, first: int, lanes: int) -> Value:
        over = None if self.reduced else Lanes(self.vector, lanes, min(lanes, tile.width - first))
        with self.e.scope({self.columns: tile.column + first}, over):
            return self._operand(product.b, lanes)

    def sums(self, products: Sequence[Roles], tile: Tile) -> list[Value]:
        """The finished sums by product, row and vector of columns."""
        product, *more = products
        lanes, across = self.lanes_of(tile), self.vectors_of(tile)
        each = tile.rows * across
        count, chains = each * len(products), 1 if more else self._chains(product, tile)
        start = [literal(self.zero, lanes)] * (count * chains)
        loops = product.loops
        if not tile.fills:
            size = {self.columns: tile.width, self.rows or "": tile.rows}
            loops = narrowed(loops, product.fold.within, size, self.vector)

        def step(acc: list[Value]) -> list[Value]:
            taken = list[Value]()
            for n, p in enumerate(products):
                taken += self.step(p, tile, across, acc[n * each : (n + 1) * each])
            return [*acc[count:], *taken]

        loops, start = self._short_first(loops, start, step)
        ask = (lambda row: self.ask_by_row(tile, row)) if self.asks_by_row(tile) else None
        sums = self.reduce(loops, start, step, max(chains, self.together(tile)), ask)
        while len(sums) > count:
            half = len(sums) // 2
            sums = [self.w.sum(a, b) for a, b in zip(sums[:half], sums[half:], strict=True)]
        return self.joined(sums, across) if self.reduced else sums

    def _short_first(
        self, loops: Loops, start: list[Value], step: Callable[[list[Value]], list[Value]]
    ) -> tuple[Loops, list[Value]]:
        """The loops without what is left for their last vector, where half of its lanes or less
        are enough, and what partial sums begin with: that, in shorter vectors, of which processors
        multiply more in a cycle or load more easily.
        """
        if not self.reduced or len(loops) != 1:
            return loops, start
        ((axis, bounds),), lanes = loops, start[0].lanes
        left = axis.extent % lanes
        short = max(_SHORTEST // self.dtype.bytes, 1 << max(left - 1, 0).bit_length())
        if not left or axis.extent < lanes or short >= lanes:
            return loops, start
        whole = axis.extent - left
        zeros = literal(self.zero, short)
        with self.e.scope({axis.name: At("", whole)}, Lanes(axis.name, short, left)):
            found = step([zeros] * len(start))
        picks = [min(n, short) for n in range(lanes)]
        wide = [self.w.shuffle(x, zeros, picks) for x in found]
        return ((Axis(axis.name, whole), bounds),), wide

    def _chains(self, product: Roles, tile: Tile) -> int:
        """How many steps take turns, each with accumulators of its own, where those of one are too
        few to keep the multipliers busy.
        """
        steps = product.reduction[-1].extent if len(product.reduction) == 1 else 0
        if self.reduced or steps < LONG_CHAIN or 2 * tile.width <= self.tile[1]:
            return 1
        fits = range(IN_FLIGHT // (tile.rows * self.vectors_of(tile)), 1, -1)
        return next((n for n in fits if steps % n == 0 and not n & (n - 1)), 1)

    def joined(self, sums: list[Value], across: int) -> list[Value]:
        """Lanes added up: of the sums of a row one vector."""
        return [transpose_add(self.w, sums[n : n + across]) for n in range(0, len(sums), across)]

    def together(self, tile: Tile) -> int:
        """Steps of the innermost reduction loop that stand one after the other: several in a tile
        such as most are, for in an edge, or where a panel is filled, they would not pay.
        """
        repeated = tile.rows == self.often and 2 * tile.width > self.tile[1] and not tile.fills
        return self.unroll if repeated else 1

    def lanes_of(self, tile: Tile) -> int:
        """Lanes of a vector: a full register, or less where the whole axis needs less."""
        need = self.extents[self.vector] if self.reduced else tile.width
        return min(self.lanes, max(2, 1 << (need - 1).bit_length()))

    def vectors_of(self, tile: Tile) -> int:
        """Accumulators of a row."""
        return tile.width if self.reduced else -(-tile.width // self.lanes_of(tile))

    def reduce(
        self,
        loops: Loops,
        acc: list[Value],
        products: Callable[[list[Value]], list[Value]],
        together: int = 1,
        ask: Callable[[Counter], None] | None = None,
    ) -> list[Value]:
        """The reduction loops, accumulators carried through all of them; so many steps of the
        innermost one `together`, if its bounds are numbers. Whether a loop is empty is asked once,
        in front of all whose bounds do not depend on others. What there is to `ask` for comes
        in front of steps of the outermost one, or of parts of the only one.
        """
        counters, outermost = {axis.name for axis, _ in loops}, loops[0][0] if loops else None
        spans = {
            axis.name: bounds.ends(axis.extent, self.w, self.e.integer)
            for axis, bounds in loops
            if axis.name != self.vector and counters.isdisjoint(bounds.axes())
        }

        def nest(loops: Loops, acc: list[Value]) -> list[Value]:
            if not loops:
                return products(acc)
            (axis, bounds), rest = loops[0], loops[1:]
            if axis.name == self.vector:
                steps = 1 if rest else together
                return self._reduce_lanes(axis, acc, lambda inside: nest(rest, inside), steps)

            ends = spans.get(axis.name) or bounds.ends(axis.extent, self.w, self.e.integer)
            steps = 1 if rest or ends != (0, axis.extent) else together

            def body(at: Counter, inside: list[Value]) -> list[Value]:
                if ask is not None and axis is outermost and rest:
                    ask(at)
                for n in range(steps):
                    with self.e.scope({axis.name: self._place(axis, at, steps, n)}):
                        inside = nest(rest, inside)
                return inside

            if ask is not None and axis is outermost and not rest:
                return self.in_parts(axis.extent, steps, acc, body, ask)
            if steps > 1:
                return self.w.loop(0, axis.extent, steps, acc, body)
            return (self.w.some if axis.name in spans else self.w.span)(*ends, acc, body)

        needed = [form for _, bounds in loops for form in bounds.only]
        known = [(0, self.e.integer(form + 1)) for form in needed]
        return self.w.unless_empty([*known, *spans.values()], acc, lambda acc: nest(loops, acc))

    def _place(self, axis: Axis, at: Counter, together: int, step: int) -> At:
        """The place of one of the steps that a reduction loop takes together."""
        if self.direction is not None and axis.name == self.direction.axis:
            return self.direction.at(at, step)
        return At.of(at, range(0, axis.extent, together)) + step

    def _reduce_lanes(
        self, axis: Axis, acc: list[Value], inner: Callable[[list[Value]], list[Value]],
        together: int,
    ) -> list[Value]:  # fmt: skip
        """The reduced vector axis: whole vectors, so many at a time, then a masked one."""
        count = acc[0].lanes
        whole = axis.extent // count * count
        for start, stop, active in ((0, whole, count), (whole, axis.extent, axis.extent - whole)):
            step = count * (together if (stop - start) % (count * together) == 0 else 1)
            lanes, counters = Lanes(axis.name, count, active), range(start, stop, step)

            def body(
                at: Counter, inside: list[Value], lanes: Lanes = lanes, counters: range = counters
            ) -> list[Value]:
                for n in range(0, counters.step, count):
                    with self.e.scope({axis.name: At.of(at, counters) + n}, lanes):
                        inside = inner(inside)
                return inside

            acc = self.w.loop(start, stop, step, acc, body)
        return acc

    def step(self, product: Roles, tile: Tile, across: int, acc: list[Value]) -> list[Value]:
        """One step of the innermost reduction loop: every accumulator takes one product."""
        lanes = acc[0].lanes
        found = list(acc)
        if self.reduced and tile.rows < across:
            # The shorter side stays in registers while the longer one streams past.
            rows = [self._row(product, tile, r, lanes) for r in range(tile.rows)]
            for v in range(across):
                column = self._column(product, tile, self.column_of(tile, v, lanes), lanes)
                for r, row in enumerate(rows):
                    found[r * across + v] = self.multiply_add(row, column, acc[r * across + v])
            return found
        self.ask_rows(product, tile)
        firsts = [self.column_of(tile, v, lanes) for v in range(across)]
        columns = [self._column(product, tile, first, lanes) for first in firsts]
        for r in range(tile.rows):
            row = self._row(product, tile, r, lanes)
            for v, column in enumerate(columns):
                found[r * across + v] = self.multiply_add(row, column, acc[r * across + v])
        return found

    def _row(self, product: Roles, tile: Tile, row: int, lanes: int) -> Value:
        """One scalar of `a` in all lanes, or one vector of it where the vector axis is reduced."""
        if tile.row_panel is not None:
            panel, number = tile.row_panel
            return self.w.splat(panel.scalar(number, row), lanes)
        with self.e.scope({self.rows: tile.row + row} if self.rows else {}):
            return self._operand(product.a, lanes)

    def _operand(self, expr: Expr, lanes: int) -> Value:
        """An operand as a vector; lanes beyond a reduced axis are zero, so that they add nothing.
        """
        value = self.w.splat(self.e.value(expr), lanes)
        over = self.e.lanes
        zero_already = isinstance(expr, Load) and expr.guard is None
        if self.reduced and over is not None and over.active < lanes and not zero_already:
            return self.w.choose(active_mask(over.active, lanes), value, literal(self.zero))
        return value

    def multiply_add(self, a: Value, b: Value, acc: Value) -> Value:
        if self.e.target.fma:
            return self.w.overloaded("fma", [a, b, acc])
        product = self.w.value(f"fmul {a.typed}, {b.text}", self.dtype, a.lanes)
        return self.w.sum(product, acc)
