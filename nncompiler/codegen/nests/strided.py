"""Bodies that mostly reach elements which lie apart: each lane is loaded or stored alone."""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.codegen.instructions.address import Place
from nncompiler.codegen.nests.footprint import Footprint
from nncompiler.ir.kernel import Let, Stmt, Store
from nncompiler.ir.scalar import Affine, Index, Load

#: Bytes of the vectors of such a body: there are as many instructions for lanes as in longer ones,
#: in so much less code.
SHORT = 32
#: Expressions of a body for each access to elements apart, at most.
_EXPRESSIONS = 12


def mostly_apart(
    body: tuple[Stmt, ...], seen: Footprint, axis: str, places: Mapping[str, Place]
) -> bool:
    """Whether a body without loops, in which so much is `seen`, is mostly such accesses where
    `axis` runs over the lanes.
    """
    if not all(isinstance(s, (Let, Store)) for s in body):
        return False
    found: list[Load | Store] = [*seen.loads, *(s for s in body if isinstance(s, Store))]
    reached = {(type(a), a.buffer, a.index) for a in found}
    apart = sum(_step(index, axis, places[buffer]) not in (0, 1) for _, buffer, index in reached)
    return apart > 0 and seen.cost <= _EXPRESSIONS * apart


def _step(index: tuple[Index, ...], axis: str, place: Place) -> int:
    """Elements from one lane to the next."""
    forms = zip(index, place.strides, strict=True)
    return sum(i.coefficient(axis) * k for i, k in forms if isinstance(i, Affine))
