"""The strategy for sums of products: a tile of accumulators in registers, live across all reduction loops.

    for i, j { acc = sum k { a * b };  epilogue }        vector axis j or k, register axis i

`b` varies along the vector axis; `a` does not mention the columns, `b` not the rows. Two forms:

- vector axis parallel: lanes are columns. A tile is rows x vectors; each step loads the vectors of `b` and spreads one
  scalar of `a` per row.
- vector axis reduced: lanes are partial sums. A tile is rows x columns, each step loads vectors of both; at the end
  transposing additions turn the sums of a row into one vector of columns.

The epilogue (every statement but the fold) runs once per vector of finished sums through the same emitter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nncompiler.codegen.emitter import At, Emitter, Lanes
from nncompiler.codegen.loops import Nest
from nncompiler.codegen.writer import Counter, Value, active_mask, literal
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Schedule, Stmt
from nncompiler.ir.scalar import Apply, Const, Expr, axes_of


@dataclass(frozen=True, slots=True)
class Contraction:
    """The parts of a kernel. `a` is spread (or shared by the columns), `b` runs over the vector axis.

    `columns` is the axis along which results form vectors: the vector axis, unless that is reduced.
    """

    parallel: tuple[Axis, ...]
    reduction: tuple[Axis, ...]
    a: Expr
    b: Expr
    fold: Fold
    body: tuple[Stmt, ...]
    vector: str
    columns: str
    rows: str | None
    tile: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """One register tile: its size, and its first row and column. `width` counts elements along the columns."""

    rows: int
    width: int
    row: At
    column: At


def emit_contraction(kernel: Kernel, emitter: Emitter) -> None:
    """Emit a kernel whose schedule says ``contract``."""
    _Tiles(_parts(kernel), emitter).run()


def _parts(kernel: Kernel) -> Contraction:
    schedule, body = kernel.schedule, kernel.body
    parallel: tuple[Axis, ...] = ()
    while len(body) == 1 and isinstance(body[0], For) and not body[0].ordered:
        parallel, body = parallel + body[0].axes, body[0].body
    folds = [s for s in body if isinstance(s, Fold)]
    if len(folds) != 1 or len(schedule.vector) != 1 or schedule.tile is None:
        raise CompilerBug("NN0594", f"kernel '{kernel.name}' is not one scheduled sum of products")
    fold = folds[0]
    match fold:
        case Fold((_,), "sum", reduction, (Apply("mul", (x, y), dtype),), (), None) if dtype.is_float:
            pass
        case _:
            raise CompilerBug("NN0594", f"the fold of kernel '{kernel.name}' is not a sum of products")
    vector = schedule.vector[0]
    if vector not in axes_of(y) or (schedule.register and schedule.register in axes_of(y)):
        x, y = y, x
    columns = vector
    if any(r.name == vector for r in reduction):
        columns = _column_axis(parallel, x, y, schedule)
    return Contraction(
        _ordered(parallel, schedule), _ordered(reduction, schedule), x, y, fold, body, vector, columns,
        schedule.register, schedule.tile,
    )  # fmt: skip


def _column_axis(parallel: tuple[Axis, ...], a: Expr, b: Expr, schedule: Schedule) -> str:
    """The last parallel axis that only `b` mentions."""
    found = [p.name for p in _ordered(parallel, schedule) if p.name in axes_of(b) - axes_of(a)]
    if not found:
        raise CompilerBug("NN0594", "a reduced vector axis needs a parallel axis in one operand only")
    return found[-1]


def _ordered(axes: tuple[Axis, ...], schedule: Schedule) -> tuple[Axis, ...]:
    """In the order of the schedule; axes it leaves out come first."""
    place = {name: n for n, name in enumerate(schedule.order)}
    return tuple(sorted(axes, key=lambda a: place.get(a.name, -1)))


class _Tiles:
    """Writes the loops over tiles and the tiles themselves."""

    def __init__(self, c: Contraction, emitter: Emitter) -> None:
        self.c = c
        self.e = emitter
        self.w = emitter.w
        self.dtype = c.fold.values[0].dtype
        self.lanes = emitter.target.vector_bytes // self.dtype.bytes
        self.reduced = c.columns != c.vector
        self.zero = Const(0.0, self.dtype)

    def run(self) -> None:
        self._outer(self.c.parallel, Tile(1, 1, At(), At()))

    # --- loops over tiles ---

    def _outer(self, axes: tuple[Axis, ...], tile: Tile) -> None:
        """Loops over the parallel axes; rows and columns advance by tiles, their remainders follow."""
        if not axes:
            self._tile(tile)
            return
        axis, rest = axes[0], axes[1:]
        if axis.name == self.c.columns:
            self._steps(axis, self.c.tile[1], lambda at, n: self._outer(rest, _columns(tile, n, at)))
        elif axis.name == self.c.rows:
            self._steps(axis, self.c.tile[0], lambda at, n: self._outer(rest, _rows(tile, n, at)))
        else:
            self._steps(axis, 1, lambda at, n: self._outer(rest, tile))

    def _steps(self, axis: Axis, step: int, inner: Callable[[At, int], None]) -> None:
        step = min(step, axis.extent) or 1
        whole = axis.extent // step * step
        for start, stop, count in ((0, whole, step), (whole, axis.extent, axis.extent - whole)):

            def body(at: Counter, _: list[Value], count: int = count) -> list[Value]:
                with self.e.scope({axis.name: At.of(at)}):
                    inner(At.of(at), count)
                return []

            self.w.loop(start, stop, count or 1, [], body)

    # --- one tile ---

    def _tile(self, tile: Tile) -> None:
        across = tile.width if self.reduced else -(-tile.width // self.lanes)
        lanes = self._width(tile)
        start = [literal(self.zero, lanes) for _ in range(tile.rows * across)]
        sums = self._reduce(self.c.reduction, start, lambda acc: self._products(tile, across, acc))
        if self.reduced:
            sums = [self._transpose_add(sums[r * across : (r + 1) * across]) for r in range(tile.rows)]
            across, lanes = 1, sums[0].lanes
        for r in range(tile.rows):
            for v in range(across):
                active = min(lanes, tile.width - v * lanes)
                self._epilogue(tile, r, v * lanes, Lanes(self.c.columns, lanes, active), sums[r * across + v])

    def _width(self, tile: Tile) -> int:
        """Lanes of a vector: a full register, or less where the whole axis needs less."""
        need = self._extent_of(self.c.vector) if self.reduced else tile.width
        return min(self.lanes, max(2, 1 << (need - 1).bit_length()))

    def _extent_of(self, name: str) -> int:
        return next(a.extent for a in (*self.c.parallel, *self.c.reduction) if a.name == name)

    def _reduce(
        self, axes: tuple[Axis, ...], acc: list[Value], products: Callable[[list[Value]], list[Value]]
    ) -> list[Value]:
        """The reduction loops, accumulators carried through all of them."""
        if not axes:
            return products(acc)
        axis, rest = axes[0], axes[1:]
        if axis.name == self.c.vector:
            return self._reduce_lanes(axis, rest, acc, products)

        def body(at: Counter, inside: list[Value]) -> list[Value]:
            with self.e.scope({axis.name: At.of(at)}):
                return self._reduce(rest, inside, products)

        return self.w.loop(0, axis.extent, 1, acc, body)

    def _reduce_lanes(
        self, axis: Axis, rest: tuple[Axis, ...], acc: list[Value], products: Callable[[list[Value]], list[Value]]
    ) -> list[Value]:
        """The reduced vector axis: whole vectors, then a masked one."""
        count = acc[0].lanes
        whole = axis.extent // count * count
        for start, stop, active in ((0, whole, count), (whole, axis.extent, axis.extent - whole)):
            lanes = Lanes(axis.name, count, active)

            def body(at: Counter, inside: list[Value], lanes: Lanes = lanes) -> list[Value]:
                with self.e.scope({axis.name: At.of(at)}, lanes):
                    return self._reduce(rest, inside, products)

            acc = self.w.loop(start, stop, count, acc, body)
        return acc

    def _products(self, tile: Tile, across: int, acc: list[Value]) -> list[Value]:
        """One step of the innermost reduction loop: every accumulator takes one product."""
        lanes = acc[0].lanes
        columns = []
        for v in range(across):
            first = v if self.reduced else v * lanes
            over = None if self.reduced else Lanes(self.c.vector, lanes, min(lanes, tile.width - first))
            with self.e.scope({self.c.columns: tile.column + first}, over):
                columns.append(self._operand(self.c.b, lanes))
        found = list(acc)
        for r in range(tile.rows):
            with self.e.scope({self.c.rows: tile.row + r} if self.c.rows else {}):
                row = self._operand(self.c.a, lanes)
            for v, column in enumerate(columns):
                n = r * across + v
                found[n] = self._multiply_add(row, column, acc[n])
        return found

    def _operand(self, expr: Expr, lanes: int) -> Value:
        """An operand as a vector; lanes beyond a reduced axis are zero, so that they add nothing."""
        value = self.w.splat(self.e.value(expr), lanes)
        over = self.e.lanes
        if self.reduced and over is not None and over.active < lanes:
            return self.w.choose(active_mask(over.active, lanes), value, literal(self.zero))
        return value

    def _multiply_add(self, a: Value, b: Value, acc: Value) -> Value:
        if self.e.target.fma:
            return self.w.overloaded("fma", [a, b, acc])
        product = self.w.value(f"fmul {a.typed}, {b.text}", self.dtype, a.lanes)
        return self._add(product, acc)

    def _add(self, a: Value, b: Value) -> Value:
        return self.w.value(f"fadd {a.typed}, {b.text}", self.dtype, a.lanes)

    def _epilogue(self, tile: Tile, row: int, column: int, lanes: Lanes, total: Value) -> None:
        at = {self.c.columns: tile.column + column}
        if self.c.rows:
            at[self.c.rows] = tile.row + row
        with self.e.scope(at, lanes):
            nest = Nest(self.e, ())
            for statement in self.c.body:
                if statement is self.c.fold:
                    self.e.locals[self.c.fold.names[0]] = total
                else:
                    nest.run((statement,))

    # --- horizontal sums ---

    def _transpose_add(self, sums: list[Value]) -> Value:
        """One vector whose lane c is the sum of the lanes of `sums[c]`.

        Pairs are added inside 128-bit parts, where shuffles are cheap; the parts are added last.
        """
        part = min(sums[0].lanes, 16 // self.dtype.bytes)
        count = -(-len(sums) // part) * part
        padded = sums + [literal(self.zero, sums[0].lanes)] * (count - len(sums))
        groups = [self._sum_group(padded[n : n + part], part) for n in range(0, count, part)]
        while len(groups) & (len(groups) - 1):
            groups.append(literal(self.zero, part))
        while len(groups) > 1:
            joined = range(2 * groups[0].lanes)
            groups = [self.w.shuffle(a, b, joined) for a, b in zip(groups[::2], groups[1::2], strict=True)]
        return groups[0]

    def _sum_group(self, sums: list[Value], part: int) -> Value:
        lanes = sums[0].lanes
        while len(sums) > 1:
            sums = [self._add_pairs(a, b, part) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        total = sums[0]
        while total.lanes > part:
            half = total.lanes // 2
            low = self.w.shuffle(total, None, range(half))
            total = self._add(low, self.w.shuffle(total, None, range(half, 2 * half)))
        assert lanes % part == 0
        return total

    def _add_pairs(self, a: Value, b: Value, part: int) -> Value:
        """In every 128-bit part: sums of neighbours of `a`, then of `b`."""
        even = [n + i + k for n in range(0, a.lanes, part) for k in (0, a.lanes) for i in range(0, part, 2)]
        return self._add(self.w.shuffle(a, b, even), self.w.shuffle(a, b, [n + 1 for n in even]))


def _rows(tile: Tile, count: int, at: At) -> Tile:
    return Tile(count, tile.width, at, tile.column)


def _columns(tile: Tile, count: int, at: At) -> Tile:
    return Tile(tile.rows, count, tile.row, at)
