"""The register tile of a contraction: which axes are rows and columns, and how large the tile is.

Candidates are compared by cycles, of which the model knows what a `Machine` says of its processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product as combined

from nncompiler.ir.kernel import Axis, Schedule
from nncompiler.ir.machine import Machine
from nncompiler.ir.nests import abreast
from nncompiler.ir.scalar import Expr, Load, axes_of
from nncompiler.passes.tiling.accesses import loads_below
from nncompiler.passes.tiling.choice import Best, Choice
from nncompiler.passes.tiling.guards import besides
from nncompiler.passes.tiling.loops import LANE
from nncompiler.passes.tiling.masked import Masked, masked
from nncompiler.passes.tiling.order import PANEL_BYTES, Order
from nncompiler.passes.tiling.reads import CACHE, LINE, NEAR, PAGE, with_columns
from nncompiler.passes.tiling.run_on import running_on
from nncompiler.record import dataclass

#: A contraction with fewer multiply-adds than this is not worth a register tile.
SMALL = 64
#: Cycles of one lane of a packed panel, of one that is turned in registers, and of one vector.
_PACKED_LANE, _TURNED_LANE, _PACKED_VECTOR = 0.75, 0.4, 1.5
#: Cycles of scattering one lane in an epilogue, which is not a loop: its size counts too.
_SCATTERED = 4.0
#: Cycles of storing a part of a vector by powers of two: no registers for masks.
_PARTIAL = 2.0
#: Rows and vectors of a tile at most.
_WIDEST = 16
#: The part of loads that do not wait for another one at the same bank; and scalars of rows that
#: are loaded in a cycle then.
_BANKS, _SCALARS = 0.8, 1.6
#: Multiply-adds in a cycle for which the cycles of a kernel are given: beside such the loops and
#: transforms were measured that it is compared with.
_COUNTED = 2
#: Cycles of a step beside the arithmetic for a vector of columns and for a row, more where vectors
#: are long, of whole lines. Rows of the epilogue lie apart, vectors of one follow each other.
_VECTOR, _ROW, _ROW_LONG = 0.25, 0.1, 0.2
#: Cycles of reading the columns of one step where the next step's lie on another page: no prefetch
#: of hardware crosses it; of so many bytes side by side, the wait hides behind them. Copied, of
#: one vector.
_PAGE_STEP, _PAGE_WIDE, _PAGE_VECTOR = 3.0, 1024, 4.0
#: Cycles more of a vector of columns that comes from the second-level cache in every step.
_SECOND = 0.25
#: Cycles of a line of the rows' factor from beyond the second-level cache, read again for each
#: tile of columns: so few that they decide between equals.
_FAR = 0.02
#: Cycles of a guard that differs between the rows or columns of a tile, and of one that differs
#: between lanes: a mask, which stays the same over channels. Only tiles at an edge look at them.
_GUARD, _MASK = 0.75, 0.5
#: The same for partial sums, which have more of them; and of what a factor reads besides one load.
_GUARD_REDUCED, _CHOSEN = 2.0, 3.0
#: Cycles of a load of a step of partial sums beside the arithmetic: of lines, and where it is.
_LINES, _PARTIAL_SUMS = 0.1, 0.2
#: Cycles of a round: for each accumulator, more where vectors are long, for each tile; and of a
#: step in a round whose factors fill the first-level cache.
_SLOT, _SLOT_LONG, _ROUND, _LONG = 0.5, 0.75, 5.0, 1.0
#: Multiply-adds of a tile that are in flight together with the end of the one before; of a larger
#: one, cycles of each accumulator's end where a store of a long vector takes two.
_FLIGHT, _END = 80, 0.3


@dataclass(frozen=True, slots=True)
class Pair:
    """Columns and rows to choose tiles for. Of each product, the second factor has the columns;
    so many accesses of the epilogue are `scattered` along them, or none where sums are `turned`.
    """

    products: list[tuple[Expr, Expr]]
    columns: str
    row: str | None
    scattered: int
    turned: bool = False
    runs_on: Choice | None = None


@dataclass(frozen=True, slots=True)
class ContractionTiles(Order):
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
        return choice.cycles * self.machine.multiply_adds / _COUNTED, self.schedule(choice)

    def candidates(self, best: Best) -> Iterable[Choice]:
        """All choices of columns and rows that may be the best, promising ones looked at first.
        """
        pairs = list(self.pairs())
        least = [self.least(p) for p in pairs]
        found: dict[int, list[Choice]] = {}
        for n in sorted(range(len(pairs)), key=least.__getitem__):
            found[n] = [] if best.beats(least[n]) else list(self.across_columns(best, pairs[n]))
            if len(self.form.products) == 1:
                found[n] += self.across_reduction(best, pairs[n])
        return [choice for n in range(len(pairs)) for choice in found[n]]

    def pairs(self) -> Iterable[Pair]:
        """The axes that can be columns and rows of tiles."""
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
            scattered = self.scattered(columns)
            for row in rows or (None,):
                turned = scattered > 0 and self.turns_sums(row)
                alone = None if rows else running_on(self, products, columns)
                yield Pair(products, columns, row, 0 if turned else scattered, turned, alone)

    def turns_sums(self, row: str | None) -> bool:
        """Whether the epilogue can run over these rows instead of the columns: so few that the
        sums of all of them can wait.
        """
        if row is None or len(self.form.products) > 1 or self.extent(row) > _WIDEST:
            return False
        return not self.scattered(row)

    def least(self, pair: Pair) -> float:
        """No tile of these rows and columns takes fewer cycles, lanes over columns."""
        if pair.runs_on is not None:
            return pair.runs_on.cycles
        m, n = self.extent(pair.row), self.extent(pair.columns)
        points, across = self.size(self.form.parallel) / n, -(-n // self.lanes)
        steps = sum(self.size(p.reduction) for p in self.form.products)
        widest = min(across * self.abreast(pair), _WIDEST)
        step = _least_step(self.machine, self.limit, min(m, _WIDEST), widest, self.row)
        return steps * points * across * step * self.computed(pair) + self.stored(pair)

    def masked(self, pair: Pair) -> Masked | None:
        """What tells which tiles take no steps, if any."""
        return masked([p.fold.within for p in self.form.products], pair.row, pair.columns)

    def computed(self, pair: Pair) -> float:
        """The part of the vectors of results that take steps."""
        if (bounds := self.masked(pair)) is None:
            return 1.0
        m, n = self.extent(pair.row), self.extent(pair.columns)
        return bounds.over_tiles(m, 1, n, self.lanes, lambda r, w: 1) / (m * -(-n // self.lanes))

    def stored(self, pair: Pair) -> float:
        """The cycles of all stores."""
        lane = pair.scattered * _SCATTERED + pair.turned * _TURNED_LANE
        return self.size(self.form.parallel) * (1 / self.lanes + lane)

    def abreast(self, pair: Pair) -> int:
        """How many products one tile takes steps of at a time."""
        few = len(self.form.products) < min(self.limit, _WIDEST)
        return len(self.form.products) if pair.row is None and few and abreast(self.form) else 1

    @property
    def limit(self) -> int:
        """Registers of a tile: LLVM spills when none is left over."""
        return self.machine.registers - (1 if self.machine.registers <= 16 else 3)

    @property
    def row(self) -> float:
        """The cycles of a row in a step."""
        return _ROW_LONG if self.long else _ROW

    def across_columns(self, best: Best, pair: Pair) -> Iterable[Choice]:
        """Lanes are columns: one broadcast per row and one load per vector of columns in every
        step.
        """
        if pair.runs_on is not None:
            best.cycles = min(best.cycles, pair.runs_on.cycles)
            return [pair.runs_on]
        products, columns, row = pair.products, pair.columns, pair.row
        unit = all(self.stride(b, columns) == 1 for _, b in products)
        m, n = self.extent(row), self.extent(columns)
        others = self.size(self.form.parallel) / (m * n)
        beside = self.abreast(pair)
        steps = sum(self.size(p.reduction) for p in self.form.products) // beside
        read_by = {x for _, b in products for x in axes_of(b)}
        sharing = self.size(a for a in self.form.parallel if a.name not in (*read_by, row))
        reduced = {k.name for p in self.form.products for k in p.reduction}
        masked = sum(
            _MASK * self.edges(b, columns, self.lanes) + _CHOSEN * besides(b, reduced)
            for _, b in products
        ) / len(products)
        masks = sum(
            _GUARD * self.edges(a, row) + _CHOSEN * besides(a, reduced) for a, _ in products
        ) / len(products)
        panel = max(self.size(p.reduction) for p in self.form.products) * len(products)
        turned = all(
            any(self.stride(b, k.name) == 1 for k in p.reduction)
            for p, (_, b) in zip(self.form.products, products, strict=True)
        )
        packed_lane = _TURNED_LANE if turned else _PACKED_LANE
        rows_apart, pages = (all(self.apart(p[n], PAGE) for p in products) for n in (0, 1))
        apart = self.apart(products[0][0], LINE)
        near, whole = self.near(products, columns), max(self.bytes_of(b) for _, b in products)

        @cache
        def copied(vectors: int) -> tuple[int, str | None, bool]:
            """Of panels of so many columns: the bytes, the axis of rounds, whether to copy."""
            size = panel * vectors * self.machine.vector_bytes
            if pair.turned:
                return size, None, False
            around = self.round_of(products, size, row, columns)
            as_is = self.as_is(products, columns, vectors * self.lanes, around)
            return size, around, not as_is

        across = -(-n // self.lanes)
        stored, bounds, some = self.stored(pair), self.masked(pair), self.computed(pair)

        def flow(rows: int, vectors: int) -> float:
            step = _flow(self.machine, rows, vectors * beside)
            return step + _pressure(rows, vectors * beside, self.row)

        def least(rows: int, vectors: int) -> float:
            guards = masks * rows + masked * vectors + rows_apart * _PAGE_STEP
            step = flow(rows, vectors) + guards
            return steps * others * m * across * step / (rows * vectors) * some + stored

        def choice(rows: int, vectors: int) -> Choice:
            readers = sharing * -(-m // rows)
            size, around, copies = copied(vectors)
            narrow = vectors * beside * self.machine.vector_bytes < _PAGE_WIDE
            copy, far = 0.0 if unit else LANE * self.lanes, (pages and narrow) * _PAGE_STEP
            if copies and self.pays(size if around is None else 0, readers, whole):
                copy = (_PACKED_VECTOR if unit else packed_lane * self.lanes) / readers
                copy, far = copy + pages * _PAGE_VECTOR / readers, 0.0

            far += self.waiting(apart, around, rows * vectors, size)
            copy += _SECOND * (near and size > CACHE)

            def step(r: int, v: int, copy: float = copy, far: float = far) -> float:
                guards = masks * r + masked * v + far + rows_apart * _PAGE_STEP
                return flow(r, v) + copy * beside * v + guards

            if bounds is None:
                cycles = _over_tiles(m, rows, across, vectors, step)
            else:
                width = vectors * self.lanes
                cycles = bounds.over_tiles(
                    m, rows, n, width, lambda r, w: step(r, -(-w // self.lanes))
                )
            cycles = steps * others * cycles + stored
            stored_along, lines = (m, n) if pair.turned else (n, m)
            if stored_along % self.lanes and self.machine.registers <= 16:
                cycles += others * lines * _PARTIAL * self.stores
            if self.machine.registers > 16 and rows * vectors * steps > _FLIGHT:
                cycles += others * m * across * _END * self.stores
            tile = rows, vectors * self.lanes
            return Choice(cycles, columns, columns, row, tile, pair.turned)

        widest = min(_WIDEST, self.limit - 1) // beside if beside > 1 else _WIDEST
        tiles = _fitting(_registers, self.limit, min(m, _WIDEST), min(across, widest))
        return best.of(tiles, least, choice)

    def across_reduction(self, best: Best, pair: Pair) -> Iterable[Choice]:
        """Lanes are partial sums: one vector load per row and per column in every step, shuffles
        at the end.
        """
        (whole,), ((a, b),) = self.form.products, pair.products
        for k in whole.reduction:
            turned = self.stride(b, k.name) != 1
            if self.stride(a, k.name) == 1 and (not turned or self.turns(pair, k)):
                steps = self.size(whole.reduction) / k.extent * -(-k.extent // self.lanes)
                yield from self.partial_sums(best, steps, pair, k.name, turned)

    def turns(self, pair: Pair, k: Axis) -> bool:
        """Whether lines of the columns' factor along `k` can be copied in front of the tiles."""
        ((a, b),), n = pair.products, self.extent(pair.columns)
        plain = isinstance(b, Load) and b.guard is None
        plain = plain and not self.shifted(a) and not self.shifted(b)
        size = self.size(self.form.products[0].reduction) * n * b.dtype.bytes
        fits = size <= PANEL_BYTES and _sums(1, n) <= self.limit
        return plain and fits and k.extent >= self.lanes and self.stride(b, pair.columns) == 1

    def partial_sums(
        self, best: Best, steps: float, pair: Pair, k: str, turned: bool
    ) -> Iterable[Choice]:
        """Lanes along a reduction axis `k`, in so many steps; tiles of all columns where their
        factor is `turned`.
        """
        ((a, b),), columns, row = pair.products, pair.columns, pair.row
        m, n = self.extent(row), self.extent(columns)
        others = self.size(self.form.parallel) / (m * n)
        masks = _GUARD_REDUCED * (self.guarded(a, row) or self.guarded(a, k))
        masked = _GUARD_REDUCED * (self.guarded(b, columns) or self.guarded(b, k))

        read = sum({x.buffer: self.buffers[x.buffer].nbytes for x in loads_below(a)}.values())
        far = read / LINE * _FAR * (read > NEAR)
        near = _LINES if turned else _PARTIAL_SUMS
        sharing = self.size(x for x in self.form.parallel if x.name not in (*axes_of(b), row))
        halvings = math.log2(self.lanes)

        def flow(r: int, c: int) -> float:
            cpu = self.machine
            return max(r * c / cpu.multiply_adds, (r + c) / cpu.loads, cpu.latency)

        def least(rows: int, cols: int) -> float:
            return steps * others * m * n * flow(rows, cols) / (rows * cols)

        def choice(rows: int, cols: int) -> Choice:
            guards = masks * rows + masked * cols
            copy = turned * _TURNED_LANE * self.lanes / (sharing * -(-m // rows))

            def step(r: int, c: int) -> float:
                shuffles = r * (halvings / 2 * (-(-c // 4) * 4) + 4) / steps
                return flow(r, c) + shuffles + near * (r + c) + copy * c + guards

            cycles = steps * others * _over_tiles(m, rows, n, cols, step)
            return Choice(cycles + far * -(-n // cols), k, columns, row, (rows, cols))

        tiles = _fitting(_sums, self.limit, min(m, _WIDEST), min(n, _WIDEST))
        wanted = [t for t in tiles if turned and t[1] == n or not turned and _joins(t[1])]
        return best.of(wanted, least, choice)

    def waiting(self, apart: bool, around: str | None, vectors: int, panel: int) -> float:
        """What a step waits for memory: in rounds, a tile's accumulators come from there and go
        back in each; long ones fill the cache where the rows' factor lies a line `apart`.
        """
        reduction = self.form.products[0].reduction
        inside = math.prod(k.extent for k in reduction if k.name != around)
        long = inside * (LINE + panel // self.size(reduction)) > CACHE // 8 * 5
        slot = _SLOT_LONG if self.long else _SLOT
        rounds = (slot * vectors + _ROUND) / inside if around else 0.0
        return rounds + _LONG * (long and apart)


def _pressure(rows: int, across: int, row: float) -> float:
    """What a step's loads cost beside the arithmetic: vectors come from a larger panel than the
    rows' scalars.
    """
    return row * rows + _VECTOR * across


def _registers(rows: int, vectors: int) -> int:
    """Accumulators and operands; a vector that only one row needs is an operand in memory."""
    return rows * vectors + (vectors if rows > 1 else 0) + 1


def _joins(columns: int) -> bool:
    """Whether sums of so many columns are joined to vectors without many empty lanes."""
    return columns <= 4 or not columns % 4


def _sums(rows: int, columns: int) -> int:
    """The same where lanes are partial sums."""
    return rows * columns + min(rows, columns)


@cache
def _fitting(
    registers: Callable[[int, int], int], limit: int, rows: int, across: int
) -> tuple[tuple[int, int], ...]:
    """Tile sizes up to these whose accumulators and operands fit, small ones first."""
    sizes = combined(range(1, rows + 1), range(1, across + 1))
    return tuple([(r, c) for r, c in sizes if registers(r, c) <= limit])


@cache
def _least_step(machine: Machine, limit: int, rows: int, vectors: int, row: float) -> float:
    """The least cycles of a step for each of a tile's vectors, up to these sizes."""
    tiles = _fitting(_registers, limit, rows, vectors)
    return min([(_flow(machine, r, v) + _pressure(r, v, row)) / (r * v) for r, v in tiles])


def _flow(machine: Machine, rows: int, vectors: int) -> float:
    """Cycles of a step of a tile without anything that gets in its way."""
    loads = rows / _SCALARS + vectors / (machine.loads * _BANKS)
    return max(rows * vectors / machine.multiply_adds, loads, machine.latency)


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
