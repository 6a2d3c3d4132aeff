"""How expressions reach memory: their loads, and strides along an axis."""

from __future__ import annotations

from collections.abc import Iterable

from nncompiler.ir.kernel import Buffer
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Expr, Index, Load, axes_of, children


def stride_of(index: tuple[Index, ...], buffer: Buffer, axis: str) -> int | None:
    """Elements between neighbours along `axis`; None where an index is an expression of it."""
    total = 0
    for i, stride in zip(index, buffer.layout, strict=True):
        if isinstance(i, Affine):
            total += i.coefficient(axis) * stride
        elif axis in axes_of(i):
            return None
    return total


@once
def loads_below(expr: Expr) -> tuple[Load, ...]:
    """The loads of an expression, shared ones once."""
    return tuple([e for e in nodes([expr]) if isinstance(e, Load)])


def nodes(roots: Iterable[Expr]) -> Iterable[Expr]:
    """Every distinct expression below the roots, shared ones once."""
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        e = todo.pop()
        if id(e) not in seen:
            seen.add(id(e))
            todo += children(e)
            yield e
