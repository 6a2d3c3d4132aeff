"""The strategy for sums of products: a tile of accumulators in registers, live across all
reduction loops.

    for i, j { acc = sum k { a * b };  epilogue }        vector axis j or k, register axis i

`b` varies along the vector axis; `a` does not mention the columns, `b` not the rows. Two forms:

- vector axis parallel: lanes are columns. A tile is rows x vectors; each step loads the vectors
  of `b` and spreads one scalar of `a` per row. The epilogue runs over the same lanes, or where a
  second vector axis is named, the rows, over those.
- vector axis reduced: lanes are partial sums. A tile is rows x columns; each step loads vectors of
  both, and at the end transposing additions turn the sums of a row into one vector of columns.
  Packed, `b` is turned to lines along the vector axis.

Where the order puts a reduction axis before parallel ones, its loop runs around theirs: of few
elements of the factors, still in cache, all tiles inside take their share, and the accumulators
wait in scratch memory from one round to the next.

The epilogue (every statement but the fold) runs on finished sums through the same emitter: vector
by vector, or where it is long in a loop over the rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

from nncompiler.codegen.contractions.packing import packed, turns, with_panels
from nncompiler.codegen.contractions.product import Roles
from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.rounds import Around, Rounds, around_of
from nncompiler.codegen.contractions.row_panels import collide, packs_rows, row_groups
from nncompiler.codegen.contractions.run_on import runs_on
from nncompiler.codegen.contractions.tile import Tile, evenly
from nncompiler.codegen.contractions.turned_sums import TurnedSums
from nncompiler.codegen.instructions.address import At
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.certain import holds
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.share import Share
from nncompiler.codegen.instructions.value import Value
from nncompiler.codegen.nests.loops import Nest
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Kernel, Schedule
from nncompiler.ir.nests import Contraction, contraction
from nncompiler.ir.scalar import Expr, Load, axes_of, conjuncts, walk
from nncompiler.record import replace

Visit: TypeAlias = Callable[[Tile], None]


def emit_contraction(kernel: Kernel, emitter: Emitter) -> None:
    """Emit a kernel whose schedule says ``contract``."""
    schedule, form = kernel.schedule, contraction(kernel)
    if form is None or not 1 <= len(schedule.vector) <= 2 or schedule.tile is None:
        raise CompilerBug("NN0594", f"kernel '{kernel.name}' is not a scheduled sum of products")
    Nest(emitter).run(form.before)
    _Tiles(form, schedule, emitter).run(schedule.parallel)


class _Tiles(RegisterTiles):
    """Writes the loops over tiles, and what stands between those loops and the tiles."""

    def __init__(self, form: Contraction, schedule: Schedule, emitter: Emitter) -> None:
        super().__init__(form, schedule, emitter)
        self.around = around_of(form, schedule, self.parallel)
        self.alternate = schedule.alternate
        self.turned = schedule.vector[1:] == (self.rows,)

    def run(self, split: Sequence[str]) -> None:
        """All tiles, or this worker's part of them where outermost loops are `split`."""
        if split:
            steps = ((a.name, -(-a.extent // self._step_of(a))) for a in self.parallel)
            alternate = self.e.axes[self.alternate].base if self.alternate else ""
            self.e.share = Share(self.w, dict([*steps][: len(split)]), alternate)
        self._outer(self.parallel, Tile(1, 0, At(), At()), self._tile)

    def sums(self, products: Sequence[Roles], tile: Tile) -> list[Value]:
        if len(products) == 1 and (lines := runs_on(self, products[0], tile)):
            return lines.sums()
        return super().sums(products, tile)

    # --- loops over tiles ---

    def _outer(self, axes: tuple[Axis, ...], tile: Tile, visit: Visit) -> None:
        """Loops over the parallel axes; rows and columns advance by tiles, their remainders
        follow. Where the columns come twice, the first loop is over blocks, the second over the
        tiles of one.
        """
        if self.around and axes == self.around.inside:
            self._rounds(self.around, tile)
        elif self.turned and [a.name for a in axes] == [self.rows]:
            sums = TurnedSums(self, tile)
            self._inner(axes, tile, sums.add)
            sums.finish()
        else:
            self._inner(axes, tile, visit)

    def _inner(self, axes: tuple[Axis, ...], tile: Tile, visit: Visit) -> None:
        if not axes:
            visit(tile)
            return
        axis, rest = axes[0], axes[1:]
        if axis.name == self.columns and tile.width:
            self._each(tile, lambda t: self._outer(rest, t, visit))
            return

        def inner(at: At, count: int) -> None:
            if axis.name == self.columns:
                block = replace(tile, width=count, column=at)
                if self.around:
                    self._outer(rest, block, visit)
                elif self._copied(rest, block):
                    self._groups(rest[0], self._packed(block), visit)
                elif axis in rest:
                    self._outer(rest, self._packed(block), visit)
                elif self._filled_by_rows(rest):
                    panels = with_panels(self, block, 0)
                    self._each(panels, lambda t: self._fill(rest[0], t, visit))
                else:
                    self._each(self._packed(block), lambda t: self._outer(rest, t, visit))
            elif axis.name == self.rows:
                self._outer(rest, replace(tile, rows=count, row=at), visit)
            else:
                self._outer(rest, tile, visit)

        self._steps(axis, inner)

    def _copied(self, rest: tuple[Axis, ...], block: Tile) -> bool:
        """Whether groups of rows are copied for the columns of a block, loops inside."""
        if [a.name for a in rest] != [self.rows, self.columns]:
            return False
        loops = next(iter(self.products.values())).loops
        return packs_rows(self, block, loops) and collide(self, loops)

    def _groups(self, rows: Axis, block: Tile, visit: Visit, around: str = "") -> None:
        """All tiles of a block, with copies of their rows, in a round of the axis `around`."""
        (product,) = self.products.values()
        loops = product.loops[1:] if around else product.loops
        row_groups(
            self, self._pieces(rows), block, loops, around, lambda t: self._each(t, visit)
        )  # fmt: skip

    def _each(self, block: Tile, visit: Visit) -> None:
        """The tiles of a block, its remainder last."""
        width = self.tile[1]
        whole = block.width // width

        def at_tile(number: Counter, count: int) -> None:
            column = self.column_at(block, number)
            with self.e.scope({self.columns: column}):
                visit(replace(block, width=count, column=column, number=number))

        def body(number: Counter, _: list[Value]) -> list[Value]:
            at_tile(number, width)
            return []

        self.w.loop(0, whole, 1, [], body)
        if block.width % width:
            at_tile(whole, block.width % width)

    def _filled_by_rows(self, rest: tuple[Axis, ...]) -> bool:
        """Whether the first tile of rows copies what it reads: it comes first in every worker, and
        panels are of one tile.
        """
        if [a.name for a in rest] != [self.rows] or not 0 < self.pack <= self.tile[1]:
            return False
        split = self.e.share is not None and rest[0].name in self.e.share
        return not split and not turns(self)

    def _fill(self, rows: Axis, tile: Tile, visit: Visit) -> None:
        """All rows of one tile of columns. The first tile fills the panels: the one of the rows
        left over if there is one, so that there is no more code than without.
        """
        step = self._step_of(rows)
        left = rows.extent % step

        def rows_at(at: Counter, count: int, fills: bool) -> None:
            with self.e.scope({rows.name: At.of(at)}):
                visit(replace(tile, rows=count, row=At.of(at), fills=fills))

        def body(at: Counter, _: list[Value]) -> list[Value]:
            rows_at(at, step, False)
            return []

        rows_at(rows.extent - left if left else 0, left or step, True)
        self.w.loop(0 if left else step, rows.extent - left, step, [], body)

    def _step_of(self, axis: Axis) -> int:
        across = max(self.pack, self.tile[1])
        step = {self.columns: across, self.rows: self.tile[0]}.get(axis.name, 1)
        return min(step, axis.extent) or 1

    def _steps(self, axis: Axis, inner: Callable[[At, int], None]) -> None:
        """Loops over an axis, each over steps of one size that need the same guards."""
        share, first = self.e.share, 0
        for starts in self._alike(axis):

            def body(at: Counter, _: list[Value], starts: range = starts) -> list[Value]:
                value = At.of(at, starts)
                with self.e.scope({axis.name: value}):
                    inner(value, starts.step)
                return []

            if share is not None and axis.name in share:
                share.loop(axis.name, first, starts, body)
            else:
                self.w.loop(starts.start, starts.stop, starts.step, [], body)
            first += len(starts)

    def _alike(self, axis: Axis) -> Iterator[range]:
        """The steps of an axis, those together that follow each other and are alike: no tile but
        those at the edges of an image looks at its guards then.
        """
        guards = self._guards(axis.name)
        if not guards:  # a large batch has millions of steps
            yield from self._pieces(axis)
            return
        steps = [(at, piece.step) for piece in self._pieces(axis) for at in piece]

        def kind(step: tuple[int, int]) -> tuple[object, ...]:
            start, size = step
            places = [At("", start + n) for n in range(size)]
            open_ = [
                tuple(holds(g, {**self.e.axes, **known, axis.name: p}, None) for p in places)
                for g, known in guards
            ]
            return size, *open_

        for _, run in groupby(steps, kind):
            (first, size), *more = run
            yield range(first, first + size * (1 + len(more)), size)

    def _pieces(self, axis: Axis) -> tuple[range, ...]:
        """The steps of an axis, each range of steps of one size: columns as many as fit and the
        rest, rows divided evenly, so that no tile has too few to keep the multipliers busy.
        """
        step, n = self._step_of(axis), axis.extent
        if axis.name == self.rows and n:
            found = evenly(n, step)
        else:
            whole = n // step * step
            found = range(0, whole, step), range(whole, n, n - whole or 1)
        return tuple(r for r in found if r)

    def _guards(self, axis: str) -> list[tuple[Expr, dict[str, At]]]:
        """What the factors' guards ask of an axis of the tile, with what the reductions range
        over."""
        if axis not in (self.columns, self.rows):
            return []
        found = []
        for product in self.products.values():
            known = {k.name: At("k", 0, (0, k.extent - 1)) for k in product.reduction}
            factors = (product.a, product.b)
            loads = [x for e in factors for x in walk(e) if isinstance(x, Load)]
            conditions = [c for x in loads for c in conjuncts(x.guard)]
            found += [(c, known) for c in conditions if axis in axes_of(c)]
        return found

    # --- a reduction around tiles ---

    def _rounds(self, around: Around, block: Tile) -> None:
        """Clear the accumulators of all tiles inside, add to them round by round, finish them.
        Where these lie row by row, the first and last are loops over single rows: less code.
        """
        rounds, tile = Rounds(self, around, block), self.tile
        (product,) = self.products.values()
        alone = [a.name for a in around.inside] == [self.rows]
        copied = alone and packs_rows(self, block, product.loops[1:])

        def each(block: Tile, visit: Visit, rows: int) -> None:
            self.tile = rows, tile[1]
            if not block.width:  # the columns are inside
                self._inner(around.inside, block, visit)
            else:
                self._each(block, lambda t: self._inner(around.inside, t, visit))
            self.tile = tile

        def body(at: Counter, _: list[Value]) -> list[Value]:
            with self.e.scope({around.axis.name: At.of(at)}):
                panels = self._packed(block)
                if copied:
                    rows = around.inside[0]
                    self._groups(rows, panels, rounds.add_and_finish, around.axis.name)
                else:
                    each(panels, rounds.add, tile[0])
            return []

        each(block, rounds.clear if copied else rounds.expect_and_clear, rounds.rows)
        self.w.loop(0, around.axis.extent, 1, [], body)
        if not copied:
            each(block, rounds.finish, rounds.rows)

    def _packed(self, block: Tile) -> Tile:
        """The block with panels of `b`, if the schedule asks for them."""
        return packed(self, block, 1 if self.around else 0) if self.pack else block
