"""Choose how every kernel of a plan runs: which axis goes over SIMD lanes, and the register tile
of a contraction.

    schedule loops      ──▶      schedule contract: vector j, register i, tile 6x16, order j i | k

A cost model in cycles compares the candidates. It knows the vector length and the number of
registers, nothing else of the processor: two multiply-adds and two loads per cycle, latency four.
Only schedules are changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from nncompiler.ir.fingerprint import fingerprint
from nncompiler.ir.kernel import (
    Axis,
    Buffer,
    Fold,
    For,
    Kernel,
    Let,
    Loop,
    Plan,
    Schedule,
    Step,
    Stmt,
    Store,
    expressions,
    local_types,
    statements,
)
from nncompiler.ir.nests import (
    PANEL_BYTES,
    PANEL_READERS,
    Contraction,
    Product,
    contraction,
)
from nncompiler.ir.scalar import PRIMITIVES, Affine, Apply, Expr, Index, Load, axes_of, children

Buffers: TypeAlias = Mapping[str, Buffer]

#: A contraction with fewer multiply-adds than this is not worth a register tile.
SMALL = 64
#: Cycles of a transcendental primitive, and of a partial vector over a whole one.
_TRANSCENDENTAL, _MASKED = 15.0, 1.5
#: Cycles of gathering or scattering one lane, and of one lane or one vector of a packed panel.
_LANE, _PACKED_LANE, _PACKED_VECTOR = 1.5, 0.75, 1.5
#: The same for an epilogue, which is not a loop: its size counts too.
_SCATTERED = 4.0
_LATENCY = 4
#: Cycles of a guard that differs between the rows, columns or lanes of a tile.
_GUARD = 2.0
#: Bytes of the first-level data cache.
CACHE = 32 * 1024

#: The choices for kernels seen before, whatever their names were.
_CHOSEN: dict[Hashable, tuple[float, Schedule]] = {}
_CHOSEN_MOST = 4096


def tile_plan(plan: Plan, vector_bytes: int, registers: int) -> Plan:
    """The plan with a schedule for every kernel that has none yet."""
    buffers = plan.table()

    def visit(step: Step) -> Step:
        match step:
            case Loop():
                return replace(step, body=tuple(visit(s) for s in step.body))
            case Kernel(schedule=schedule) if schedule == Schedule():
                return replace(
                    step, schedule=choose_schedule(step, buffers, vector_bytes, registers)
                )
            case Kernel():
                return step

    steps = tuple(visit(s) for s in plan.steps)
    return plan if steps == plan.steps else replace(plan, steps=steps)


def choose_schedule(
    kernel: Kernel, buffers: Buffers, vector_bytes: int, registers: int
) -> Schedule:
    """The cheapest schedule for one kernel."""
    return _choose(kernel, buffers, vector_bytes, registers)[1]


def cycles(kernel: Kernel, buffers: Buffers, vector_bytes: int, registers: int) -> float:
    """What the cheapest schedule is expected to take."""
    return _choose(kernel, buffers, vector_bytes, registers)[0]


def _choose(
    kernel: Kernel, buffers: Buffers, vector_bytes: int, registers: int
) -> tuple[float, Schedule]:
    key = (fingerprint(kernel, buffers), vector_bytes, registers)
    if key not in _CHOSEN:
        if len(_CHOSEN) >= _CHOSEN_MOST:
            _CHOSEN.clear()
        _CHOSEN[key] = _search(kernel, buffers, vector_bytes, registers)
    return _CHOSEN[key]


def _search(
    kernel: Kernel, buffers: Buffers, vector_bytes: int, registers: int
) -> tuple[float, Schedule]:
    form = contraction(kernel)
    if form is not None:
        lanes = vector_bytes // form.products[0].a.dtype.bytes
        found = _Contract(form, buffers, lanes, vector_bytes, registers).best()
        if found is not None:
            return found
    widest = max((t.bytes for t in local_types(kernel).values()), default=4)
    for s in statements(kernel.body):
        widest = max([widest, *(e.dtype.bytes for e in expressions(s))])
    cost, names = _Loops(buffers, vector_bytes // widest).best(kernel.body, None)
    vector = tuple(dict.fromkeys(names))
    return cost, Schedule(vector=vector, order=loop_order(kernel, buffers))


# --- contractions ---


@dataclass(frozen=True, slots=True)
class _Choice:
    """`columns` is the vector axis, or with a reduced vector axis the axis its sums are gathered
    along.
    """

    cycles: float
    vector: str
    columns: str
    rows: str | None
    tile: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Contract:
    form: Contraction
    buffers: Buffers
    lanes: int
    vector_bytes: int
    registers: int

    def best(self) -> tuple[float, Schedule] | None:
        """The cheapest register tile over all axes and roles; None when the loops strategy does as
        well.
        """
        steps = [self.size(p.reduction) for p in self.form.products]
        if self.size(self.form.parallel) * max(steps) < SMALL or not all(steps):
            return None
        choices = list(self.candidates())
        if not choices:
            return None
        choice = min(choices, key=lambda c: c.cycles)
        return choice.cycles, self.schedule(choice)

    def candidates(self) -> Iterable[_Choice]:
        """All choices of columns and rows. Of each product, `b` is the factor that has the
        columns.
        """
        names = [a.name for a in self.form.parallel]
        for columns in names:
            products = [
                (p.b, p.a) if columns in axes_of(p.a) else (p.a, p.b) for p in self.form.products
            ]
            if any(columns in axes_of(a) or columns not in axes_of(b) for a, b in products):
                continue
            rows = [
                r
                for r in names
                if all(r in axes_of(a) and r not in axes_of(b) for a, b in products)
            ]
            for row in rows or (None,):
                yield from self.across_columns(products, columns, row)
                if len(products) == 1:
                    yield from self.across_reduction(
                        self.form.products[0], *products[0], columns, row
                    )

    def across_columns(
        self, products: list[tuple[Expr, Expr]], columns: str, row: str | None
    ) -> Iterable[_Choice]:
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
        masked = sum(_GUARD * guarded(b, columns) for _, b in products) / len(products)
        masks = sum(_GUARD * guarded(a, row) for a, _ in products) / len(products)
        panel = max(self.size(p.reduction) for p in self.form.products) * len(products)
        for rows, vectors in self.tiles(lambda r, v: r * v + v + 1, m, -(-n // self.lanes)):

            readers = sharing * -(-m // rows)
            fits = panel * vectors * self.vector_bytes <= PANEL_BYTES
            copy = 0.0 if unit else _LANE * self.lanes
            if fits and readers >= PANEL_READERS:
                copy = (_PACKED_VECTOR if unit else _PACKED_LANE * self.lanes) / readers

            def step(r: int, v: int, copy: float = copy) -> float:
                guards = masks * r + masked * v
                return max(r * v / 2, (r + v) / 2, _LATENCY) + _pressure(r, v) + copy * v + guards

            cycles = steps * others * _over_tiles(m, rows, -(-n // self.lanes), vectors, step)
            cycles += others * m * n * (1 / self.lanes + scattered * _SCATTERED)
            yield _Choice(cycles, columns, columns, row, (rows, vectors * self.lanes))

    def across_reduction(
        self, product: Product, a: Expr, b: Expr, columns: str, row: str | None
    ) -> Iterable[_Choice]:
        """Lanes are partial sums: one vector load per row and per column in every step, shuffles
        at the end.
        """
        m, n = self.extent(row), self.extent(columns)
        others = self.size(self.form.parallel) / (m * n)
        for k in product.reduction:
            if self.stride(a, k.name) != 1 or self.stride(b, k.name) != 1:
                continue
            steps = self.size(product.reduction) / k.extent * -(-k.extent // self.lanes)
            masks = _GUARD * (guarded(a, row) or guarded(a, k.name))
            masked = _GUARD * (guarded(b, columns) or guarded(b, k.name))
            for rows, cols in self.tiles(lambda r, c: r * c + min(r, c), m, n):
                if cols > 4 and cols % 4:
                    continue

                def step(r: int, c: int, steps: float = steps) -> float:
                    shuffles = r * (1.5 * (-(-c // 4) * 4) + 4) / steps
                    loads = 0.2 * (r + c) + masks * r + masked * c
                    return max(r * c / 2, (r + c) / 2, _LATENCY) + shuffles + loads

                cycles = steps * others * _over_tiles(m, rows, n, cols, step)
                yield _Choice(cycles, k.name, columns, row, (rows, cols))

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

    def schedule(self, choice: _Choice) -> Schedule:
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
        shifted = {
            x for p in self.form.products for e in (p.a, p.b) for x in _shifted_axes(e)
        }
        reduction.sort(key=lambda x: (x == choice.vector, x not in shifted))
        rows = [choice.rows] if choice.rows else []
        order = (*outer, choice.columns, *inner, *rows, *dict.fromkeys(reduction))
        if (around := self.around(choice, shifted, reduction)) is not None:
            order = around
        return Schedule("contract", (choice.vector,), choice.rows, choice.tile, order)

    def around(
        self, choice: _Choice, shifted: set[str], reduction: list[str]
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

    def extent(self, name: str | None) -> int:
        return next((a.extent for a in self.form.parallel if a.name == name), 1)

    def size(self, axes: Iterable[Axis]) -> int:
        return math.prod(a.extent for a in axes)

    def stride(self, expr: Expr, axis: str) -> int | None:
        """The step in memory of every load that moves with `axis`; None when they differ or are
        gathered.
        """
        strides = {
            _stride(x.index, self.buffers[x.buffer], axis)
            for x in _nodes([expr])
            if isinstance(x, Load)
        }
        moving = strides - {0}
        return moving.pop() if len(moving) == 1 else None

    def scattered(self, axis: str) -> int:
        """How many accesses of the epilogue go lane by lane when `axis` runs over lanes."""
        places = [(s.index, s.buffer) for s in self.form.body if isinstance(s, Store)]
        for s in self.form.body:
            if not isinstance(s, Fold):
                loads = [x for x in _nodes(expressions(s)) if isinstance(x, Load)]
                places += [(x.index, x.buffer) for x in loads]
        return sum(_stride(i, self.buffers[b], axis) not in (0, 1) for i, b in places)


def _pressure(rows: int, across: int) -> float:
    """What a step's loads cost beside the arithmetic: vectors come from a larger panel than the
    rows' scalars.
    """
    return 0.1 * rows + 0.25 * across


def guarded(expr: Expr, axis: str | None) -> bool:
    """Whether a guard tells apart what `axis` runs over; others become bounds of loops."""
    return any(
        isinstance(x, Load) and x.guard is not None and axis in axes_of(x.guard)
        for x in _nodes([expr])
    )


def _over_tiles(
    m: int, rows: int, n: int, across: int, step: Callable[[int, int], float]
) -> float:
    """The cycles of one step summed over all tiles, remainders included."""
    total = 0.0
    for r, count_r in ((rows, m // rows), (m % rows, int(m % rows > 0))):
        for c, count_c in ((across, n // across), (n % across, int(n % across > 0))):
            if count_r and count_c:
                total += count_r * count_c * step(r, c)
    return total


def _shifted_axes(expr: Expr) -> set[str]:
    """Axes that stand in a sum with others, as positions in a window do."""
    found: set[str] = set()
    for x in _nodes([expr]):
        if isinstance(x, Load):
            for i in x.index:
                if not isinstance(i, Affine):
                    found |= axes_of(i)
                elif len(i.terms) > 1:
                    found.update(i.axes)
    return found


# --- other nests ---


@dataclass(frozen=True, slots=True)
class _Loops:
    """Picks at most one axis on each path of nesting."""

    buffers: Buffers
    lanes: int

    def best(self, body: Iterable[Stmt], lane: str | None) -> tuple[float, tuple[str, ...]]:
        """Least cycles of one run of `body` with `lane` over lanes already, and the axes chosen
        inside.
        """
        cycles, names = 0.0, tuple[str, ...]()
        for s in body:
            if isinstance(s, (For, Fold)):
                more, inner = self.loop(s, lane)
                cycles, names = cycles + more, (*names, *inner)
            else:
                cycles += self.cost(s, lane)
        return cycles, names

    def loop(self, s: For | Fold, lane: str | None) -> tuple[float, tuple[str, ...]]:
        points = math.prod(a.extent for a in s.axes)
        inside, names = self.inside(s, lane)
        options = [(points * (inside + 1), names)]
        ordered = isinstance(s, For) and s.ordered
        for axis in s.axes if lane is None and not ordered else ():
            if axis.extent < 2:
                continue
            trips = axis.extent // self.lanes + (_MASKED if axis.extent % self.lanes else 0)
            inside, names = self.inside(s, axis.name)
            finish = 4 * math.log2(self.lanes) if isinstance(s, Fold) else 0
            cycles = points / axis.extent * trips * (inside + 1) + finish
            options.append((cycles, (axis.name,)))
        return min(options, key=lambda option: option[0])

    def inside(self, s: For | Fold, lane: str | None) -> tuple[float, tuple[str, ...]]:
        cycles, names = self.best(s.body, lane)
        return cycles + (self.cost(s, lane) if isinstance(s, Fold) else 0.0), names

    def cost(self, s: Stmt, lane: str | None) -> float:
        """Instructions of the statement's own expressions and store."""
        cycles = sum(self.node(e, lane) for e in _nodes(expressions(s)))
        if isinstance(s, Store):
            cycles += self.access(s.index, self.buffers[s.buffer], lane)
        if isinstance(s, Fold):
            cycles += len(s.values)
        if isinstance(s, Let):
            cycles += 0.01
        return cycles

    def node(self, e: Expr, lane: str | None) -> float:
        match e:
            case Apply(op):
                return _TRANSCENDENTAL if PRIMITIVES[op].transcendental else 1.0
            case Load(buffer, index):
                return self.access(index, self.buffers[buffer], lane)
            case _:
                return 0.1

    def access(self, index: tuple[Index, ...], buffer: Buffer, lane: str | None) -> float:
        if lane is None or _stride(index, buffer, lane) in (0, 1):
            return 1.0
        return _LANE * self.lanes


