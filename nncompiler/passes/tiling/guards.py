"""Where guards of loads can tell apart what an axis runs over: at the edges of a padded image."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nncompiler.ir.scalar import Apply, Const, Expr, Iota, axes_of, conjuncts
from nncompiler.passes.tiling.accesses import loads_below


def edges(expr: Expr, axis: str, width: int, extents: Mapping[str, int]) -> float:
    """The part of an axis, cut into pieces of `width`, inside which some guard may hold or not."""
    guards = [g for g in _conditions(expr) if axis in axes_of(g)]
    starts = range(0, extents[axis], width) if guards else range(1)
    looked = sum(any(_open(g, axis, at, width, extents) for g in guards) for at in starts)
    return looked / len(starts)


def besides(expr: Expr, reduced: Collection[str]) -> int:
    """How many loads an operand has beside one, in each step of the `reduced` axes: one of several
    is chosen by selects. Which row a gather reads is known before.
    """
    moving = [x for x in loads_below(expr) if not axes_of(x).isdisjoint(reduced)]
    return max(0, len(moving) - 1)


def _conditions(expr: Expr) -> list[Expr]:
    """Those of all loads."""
    return [c for x in loads_below(expr) for c in conjuncts(x.guard)]


def _open(condition: Expr, axis: str, at: int, width: int, extents: Mapping[str, int]) -> bool:
    match condition:
        case Apply(("ge" | "lt"), (Iota(form), Const(value))):
            low, high = form.bounds({**extents, axis: min(width, extents[axis] - at)})
            return low < value - form.coefficient(axis) * at <= high
        case _:
            return True
