"""The register tile of a contraction: which axes are rows and columns, and how large the tile is.

Candidates (`across_columns`, `across_reduction`) are compared by cycles, of which the model knows
what a `Machine` says of its processor.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from nncompiler.ir.kernel import Schedule
from nncompiler.ir.scalar import axes_of
from nncompiler.passes.tiling.across_columns import across_columns
from nncompiler.passes.tiling.across_reduction import across_reduction
from nncompiler.passes.tiling.choice import Best, Choice
from nncompiler.passes.tiling.order import Order
from nncompiler.passes.tiling.pair import Pair
from nncompiler.passes.tiling.reads import with_columns
from nncompiler.passes.tiling.run_on import running_on
from nncompiler.passes.tiling.step_cycles import WIDEST

#: A contraction with fewer multiply-adds than this is not worth a register tile.
SMALL = 64
#: Multiply-adds in a cycle for which the cycles of a kernel are given: beside such the loops and
#: transforms were measured that it is compared with.
_COUNTED = 2
#: So many choices for each that is wanted are looked at: some come to the same.
_LIKE = 3


def best_tiles(order: Order, most: int = 1) -> list[tuple[float, Schedule]]:
    """The cheapest register tiles over all axes and roles, at most so many, the best first, and
    their cycles; none when the loops strategy does as well.
    """
    steps = [order.size(p.reduction) for p in order.form.products]
    if order.size(order.form.parallel) * max(steps) < SMALL or not all(steps):
        return []
    wanted = most if most == 1 else _LIKE * most
    choices = sorted(_candidates(list(_pairs(order)), wanted), key=lambda c: c.cycles)
    different: dict[Hashable, Choice] = {}
    for choice in choices:
        different.setdefault(_as_run(choice, order), choice)
    counted = order.machine.multiply_adds / _COUNTED
    found = [*different.values()][:most]
    return [(choice.cycles * counted, order.schedule(choice)) for choice in found]


def _as_run(choice: Choice, order: Order) -> Hashable:
    """What tells a choice from others in the code: rows are divided evenly."""
    rows = order.extent(choice.rows)
    even = -(-rows // -(-rows // choice.tile[0]))
    return choice.vector, choice.columns, choice.rows, choice.turned, even, choice.tile[1]


def _candidates(pairs: list[Pair], most: int) -> Iterable[Choice]:
    """All choices of columns and rows that may be among the best, promising ones looked at first.
    """
    best = Best(most)
    least = [p.least() for p in pairs]
    found: dict[int, list[Choice]] = {}
    for n in sorted(range(len(pairs)), key=least.__getitem__):
        found[n] = [] if best.beats(least[n]) else list(across_columns(pairs[n], best))
        found[n] += across_reduction(pairs[n], best)
    return [choice for n in range(len(pairs)) for choice in found[n]]


def _pairs(order: Order) -> Iterable[Pair]:
    """The axes that can be columns and rows of tiles."""
    names = [a.name for a in order.form.parallel]
    for columns in names:
        products = [with_columns(p, columns) for p in order.form.products]
        if any(columns in axes_of(a) or columns not in axes_of(b) for a, b in products):
            continue
        rows = [
            r for r in names if all(r in axes_of(a) and r not in axes_of(b) for a, b in products)
        ]
        scattered = order.scattered(columns)
        for row in rows or (None,):
            turned = scattered > 0 and _turns_sums(order, row)
            alone = None if rows else running_on(order, products, columns)
            yield Pair(order, products, columns, row, 0 if turned else scattered, turned, alone)


def _turns_sums(order: Order, row: str | None) -> bool:
    """Whether the epilogue can run over these rows instead of the columns: so few that the sums of
    all of them can wait.
    """
    if row is None or len(order.form.products) > 1 or order.extent(row) > WIDEST:
        return False
    return not order.scattered(row)
