"""Tiles of one row whose vectors run on from line to line of a factor that lies without gaps.

    for j < 10 { acc = sum k { a[k] * b[k,j] } }     eight lines of ten columns: five whole vectors
"""

from __future__ import annotations

from nncompiler.ir.scalar import Expr, Load
from nncompiler.ir.tile_roles import run_on
from nncompiler.passes.tiling.choice import Choice
from nncompiler.passes.tiling.reads import Reads

#: Cycles of a vector, whose factors are picked from others; of adding up lines in the end.
_VECTOR, _END = 1.4, 20.0


def running_on(reads: Reads, products: list[tuple[Expr, Expr]], columns: str) -> Choice | None:
    """The tile of all columns and no rows, if its vectors may run on."""
    if len(products) != 1 or len(reads.form.products[0].reduction) != 1:
        return None
    ((a, b),), (k,) = products, reads.form.products[0].reduction
    n, within = reads.extent(columns), reads.form.products[0].fold.within
    if within or not all(isinstance(x, Load) and x.guard is None for x in (a, b)):
        return None
    steps = [reads.stride(x, axis) for x, axis in ((b, columns), (b, k.name), (a, k.name))]
    if steps != [1, n, 1] or (found := run_on(n, reads.lanes, k.extent)) is None:
        return None
    lines, vectors = found
    cycles = reads.size(reads.form.parallel) / n * (k.extent / lines * vectors * _VECTOR + _END)
    return Choice(cycles, columns, columns, None, (1, -(-n // reads.lanes) * reads.lanes))
