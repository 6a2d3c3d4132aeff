"""Columns that do not fill the last vector of a tile: it begins earlier, so that it is full, and
what two vectors have in common is computed and stored twice.

A store of a part of a vector takes 12 cycles and more on processors without registers for masks;
on others a short sum gains a few hundredths.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.ir.body import expressions
from nncompiler.ir.kernel import Fold, Stmt, Store
from nncompiler.ir.scalar import Affine, Load, walk


def repeatable(body: Sequence[Stmt], columns: str, emitter: Emitter) -> bool:
    """Whether the statements may run twice for a column, and gain by it: they store vectors along
    the columns, and nothing that they read.
    """
    stores = [s for s in body if isinstance(s, Store)]
    if len(stores) + sum(isinstance(s, Fold) for s in body) < len(body):
        return False
    loads = [x for s in body for e in expressions(s) for x in walk(e) if isinstance(x, Load)]
    if not all(emitter.places[x.buffer].read_only for x in loads):
        return False
    return all(_step(s, columns, emitter) == 1 for s in stores)


def _step(store: Store, columns: str, emitter: Emitter) -> int | None:
    """The step in memory of a store from one column to the next."""
    step, strides = 0, emitter.places[store.buffer].strides
    for index, stride in zip(store.index, strides, strict=True):
        if not isinstance(index, Affine):
            return None
        step += index.coefficient(columns) * stride
    return step
