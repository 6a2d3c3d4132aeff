"""The parts that the axes and factors of a sum of products play in a register tile, by what its
schedule says. Code generation and the verifier of schedules must mean the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import takewhile

from nncompiler.ir.kernel import Axis, Schedule
from nncompiler.ir.nests import Product
from nncompiler.ir.scalar import Expr, axes_of

#: So many times fewer vectors are worth picking factors for each lane, and so many rounds adding
#: up lines in the end; vectors of a round, whose accumulators are in registers, at most.
_SPARED, _ROUNDS, _MOST = 1.05, 4, 16


def ordered(axes: Sequence[Axis], schedule: Schedule) -> tuple[Axis, ...]:
    """In the order of the schedule, as often as it names them; axes it leaves out come first."""
    table = {a.name: a for a in axes}
    named = [table[x] for x in schedule.order if x in table]
    return (*(a for a in axes if a not in named), *named)


def factors(
    product: Product, parallel: Collection[str], schedule: Schedule
) -> tuple[Expr, Expr] | None:
    """The factors as (a, b): `a` is spread over the lanes, or shared by the columns, `b` varies
    along the vector axis and not with the register axis. None where neither fits.
    """
    a, b = product.a, product.b
    vector, register = schedule.vector[0], schedule.register
    if vector not in axes_of(b) or (register is not None and register in axes_of(b)):
        a, b = b, a
    if register is None and not (axes_of(b) - axes_of(a)) & set(parallel):
        a, b = b, a
    reduced = any(r.name == vector for r in product.reduction)
    fits = (
        vector in axes_of(b) and register not in axes_of(b) and reduced == (vector in axes_of(a))
    )
    return (a, b) if fits else None


def column_axis(
    a: Expr, b: Expr, parallel: Sequence[str], reduction: Collection[str], schedule: Schedule
) -> str | None:
    """The columns of a tile: the vector axis; where that is reduced, the last parallel axis that
    only `b` mentions, of those whose loops stand outside of all reductions, as loops over places
    in a window may not. None where there is none.
    """
    if schedule.vector[0] not in reduction:
        return schedule.vector[0]
    found = [x for x in parallel if x in axes_of(b) - axes_of(a)]
    outside = [*takewhile(lambda x: x not in reduction, schedule.order)]
    return next(reversed([x for x in found if x in outside] or found), None)


def run_on(columns: int, lanes: int, steps: int) -> tuple[int, int] | None:
    """How many lines of so many columns without gaps are how many whole vectors, where those of
    one row of results run on from line to line; None where each line begins a vector of its own.
    """
    lines = lanes // math.gcd(columns, lanes)
    vectors, begun = columns * lines // lanes, -(-columns // lanes) * lines
    pays = begun >= _SPARED * vectors and steps >= _ROUNDS * lines and vectors <= _MOST
    return (lines, vectors) if pays and lines > 1 else None
