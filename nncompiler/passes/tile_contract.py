"""The register tile of a contraction: which axes are rows and columns, how large the tile is, in
what order the loops around it run and what is packed.

Candidates are compared by cycles. The model knows the vector length and the number of registers,
nothing else of the processor: two multiply-adds and two loads per cycle, latency four.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

from nncompiler.ir.kernel import Schedule
from nncompiler.ir.nests import Product
from nncompiler.ir.scalar import Expr, axes_of
from nncompiler.passes.guards import besides
from nncompiler.passes.tile_choice import Best, Choice
from nncompiler.passes.tile_loops import LANE
from nncompiler.passes.tile_reads import (
    CACHE,
    LINE,
    PAGE,
    Reads,
    with_columns,
)
from nncompiler.passes.unroll import unrolled
from nncompiler.record import dataclass

#: A contraction with fewer multiply-adds than this is not worth a register tile.
SMALL = 64
#: Cycles of one lane of a packed panel, of one that is turned in registers, and of one vector.
_PACKED_LANE, _TURNED_LANE, _PACKED_VECTOR = 0.75, 0.4, 1.5
#: Cycles of scattering one lane in an epilogue, which is not a loop: its size counts too.
_SCATTERED = 4.0
#: Cycles of storing a part of a vector, on processors without registers for masks.
_PARTIAL = 12.0
_LATENCY = 4
#: Loads per cycle where nothing else limits a tile: two units, now and then at the same bank.
_LOADS = 1.6
#: Cycles of reading the columns of one step where the next step's lie on another page: no prefetch
#: of hardware crosses it. Copied, of one vector of them.
_PAGE_STEP, _PAGE_VECTOR = 3.0, 4.0
#: Cycles of a guard that differs between the rows or columns of a tile, and of one that differs
#: between lanes: a mask, which stays the same over channels. Only tiles at an edge look at them.
_GUARD, _MASK = 0.75, 0.5
#: The same for partial sums, which have more of them; and of what a factor reads besides one load.
_GUARD_REDUCED, _CHOSEN = 2.0, 3.0
#: The factor that varies along the columns is packed when so many tiles read the copy of a tile,
#: and when that is no larger than this; in blocks of several tiles while they fit.
PANEL_READERS = 4
PANEL_BYTES = 64 * 1024
BLOCK_BYTES, BLOCK = 128 * 1024, 4
#: Bytes of the sums of a block that may wait between rounds, on the stack.
SLOT_BYTES = 512 * 1024
#: Rows run around the tiles of larger blocks where so many tiles of rows read them.
BLOCK_READERS = 32
#: Cycles of a round: for each accumulator, for each tile; and of a step in a round whose factors
#: fill the first-level cache.
_SLOT, _ROUND, _LONG = 0.5, 5.0, 1.0


@dataclass(frozen=True, slots=True)
class ContractionTiles(Reads):
    vector_bytes: int
    registers: int

    def best(self) -> tuple[float, Schedule] | None:
        """The cheapest register tile over all axes and roles; None when the loops strategy does as
        well.
        """
        steps = [self.size(p.reduction) for p in self.form.products]
        if self.size(self.form.parallel) * max(steps) < SMALL or not all(steps):
            return None
        choices = list(self.candidates(Best()))
        if not choices:
            return None
        choice = min(choices, key=lambda c: c.cycles)
        return choice.cycles, self.schedule(choice)

    def candidates(self, best: Best) -> Iterable[Choice]:
        """All choices of columns and rows that may be the best. Of each product, `b` is the factor
        that has the columns.
        """
        names = [a.name for a in self.form.parallel]
        for columns in names:
            products = [with_columns(p, columns) for p in self.form.products]
            if any(columns in axes_of(a) or columns not in axes_of(b) for a, b in products):
                continue
            rows = [
                r
                for r in names
                if all(r in axes_of(a) and r not in axes_of(b) for a, b in products)
            ]
            for row in rows or (None,):
                yield from self.across_columns(best, products, columns, row)
                if len(products) == 1:
                    yield from self.across_reduction(
                        best, self.form.products[0], *products[0], columns, row
                    )

    def across_columns(
        self, best: Best, products: list[tuple[Expr, Expr]], columns: str, row: str | None
    ) -> Iterable[Choice]:
        """Lanes are columns: one broadcast per row and one load per vector of columns in every
        step.
        """
        unit = all(self.stride(b, columns) == 1 for _, b in products)
        scattered = self.scattered(columns)
        m, n = self.extent(row), self.extent(columns)
        others = self.size(self.form.parallel) / (m * n)
        steps = sum(self.size(p.reduction) for p in self.form.products)
        read_by = {x for _, b in products for x in axes_of(b)}
        sharing = self.size(a for a in self.form.parallel if a.name not in (*read_by, row))
        masked = sum(
            _MASK * self.edges(b, columns, self.lanes) + _CHOSEN * besides(b)
            for _, b in products
        ) / len(products)
        masks = sum(
            _GUARD * self.edges(a, row) + _CHOSEN * besides(a) for a, _ in products
        ) / len(products)
        panel = max(self.size(p.reduction) for p in self.form.products) * len(products)
        turned = all(
            any(self.stride(b, k.name) == 1 for k in p.reduction)
            for p, (_, b) in zip(self.form.products, products, strict=True)
        )
        packed_lane = _TURNED_LANE if turned else _PACKED_LANE
        rows_apart, pages = (all(self.apart(p[n], PAGE) for p in products) for n in (0, 1))
        apart = self.apart(products[0][0], LINE)

        @cache
        def copied(vectors: int) -> tuple[int, str | None, bool]:
            """Of panels of so many columns: the bytes, the axis of rounds, whether copies pay."""
            size = panel * vectors * self.vector_bytes
            around = self.round_of(products, size, row, columns)
            as_is = self.as_is(products, columns, vectors * self.lanes, around)
            return size, around, not as_is and (size <= PANEL_BYTES or around is not None)

        across = -(-n // self.lanes)
        stored = others * m * n * (1 / self.lanes + scattered * _SCATTERED)

        def least(rows: int, vectors: int) -> float:
            guards = masks * rows + masked * vectors + rows_apart * _PAGE_STEP
            step = _flow(rows, vectors) + _pressure(rows, vectors) + guards
            return steps * others * m * across * step / (rows * vectors) + stored

        def choice(rows: int, vectors: int) -> Choice:
            readers = sharing * -(-m // rows)
            size, around, pays = copied(vectors)
            copy, far = 0.0 if unit else LANE * self.lanes, pages * _PAGE_STEP
            if pays and readers >= PANEL_READERS:
                copy = (_PACKED_VECTOR if unit else packed_lane * self.lanes) / readers
                copy, far = copy + pages * _PAGE_VECTOR / readers, 0.0

            far += self.waiting(apart, around, rows * vectors, size)

            def step(r: int, v: int, copy: float = copy, far: float = far) -> float:
                guards = masks * r + masked * v + far + rows_apart * _PAGE_STEP
                return _flow(r, v) + _pressure(r, v) + copy * v + guards

            cycles = steps * others * _over_tiles(m, rows, across, vectors, step) + stored
            if n % self.lanes and self.registers <= 16:
                cycles += others * m * _PARTIAL * self.stores
            return Choice(cycles, columns, columns, row, (rows, vectors * self.lanes))

        yield from best.of(self.tiles(_registers, m, across), least, choice)

    def across_reduction(
        self, best: Best, product: Product, a: Expr, b: Expr, columns: str, row: str | None
    ) -> Iterable[Choice]:
        """Lanes are partial sums: one vector load per row and per column in every step, shuffles
        at the end.
        """
        for k in product.reduction:
            if self.stride(a, k.name) == 1 and self.stride(b, k.name) == 1:
                steps = self.size(product.reduction) / k.extent * -(-k.extent // self.lanes)
                yield from self.partial_sums(best, steps, (a, b), k.name, columns, row)

    def partial_sums(
        self, best: Best, steps: float, factors: tuple[Expr, Expr], k: str, columns: str,
        row: str | None,
    ) -> Iterable[Choice]:  # fmt: skip
        """Lanes along a reduction axis `k`, in so many steps."""
        a, b = factors
        m, n = self.extent(row), self.extent(columns)
        others = self.size(self.form.parallel) / (m * n)
        masks = _GUARD_REDUCED * (self.guarded(a, row) or self.guarded(a, k))
        masked = _GUARD_REDUCED * (self.guarded(b, columns) or self.guarded(b, k))

        def flow(r: int, c: int) -> float:
            return max(r * c / 2, (r + c) / 2, _LATENCY)

        def least(rows: int, cols: int) -> float:
            return steps * others * m * n * flow(rows, cols) / (rows * cols)

        def choice(rows: int, cols: int) -> Choice:
            guards = masks * rows + masked * cols

            def step(r: int, c: int) -> float:
                shuffles = r * (1.5 * (-(-c // 4) * 4) + 4) / steps
                return flow(r, c) + shuffles + 0.2 * (r + c) + guards

            cycles = steps * others * _over_tiles(m, rows, n, cols, step)
            return Choice(cycles, k, columns, row, (rows, cols))

        tiles = self.tiles(lambda r, c: r * c + min(r, c), m, n)
        return best.of([(r, c) for r, c in tiles if c <= 4 or not c % 4], least, choice)

    def tiles(
        self, registers: Callable[[int, int], int], m: int, n: int
    ) -> Iterable[tuple[int, int]]:
        """Tile sizes whose accumulators and operands fit, small ones first. LLVM spills when none
        is left over.
        """
        limit = self.registers - (1 if self.registers <= 16 else 3)
        for rows in range(1, min(m, 16) + 1):
            for across in range(1, min(n, 16) + 1):
                if registers(rows, across) <= limit:
                    yield rows, across

    def schedule(self, choice: Choice) -> Schedule:
        """Loops from the outside in: what the panel of `b` depends on, columns, what shares the
        panel, rows.
        """
        varying = {
            x
            for p in self.form.products
            for e in (p.a, p.b)
            if choice.columns in axes_of(e)
            for x in axes_of(e)
        }
        rest = [a.name for a in self.form.parallel if a.name not in (choice.columns, choice.rows)]
        outer = [x for x in rest if x in varying]
        inner = [x for x in rest if x not in varying]
        reduction = [a.name for p in self.form.products for a in p.reduction]
        # Positions outside, channels inside: bounds of padded positions are then looked at rarely.
        products = [with_columns(p, choice.columns) for p in self.form.products]
        shifted = {x for pair in products for e in pair for x in self.shifted(e)}
        far = {x: max(self.reach(a, x) for a, _ in products) for x in reduction}
        reduction.sort(key=lambda x: (x == choice.vector, x not in shifted, -far[x]))
        rows = [choice.rows] if choice.rows else []
        order = (*outer, choice.columns, *inner, *rows, *dict.fromkeys(reduction))
        if (around := self.around(choice, shifted, reduction)) is not None:
            order = around
        elif choice.vector == choice.columns and (
            first := self.round_of(products, self.panel_bytes(choice), choice.rows, choice.columns)
        ):
            inside = (*inner, *rows, *(x for x in reduction if x != first))
            order = (*outer, choice.columns, first, *inside)
        order, pack = self.packed(choice, products, order)
        unroll = 1 if choice.vector != choice.columns else unrolled(self.form, order[-1])
        roles = (choice.vector,), choice.rows, choice.tile
        return Schedule("contract", *roles, order, pack, unroll)

    def packed(
        self, choice: Choice, products: list[tuple[Expr, Expr]], order: tuple[str, ...]
    ) -> tuple[tuple[str, ...], int]:
        """Columns to pack at a time, 0 where that is not worth it; and the order. Where many tiles
        make up a block, the rows run around them: the epilogue then goes along lines of memory.
        Where few rows read a panel it is of one tile, which the first rows fill as they read.
        """
        names = [a.name for a in self.form.parallel]
        place = order.index(choice.columns)
        inside = [x for x in order[place + 1 :] if x in names]
        steps = {choice.rows: choice.tile[0]}
        readers = math.prod(-(-self.extent(x) // steps.get(x, 1)) for x in inside)
        varies = any(x in axes_of(b) for x in inside for _, b in products)
        around = order[place + 1] if order[place + 1] not in names else None
        size = self.panel_bytes(choice) * len(products)
        size //= next((k.extent for k in self.form.products[0].reduction if k.name == around), 1)
        reduced = choice.vector != choice.columns
        as_is = self.as_is(products, choice.columns, choice.tile[1], around)
        if reduced or varies or as_is or readers < PANEL_READERS or size > PANEL_BYTES:
            return order, 0
        if any(self.stride(b, choice.columns) != 1 for _, b in products):
            return order, choice.tile[1]
        every, tiles = -(-self.extent(choice.columns) // choice.tile[1]), BLOCK_BYTES // size
        if around is None and tiles > BLOCK and every > 1 and readers >= BLOCK_READERS:
            blocks = -(-every // tiles)
            last = place + 1 + len(inside)
            order = (*order[:last], choice.columns, *order[last:])
            return order, choice.tile[1] * -(-every // blocks)
        if around is None and inside == [choice.rows] and readers < BLOCK_READERS:
            tiles = 1
        a, most = products[0][0], BLOCK
        if around is not None and self.apart(a, LINE) and self.stride(a, inside[-1]) == 1:
            # Rows that lie side by side are copied too, for half of all columns at most.
            waiting = self.extent(choice.rows) * choice.tile[1] * a.dtype.bytes
            most = max(BLOCK, min(every // 2, SLOT_BYTES // waiting))
        return order, choice.tile[1] * max(1, min(tiles, most, every))

    def around(
        self, choice: Choice, shifted: set[str], reduction: list[str]
    ) -> tuple[str, ...] | None:
        """The order in which the outermost reduction loop, over positions, runs around the loops
        over places in the window: these read the same rows, which are then still in cache. Worth
        it where the factors of one tile are too large for that as a whole.
        """
        if choice.vector not in reduction or len(self.form.products) != 1:
            return None
        product, names = self.form.products[0], [a.name for a in self.form.parallel]
        first = next((x for x in reduction if x != choice.vector and x in shifted), None)
        inside = [x for x in names if x in shifted and x not in (choice.columns, choice.rows)]
        if first is None or not inside:
            return None
        lines = sum(choice.tile) * self.size(product.reduction) * product.a.dtype.bytes
        slots = math.prod(choice.tile) * self.vector_bytes * math.prod(map(self.extent, inside))
        if lines < CACHE or slots > CACHE // 2:
            return None
        outside = [choice.columns, *([choice.rows] if choice.rows else [])]
        outside = [x for x in names if x not in (*inside, *outside)] + outside
        return (*outside, first, *inside, *(x for x in reduction if x != first))

    def as_is(
        self, products: list[tuple[Expr, Expr]], columns: str, width: int, around: str | None
    ) -> bool:
        """Whether tiles read their columns where they are: what rounds read in windows, the next
        place finds in cache again, where a copy for each would be read by few tiles.
        """
        if self.dense(columns, width) or self.near(products, columns):
            return True
        return around is not None and all(
            self.stride(b, columns) == 1 and self.shifted(b) for _, b in products
        )

    def panel_bytes(self, choice: Choice) -> int:
        across = -(-choice.tile[1] // self.lanes) * self.vector_bytes
        return max(self.size(p.reduction) for p in self.form.products) * across

    def round_of(
        self, products: list[tuple[Expr, Expr]], panel: int, row: str | None, columns: str
    ) -> str | None:
        """The reduction axis to run around the rows, where a panel is too large as a whole and
        has several axes: the one along which the rows' factor lies furthest apart.
        """
        reduction = self.form.products[0].reduction
        if len(products) != 1 or len(reduction) < 2 or row is None:
            return None
        if self.near(products, columns):
            return None
        a, b = products[0]
        lines = self.size(reduction) * LINE
        if panel <= PANEL_BYTES and lines + panel <= CACHE:
            return None
        first = max(reduction, key=lambda k: self.reach(a, k.name))
        if self.guarded(a, first.name) or self.guarded(b, first.name):
            return None
        slots = self.extent(row) * 16 * self.vector_bytes // self.lanes
        fits = panel // first.extent <= PANEL_BYTES and slots <= 2 * PANEL_BYTES
        return first.name if fits else None

    def waiting(self, apart: bool, around: str | None, vectors: int, panel: int) -> float:
        """What a step waits for memory: in rounds, a tile's accumulators come from there and go
        back in each; long ones fill the cache where the rows' factor lies a line `apart`.
        """
        reduction = self.form.products[0].reduction
        inside = math.prod(k.extent for k in reduction if k.name != around)
        long = inside * (LINE + panel // self.size(reduction)) > CACHE // 2
        rounds = (_SLOT * vectors + _ROUND) / inside if around else 0.0
        return rounds + _LONG * (long and apart)


def _pressure(rows: int, across: int) -> float:
    """What a step's loads cost beside the arithmetic: vectors come from a larger panel than the
    rows' scalars.
    """
    return 0.1 * rows + 0.25 * across


def _registers(rows: int, vectors: int) -> int:
    """Accumulators and operands; a vector that only one row needs is an operand in memory."""
    return rows * vectors + (vectors if rows > 1 else 0) + 1


def _flow(rows: int, vectors: int) -> float:
    """Cycles of a step of a tile without anything that gets in its way."""
    return max(rows * vectors / 2, (rows + vectors) / _LOADS, _LATENCY)


def _over_tiles(
    m: int, rows: int, n: int, across: int, step: Callable[[int, int], float]
) -> float:
    """The cycles of one step summed over all tiles: rows divided evenly, columns with a rest."""
    total = 0.0
    less, more = divmod(m, -(-m // rows))
    for r, count_r in ((less + 1, more), (less, -(-m // rows) - more)):
        for c, count_c in ((across, n // across), (n % across, int(n % across > 0))):
            if count_r and count_c:
                total += count_r * count_c * step(r, c)
    return total
