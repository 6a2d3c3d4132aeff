"""Bodies that mostly reach elements which lie apart: each lane is loaded or stored alone."""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.codegen.instructions.address import Place
from nncompiler.ir.kernel import Let, Stmt, Store, accesses
from nncompiler.ir.scalar import Affine, Index

#: Bytes of the vectors of such a body: there are as many instructions for lanes as in longer ones,
#: in so much less code.
SHORT = 32
#: Expressions of a body for each access to elements apart, at most.
_EXPRESSIONS = 12


def mostly_apart(
    body: tuple[Stmt, ...], axis: str, places: Mapping[str, Place], cost: int
) -> bool:
    """Whether a body of `cost` expressions, without loops, is mostly such accesses where `axis`
    runs over the lanes.
    """
    if not all(isinstance(s, (Let, Store)) for s in body):
        return False
    reached = {(type(a), a.buffer, a.index) for a in accesses(body)}
    apart = sum(_step(index, axis, places[buffer]) not in (0, 1) for _, buffer, index in reached)
    return apart > 0 and cost <= _EXPRESSIONS * apart


def _step(index: tuple[Index, ...], axis: str, place: Place) -> int:
    """Elements from one lane to the next."""
    forms = zip(index, place.strides, strict=True)
    return sum(i.coefficient(axis) * k for i, k in forms if isinstance(i, Affine))
