"""The strategy for sums of products: a tile of accumulators in registers, live across all
reduction loops.

    for i, j { acc = sum k { a * b };  epilogue }        vector axis j or k, register axis i

`b` varies along the vector axis; `a` does not mention the columns, `b` not the rows. Two forms:

- vector axis parallel: lanes are columns. A tile is rows x vectors; each step loads the vectors
  of `b` and spreads one scalar of `a` per row.
- vector axis reduced: lanes are partial sums. A tile is rows x columns; each step loads vectors of
  both, and at the end transposing additions turn the sums of a row into one vector of columns.

Where the order puts a reduction axis before parallel ones, its loop runs around theirs: of few
elements of the factors, still in cache, all tiles inside take their share, and the accumulators
wait in scratch memory from one round to the next.

The epilogue (every statement but the fold) runs once per vector of finished sums through the same
emitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from nncompiler.codegen.address import At, Lanes, Place
from nncompiler.codegen.clip import Bounds, clip
from nncompiler.codegen.emitter import Emitter
from nncompiler.codegen.horizontal import transpose_add
from nncompiler.codegen.loops import Nest
from nncompiler.codegen.share import Share
from nncompiler.codegen.writer import (
    Counter,
    Value,
    Writer,
    active_mask,
    literal,
    memory_type,
    vector_of,
)
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Fold, Kernel, Schedule
from nncompiler.ir.nests import (
    PANEL_BYTES,
    PANEL_READERS,
    Contraction,
    Product,
    contraction,
)
from nncompiler.ir.scalar import Affine, Const, Expr, Load, Ref, axes_of
from nncompiler.ir.types import DType, row_major

Loops: TypeAlias = tuple[tuple[Axis, Bounds], ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """A product with its factors' roles: `a` is spread over the lanes (or shared by the columns),
    `b` varies. `bounds` are those that each sets to the reduction loops.
    """

    fold: Fold
    reduction: tuple[Axis, ...]
    a: Expr
    b: Expr
    bounds: tuple[tuple[Bounds, Bounds], ...] = ()

    @property
    def loops(self) -> Loops:
        return tuple((k, a + b) for k, (a, b) in zip(self.reduction, self.bounds, strict=True))

    @property
    def loops_of_b(self) -> Loops:
        return tuple((k, b) for k, (_, b) in zip(self.reduction, self.bounds, strict=True))


@dataclass(frozen=True, slots=True)
class Tile:
    """One register tile: its size, its first row and column, and the panels of `b` packed for it.

    `width` counts elements along the columns; `panels` are (identity of the fold, name of the
    copy).
    """

    rows: int
    width: int
    row: At
    column: At
    panels: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """A reduction axis whose loop runs around those of the parallel axes `inside`."""

    axis: Axis
    inside: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Slots:
    """Vectors in scratch memory."""

    w: Writer
    memory: str
    dtype: DType
    lanes: int

    def pointers(self, first: Counter, count: int) -> list[str]:
        """The addresses of `count` vectors from number `first` on."""
        wide = vector_of(memory_type(self.dtype), self.lanes)
        base = self.w.assign(f"getelementptr {wide}, ptr {self.memory}, i64 {first}")
        return [self.w.assign(f"getelementptr {wide}, ptr {base}, i64 {n}") for n in range(count)]

    def load(self, at: list[str]) -> list[Value]:
        wide = vector_of(memory_type(self.dtype), self.lanes)
        return [self.w.value(f"load {wide}, ptr {p}", self.dtype, self.lanes) for p in at]

    def store(self, at: list[str], values: list[Value]) -> None:
        for pointer, value in zip(at, values, strict=True):
            self.w.line(f"store {value.typed}, ptr {pointer}")


def emit_contraction(kernel: Kernel, emitter: Emitter) -> None:
    """Emit a kernel whose schedule says ``contract``."""
    schedule, form = kernel.schedule, contraction(kernel)
    if form is None or len(schedule.vector) != 1 or schedule.tile is None:
        raise CompilerBug("NN0594", f"kernel '{kernel.name}' is not a scheduled sum of products")
    Nest(emitter, ()).run(form.before)
    _Tiles(form, schedule, emitter).run(schedule.parallel)


def _roles(product: Product, parallel: tuple[Axis, ...], schedule: Schedule) -> Roles:
    a, b = product.a, product.b
    vector, register = schedule.vector[0], schedule.register
    if vector not in axes_of(b) or (register is not None and register in axes_of(b)):
        a, b = b, a
    if register is None and not any(p.name in axes_of(b) for p in parallel):
        a, b = b, a
    reduced = any(r.name == vector for r in product.reduction)
    fits = (
        vector in axes_of(b) and register not in axes_of(b) and reduced == (vector in axes_of(a))
    )
    if not fits:
        raise CompilerBug(
            "NN0594", f"the factors of a product do not fit vector {vector}, register {register}"
        )
    reduction = _ordered(product.reduction, schedule)
    roles = Roles(product.fold, reduction, a, b)
    columns = _column_axis(parallel, roles) if reduced else vector
    return _clipped(roles, {p.name for p in parallel} - {columns, register}, vector)


def _clipped(roles: Roles, known: set[str], vector: str) -> Roles:
    """Guards of the factors as bounds of the reduction loops, where they hold for a whole tile:
    they mention the `known` parallel axes and reduction axes further out only.
    """
    a, b, bounds = roles.a, roles.b, []
    for axis in roles.reduction:
        if axis.name == vector:
            bounds.append((Bounds(), Bounds()))
            continue
        a, first = clip(a, axis.name, known)
        b, second = clip(b, axis.name, known)
        bounds.append((first, second))
        known = known | {axis.name}
    return replace(roles, a=a, b=b, bounds=tuple(bounds))


def _column_axis(parallel: tuple[Axis, ...], roles: Roles) -> str:
    """Where the vector axis is reduced: the last parallel axis that only `b` mentions."""
    found = [p.name for p in parallel if p.name in axes_of(roles.b) - axes_of(roles.a)]
    if not found:
        raise CompilerBug(
            "NN0594", "a reduced vector axis needs a parallel axis in one factor only"
        )
    return found[-1]


def _around(
    form: Contraction, schedule: Schedule, parallel: tuple[Axis, ...]
) -> Around | None:
    """The reduction axis that the order puts before parallel axes, if there is one."""
    place = {name: n for n, name in enumerate(schedule.order)}
    for axis in form.products[0].reduction if len(form.products) == 1 else ():
        first = place.get(axis.name, len(place))
        inside = tuple(a for a in parallel if place.get(a.name, -1) > first)
        if inside:
            return Around(axis, inside)
    return None


def _ordered(axes: tuple[Axis, ...], schedule: Schedule) -> tuple[Axis, ...]:
    """In the order of the schedule; axes it leaves out come first."""
    place = {name: n for n, name in enumerate(schedule.order)}
    return tuple(sorted(axes, key=lambda a: place.get(a.name, -1)))


class _Tiles:
    """Writes the loops over tiles and the tiles themselves."""

    def __init__(self, form: Contraction, schedule: Schedule, emitter: Emitter) -> None:
        assert schedule.tile is not None
        self.e = emitter
        self.w = emitter.w
        self.body = form.body
        self.parallel = _ordered(form.parallel, schedule)
        self.around = _around(form, schedule, self.parallel)
        self.products = {id(p.fold): _roles(p, self.parallel, schedule) for p in form.products}
        self.vector, self.rows, self.tile = schedule.vector[0], schedule.register, schedule.tile
        self.reduced = all(a.name != self.vector for a in self.parallel)
        first = self.products[id(form.products[0].fold)]
        self.columns = _column_axis(self.parallel, first) if self.reduced else self.vector
        self.extents = {a.name: a.extent for a in (*self.parallel, *first.reduction)}
        self.dtype = first.a.dtype
        self.lanes = emitter.target.vector_bytes // self.dtype.bytes
        self.zero = Const(0.0, self.dtype)

    def run(self, split: Sequence[str]) -> None:
        """All tiles, or this worker's part of them where outermost loops are `split`."""
        if split:
            steps = ((a.name, -(-a.extent // self._step_of(a))) for a in self.parallel)
            self.e.share = Share(self.w, dict([*steps][: len(split)]))
        self._outer(self.parallel, Tile(1, 1, At(), At()))

    # --- loops over tiles ---

    def _outer(
        self, axes: tuple[Axis, ...], tile: Tile, visit: Callable[[Tile], None] | None = None
    ) -> None:
        """Loops over the parallel axes; rows and columns advance by tiles, their remainders
        follow.
        """
        if visit is None and self.around and axes == self.around.inside:
            self._rounds(self.around, tile)
            return
        if not axes:
            (visit or self._tile)(tile)
            return
        axis, rest = axes[0], axes[1:]

        def inner(at: At, count: int) -> None:
            if axis.name == self.columns:
                self._outer(rest, self._pack(replace(tile, width=count, column=at), rest), visit)
            elif axis.name == self.rows:
                self._outer(rest, replace(tile, rows=count, row=at), visit)
            else:
                self._outer(rest, tile, visit)

        self._steps(axis, inner)

    def _step_of(self, axis: Axis) -> int:
        step = {self.columns: self.tile[1], self.rows: self.tile[0]}.get(axis.name, 1)
        return min(step, axis.extent) or 1

    def _steps(self, axis: Axis, inner: Callable[[At, int], None]) -> None:
        step, share = self._step_of(axis), self.e.share
        whole = axis.extent // step * step
        for start, stop, count in ((0, whole, step), (whole, axis.extent, axis.extent - whole)):

            def body(at: Counter, _: list[Value], count: int = count) -> list[Value]:
                with self.e.scope({axis.name: At.of(at)}):
                    inner(At.of(at), count)
                return []

            if share is not None and axis.name in share:
                share.loop(axis.name, start // step, range(start, stop, count or 1), body)
            else:
                self.w.loop(start, stop, count or 1, [], body)

    # --- a reduction around tiles ---

    def _rounds(self, around: Around, tile: Tile) -> None:
        """Clear the accumulators of all tiles inside, add to them round by round, finish them."""
        (product,) = self.products.values()
        lanes = self._width(tile)
        each = self.tile[0] * self.tile[1]
        count = math.prod(a.extent for a in around.inside) * each
        memory = self.w.scratch(count * lanes * self.dtype.bytes)
        wide = Slots(self.w, memory, self.dtype, lanes)

        def slots(tile: Tile) -> list[str]:
            place = Affine()
            for axis in around.inside:
                place = place * axis.extent + Affine.axis(axis.name)
            first = self.e.integer(place * each)
            return wide.pointers(first, tile.rows * tile.width)

        def clear(tile: Tile) -> None:
            wide.store(slots(tile), [literal(self.zero, lanes)] * (tile.rows * tile.width))

        def add(tile: Tile) -> None:
            at = slots(tile)
            start, stop = self.e.clamp(around.axis.extent, product.loops[0][1])
            now = self.e.integer(Affine.axis(around.axis.name))

            def body(_: Counter, __: list[Value]) -> list[Value]:
                found = self._reduce(
                    product.loops[1:], wide.load(at),
                    lambda acc: self._step(product, tile, tile.width, acc),
                )  # fmt: skip
                wide.store(at, found)
                return []

            self.w.when(now, start, stop, body)

        def finish(tile: Tile) -> None:
            found = wide.load(slots(tile))
            self._finish(tile, {id(product.fold): self._joined(found, tile.width)})

        def round_(at: Counter, _: list[Value]) -> list[Value]:
            with self.e.scope({around.axis.name: At.of(at)}):
                self._outer(around.inside, tile, add)
            return []

        self._outer(around.inside, tile, clear)
        self.w.loop(0, around.axis.extent, 1, [], round_)
        self._outer(around.inside, tile, finish)

    # --- packing ---

    def _pack(self, tile: Tile, inside: tuple[Axis, ...]) -> Tile:
        """Copy panels of `b` to the stack where that is worth it: small ones that many tiles
        inside will read.

        A copy is contiguous: the reduction then reads few cache sets and pages, whatever the
        strides of `b`.
        """
        tiles = math.prod(
            -(-a.extent // (self.tile[0] if a.name == self.rows else 1)) for a in inside
        )
        if self.reduced or tiles < PANEL_READERS:
            return tile
        panels = []
        for n, product in enumerate(self.products.values()):
            fixed = not any(a.name in axes_of(product.b) for a in inside)
            if fixed and self._panel_bytes(product) <= PANEL_BYTES // len(self.products):
                self._copy_panel(product, f"<panel {n}>", tile)
                panels.append((id(product.fold), f"<panel {n}>"))
        return replace(tile, panels=tuple(panels))

    def _panel_width(self) -> int:
        width = min(self.tile[1], self.extents[self.columns])
        return -(-width // self.lanes) * self.lanes

    def _panel_bytes(self, product: Roles) -> int:
        return (
            math.prod(a.extent for a in product.reduction) * self._panel_width() * self.dtype.bytes
        )

    def _copy_panel(self, product: Roles, panel: str, tile: Tile) -> None:
        if panel not in self.e.places:
            shape = (*(a.extent for a in product.reduction), self._panel_width())
            pointer = self.w.scratch(self._panel_bytes(product))
            self.e.places[panel] = Place(pointer, 0, self.dtype, row_major(shape))
        lanes = self._width(tile)

        def copy(_: list[Value]) -> list[Value]:
            for first in range(0, tile.width, lanes):
                value = self._direct(product, tile, first, lanes)
                with self.e.scope({panel: At("", first)}, Lanes(panel, lanes, lanes)):
                    self.e.locals[panel] = value
                    self.e.store(panel, _panel_index(product, panel), Ref(panel, self.dtype))
            return []

        self._reduce(product.loops_of_b, [], copy)

    def _column(self, product: Roles, tile: Tile, first: int, lanes: int) -> Value:
        """One vector of `b`, from its panel if there is one."""
        panel = dict(tile.panels).get(id(product.fold))
        if panel is None:
            return self._direct(product, tile, first, lanes)
        with self.e.scope({panel: At("", first)}, Lanes(panel, lanes, lanes)):
            return self.e.value(Load(panel, _panel_index(product, panel), self.dtype))

    def _direct(self, product: Roles, tile: Tile, first: int, lanes: int) -> Value:
        over = None if self.reduced else Lanes(self.vector, lanes, min(lanes, tile.width - first))
        with self.e.scope({self.columns: tile.column + first}, over):
            return self._operand(product.b, lanes)

    # --- one tile ---

    def _tile(self, tile: Tile) -> None:
        """All sums of a tile, then its epilogue."""
        self._finish(tile, {k: self._sums(product, tile) for k, product in self.products.items()})

    def _finish(self, tile: Tile, sums: dict[int, list[Value]]) -> None:
        """The epilogue, vector by vector."""
        lanes = next(iter(sums.values()))[0].lanes
        across = -(-tile.width // lanes)
        for r in range(tile.rows):
            for v in range(across):
                over = Lanes(self.columns, lanes, min(lanes, tile.width - v * lanes))
                self._epilogue(
                    tile, r, over, v * lanes, {k: s[r * across + v] for k, s in sums.items()}
                )

    def _sums(self, product: Roles, tile: Tile) -> list[Value]:
        """The finished sums by row and vector of columns."""
        lanes = self._width(tile)
        across = tile.width if self.reduced else -(-tile.width // lanes)
        start = [literal(self.zero, lanes)] * (tile.rows * across)
        sums = self._reduce(
            product.loops, start, lambda acc: self._step(product, tile, across, acc)
        )
        if not self.reduced:
            return sums
        return self._joined(sums, across)

    def _joined(self, sums: list[Value], across: int) -> list[Value]:
        """Lanes added up: of the sums of a row one vector."""
        return [transpose_add(self.w, sums[n : n + across]) for n in range(0, len(sums), across)]

    def _width(self, tile: Tile) -> int:
        """Lanes of a vector: a full register, or less where the whole axis needs less."""
        need = self.extents[self.vector] if self.reduced else tile.width
        return min(self.lanes, max(2, 1 << (need - 1).bit_length()))

    def _reduce(
        self,
        loops: Loops,
        acc: list[Value],
        products: Callable[[list[Value]], list[Value]],
    ) -> list[Value]:
        """The reduction loops, accumulators carried through all of them."""
        if not loops:
            return products(acc)
        (axis, bounds), rest = loops[0], loops[1:]
        if axis.name == self.vector:
            return self._reduce_lanes(axis, rest, acc, products)

        def body(at: Counter, inside: list[Value]) -> list[Value]:
            with self.e.scope({axis.name: At.of(at)}):
                return self._reduce(rest, inside, products)

        return self.w.span(*self.e.clamp(axis.extent, bounds), acc, body)

    def _reduce_lanes(
        self,
        axis: Axis,
        rest: Loops,
        acc: list[Value],
        products: Callable[[list[Value]], list[Value]],
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

    def _step(self, product: Roles, tile: Tile, across: int, acc: list[Value]) -> list[Value]:
        """One step of the innermost reduction loop: every accumulator takes one product."""
        lanes = acc[0].lanes
        step = 1 if self.reduced else lanes
        found = list(acc)
        if self.reduced and tile.rows < across:
            # The shorter side stays in registers while the longer one streams past.
            rows = [self._row(product, tile, r, lanes) for r in range(tile.rows)]
            for v in range(across):
                column = self._column(product, tile, v * step, lanes)
                for r, row in enumerate(rows):
                    found[r * across + v] = self._multiply_add(row, column, acc[r * across + v])
            return found
        columns = [self._column(product, tile, v * step, lanes) for v in range(across)]
        for r in range(tile.rows):
            row = self._row(product, tile, r, lanes)
            for v, column in enumerate(columns):
                found[r * across + v] = self._multiply_add(row, column, acc[r * across + v])
        return found

    def _row(self, product: Roles, tile: Tile, row: int, lanes: int) -> Value:
        """One scalar of `a` in all lanes, or one vector of it where the vector axis is reduced."""
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

    def _multiply_add(self, a: Value, b: Value, acc: Value) -> Value:
        if self.e.target.fma:
            return self.w.overloaded("fma", [a, b, acc])
        product = self.w.value(f"fmul {a.typed}, {b.text}", self.dtype, a.lanes)
        return self.w.value(f"fadd {product.typed}, {acc.text}", self.dtype, a.lanes)

    def _epilogue(
        self, tile: Tile, row: int, over: Lanes, first: int, sums: dict[int, Value]
    ) -> None:
        """Every statement in its order, for one vector of columns of one row."""
        at = {self.columns: tile.column + first}
        if self.rows:
            at[self.rows] = tile.row + row
        with self.e.scope(at, over):
            nest = Nest(self.e, ())
            for statement in self.body:
                if isinstance(statement, Fold):
                    self.e.locals[statement.names[0]] = sums[id(statement)]
                else:
                    nest.run((statement,))


def _panel_index(product: Roles, panel: str) -> tuple[Affine, ...]:
    return (*(Affine.axis(a.name) for a in product.reduction), Affine.axis(panel))
