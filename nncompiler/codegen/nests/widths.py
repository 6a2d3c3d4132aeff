"""How wide the pieces of a vector axis are, by what is done in each step."""

from __future__ import annotations

import math

from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.nests.footprint import footprint
from nncompiler.codegen.nests.pieces import Piece, pieces
from nncompiler.codegen.nests.strided import SHORT, mostly_apart
from nncompiler.ir.kernel import Axis, Fold, Stmt
from nncompiler.ir.scalar import Affine, Expr

#: Number of distinct expressions up to which a body runs on vectors of 4 or 2 registers.
_SIMPLE = ((12, 4), (40, 2))
#: Registers of a vector under which a long sum runs over the rows of a matrix: lines beside each
#: other are read faster from far caches. And from how many terms on a sum is long.
_WIDE, _LONG = (8, 4), 64


def cut_axis(
    axis: Axis,
    inner: tuple[Stmt, ...],
    values: tuple[Expr, ...],
    within: tuple[Affine, ...],
    e: Emitter,
) -> tuple[Piece, ...]:
    """The pieces of an axis whose steps do what `inner` says, and add up `values`; steps may be
    left out at which one of the forms `within` is negative.
    """
    seen = footprint(inner, values, e.expand)
    lanes = e.target.vector_bytes // seen.widest
    interleave = next((n for cost, n in _SIMPLE if seen.cost <= cost), 1)
    if seen.guarded or seen.combined or within:
        # LLVM 22 splits a masked load of several registers, and where one register's mask is
        # known to be false it loads that one without any mask. Masks of several registers it
        # packs into bytes to combine them. Single registers leave out the most.
        interleave = 1
    elif any(_sums_columns(s, e) for s in inner):
        # at least two steps, for two threads
        n = axis.extent
        wide = (k for k in _WIDE if n % (k * lanes) == 0 and n >= 2 * k * lanes)
        interleave = next(wide, interleave)
    if not values and mostly_apart(inner, seen, axis.name, e.places):
        lanes, interleave = min(lanes, SHORT // seen.widest), 1
    return pieces(axis.extent, lanes, interleave, within)


def _sums_columns(s: Stmt, e: Emitter) -> bool:
    """Whether this is a long fold of little per step."""
    if not isinstance(s, Fold) or math.prod(a.extent for a in s.axes) < _LONG:
        return False
    return footprint(s.body, s.values, e.expand).cost <= _SIMPLE[0][0]
