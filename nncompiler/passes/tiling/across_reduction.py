"""Register tiles whose lanes are partial sums: one vector load per row and per column in every
step, shuffles at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nncompiler.ir.kernel import Axis
from nncompiler.ir.scalar import Load, axes_of
from nncompiler.passes.tiling.accesses import loads_below
from nncompiler.passes.tiling.choice import Best, Choice
from nncompiler.passes.tiling.order import PANEL_BYTES
from nncompiler.passes.tiling.pair import TURNED_LANE, Pair
from nncompiler.passes.tiling.reads import LINE, NEAR
from nncompiler.passes.tiling.step_cycles import WIDEST, fitting, limit, over_tiles, sums

#: Cycles of a line of the rows' factor from beyond the second-level cache, read again for each
#: tile of columns: so few that they decide between equals.
_FAR = 0.02
#: Cycles of a guard that differs between rows, columns or lanes.
_GUARD = 2.0
#: Cycles of a load of a step beside the arithmetic: of lines, and where it is.
_LINES, _IN_PLACE = 0.1, 0.2


def across_reduction(pair: Pair, best: Best) -> Iterable[Choice]:
    """The tiles that may be the best, for each reduction axis that lanes can run along."""
    order = pair.order
    if len(order.form.products) != 1:
        return
    (whole,), ((a, b),) = order.form.products, pair.products
    for k in whole.reduction:
        turned = order.stride(b, k.name) != 1
        if order.stride(a, k.name) == 1 and (not turned or _turns(pair, k)):
            steps = order.size(whole.reduction) / k.extent * -(-k.extent // order.lanes)
            yield from _partial_sums(pair, best, k.name, steps, turned)


def _turns(pair: Pair, k: Axis) -> bool:
    """Whether lines of the columns' factor along `k` can be copied in front of the tiles."""
    order, ((a, b),) = pair.order, pair.products
    plain = isinstance(b, Load) and b.guard is None
    plain = plain and not order.shifted(a) and not order.shifted(b)
    size = order.size(order.form.products[0].reduction) * pair.n * b.dtype.bytes
    fits = size <= PANEL_BYTES and sums(1, pair.n) <= limit(order.machine)
    return plain and fits and k.extent >= order.lanes and order.stride(b, pair.columns) == 1


def _partial_sums(
    pair: Pair, best: Best, k: str, steps: float, turned: bool
) -> Iterable[Choice]:
    """Lanes along a reduction axis `k`, in so many steps; tiles of all columns where their factor
    is `turned`.
    """
    order, ((a, b),), columns, row = pair.order, pair.products, pair.columns, pair.row
    m, n, machine = pair.m, pair.n, order.machine
    others = order.size(order.form.parallel) / (m * n)
    row_guards = _GUARD * (order.guarded(a, row) or order.guarded(a, k))
    column_guards = _GUARD * (order.guarded(b, columns) or order.guarded(b, k))
    read = sum({x.buffer: order.buffers[x.buffer].nbytes for x in loads_below(a)}.values())
    far = read / LINE * _FAR * (read > NEAR)
    near = _LINES if turned else _IN_PLACE
    sharing = order.size(x for x in order.form.parallel if x.name not in (*axes_of(b), row))
    halvings = math.log2(order.lanes)
    bounds, some = pair.masked(k), pair.computed(1, k)

    def flow(r: int, c: int) -> float:
        return max(r * c / machine.multiply_adds, (r + c) / machine.loads, machine.latency)

    def least(rows: int, cols: int) -> float:
        return steps * others * m * n * flow(rows, cols) / (rows * cols) * some

    def choice(rows: int, cols: int) -> Choice:
        guards = row_guards * rows + column_guards * cols
        copy = turned * TURNED_LANE * order.lanes / (sharing * -(-m // rows))

        def step(r: int, c: int) -> float:
            return flow(r, c) + near * (r + c) + copy * c + guards

        def shuffles(r: int, c: int) -> float:
            return r * (halvings / 2 * (-(-c // 4) * 4) + 4)

        taken = (bounds.over_tiles if bounds else over_tiles)(m, rows, n, cols, step)
        cycles = others * (steps * taken + over_tiles(m, rows, n, cols, shuffles))
        return Choice(cycles + far * -(-n // cols), k, columns, row, (rows, cols))

    tiles = fitting(sums, limit(machine), min(m, WIDEST), min(n, WIDEST))
    wanted = [t for t in tiles if turned and t[1] == n or not turned and _joins(t[1])]
    return best.of(wanted, least, choice)


def _joins(columns: int) -> bool:
    """Whether sums of so many columns are joined to vectors without many empty lanes."""
    return columns <= 4 or not columns % 4