def loop_order(kernel: Kernel, buffers: Buffers) -> tuple[str, ...]:
    """All axes, the one with the longest strides outermost; empty when that is how they are
    written.
    """
    strides: dict[str, int] = {}
    for s in statements(kernel.body):
        places = [(s.index, s.buffer)] if isinstance(s, Store) else []
        places += [(x.index, x.buffer) for x in _nodes(expressions(s)) if isinstance(x, Load)]
        for index, name in places:
            for i, step in zip(index, buffers[name].layout, strict=True):
                for axis in i.axes if isinstance(i, Affine) else axes_of(i):
                    strides[axis] = max(strides.get(axis, 0), step)

    order: list[str] = []
    changed = False
    for s in statements(kernel.body):
        if isinstance(s, (For, Fold)):
            ordered = isinstance(s, For) and s.ordered
            axes = list(s.axes) if ordered else sorted(s.axes, key=lambda a: -strides.get(a.name, 0))
            changed = changed or axes != list(s.axes)
            order += [a.name for a in axes]
    return tuple(dict.fromkeys(order)) if changed else ()


def _stride(index: tuple[Index, ...], buffer: Buffer, axis: str) -> int | None:
    """Elements between neighbours along `axis`; None where an index is an expression of it."""
    total = 0
    for i, stride in zip(index, buffer.layout, strict=True):
        if isinstance(i, Affine):
            total += i.coefficient(axis) * stride
        elif axis in axes_of(i):
            return None
    return total


def _nodes(roots: Iterable[Expr]) -> Iterable[Expr]:
    """Every distinct expression below the roots, shared ones once."""
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        e = todo.pop()
        if id(e) not in seen:
            seen.add(id(e))
            todo += children(e)
            yield e
