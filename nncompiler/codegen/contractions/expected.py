"""What the epilogue of a register tile reads and writes, asked for before its sums are added up:
rows lie far apart, so that no prefetch of hardware would bring them in time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.ir.body import expressions
from nncompiler.ir.kernel import Fold, Stmt, Store
from nncompiler.ir.scalar import Affine, Index, Load, axes_of, walk

#: Bytes of a cache line, and how many of all that is touched stay in the second-level cache.
LINE, _NEAR = 64, 192 * 1024
#: Steps of a reduction that hide the request for a line of each row.
_STEPS = 20
#: The same where vectors are whole lines: a step takes so long that requests cost next to nothing,
#: and what earlier kernels left of smaller arrays in the second-level cache nobody knows.
_FIRST, _LONG_STEPS, _LEAST = 32 * 1024, 5, 10


def expected(
    body: Sequence[Stmt],
    tile: tuple[str, str | None],
    extents: Mapping[str, int],
    steps: int,
    emitter: Emitter,
) -> tuple[tuple[Load, bool], ...]:
    """One element each of what is contiguous along the columns of a `tile` and differs from row
    to row, and whether it is written; nothing where that is little or sums have few `steps`.
    """
    found: dict[tuple[str, tuple[Index, ...]], tuple[Load, bool]] = {}
    for s in body:
        if isinstance(s, Fold):
            continue
        if isinstance(s, Store):
            dtype = emitter.places[s.buffer].dtype
            found[s.buffer, s.index] = Load(s.buffer, s.index, dtype), True
        for x in (x for e in expressions(s) for x in walk(e)):
            if isinstance(x, Load) and x.guard is None:
                found.setdefault((x.buffer, x.index), (x, False))
    chosen = [(x, w) for x, w in found.values() if _suits(x, *tile, emitter)]
    size = sum(math.prod(extents.get(a, 1) for a in axes_of(x)) * x.dtype.bytes for x, _ in chosen)
    if emitter.target.vector_bytes < LINE:
        pays = size > _NEAR and steps >= _STEPS * len(chosen)
    else:
        pays = size > _FIRST and steps >= max(_LEAST, _LONG_STEPS * len(chosen))
    return tuple(chosen) if pays else ()


def _suits(load: Load, columns: str, rows: str | None, emitter: Emitter) -> bool:
    return stride_along(emitter, load, columns) == 1 and (rows is None or rows in axes_of(load))


def stride_along(emitter: Emitter, access: Load | Store, axis: str) -> int | None:
    """Elements between neighbours along an axis; None where an index is loaded."""
    total = 0
    for index, stride in zip(access.index, emitter.places[access.buffer].strides, strict=True):
        if not isinstance(index, Affine):
            return None
        total += index.coefficient(axis) * stride
    return total
