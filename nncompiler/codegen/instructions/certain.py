"""Guards that cannot fail where the axes are now: what the counters of loops are known to reach
decides them, so that of an image only the tiles at its edges look at them.

    x[k+n-1] if k+n-1 >= 0 and k+n-1 < 32 else 0      for k from 8 to 23, n from 0 to 2:  x[k+n-1]
"""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.ir.scalar import Affine, Apply, Const, Expr, Iota, conjuncts


def undecided(
    guard: Expr | None, axes: Mapping[str, At], lanes: Lanes | None
) -> tuple[Expr, ...] | None:
    """The conditions of a guard that must be looked at; None where one of them always fails."""
    found = []
    for condition in conjuncts(guard):
        answer = holds(condition, axes, lanes)
        if answer is False:
            return None
        if answer is None:
            found.append(condition)
    return tuple(found)


def holds(condition: Expr, axes: Mapping[str, At], lanes: Lanes | None) -> bool | None:
    """Whether an index is in bounds for all values its axes may have now; None where that
    differs or is not known.
    """
    match condition:
        case Apply(("ge" | "lt") as op, (Iota(form), Const(value))):
            reach = _reach(form, axes, lanes)
            if reach is None or reach[0] < value <= reach[1]:
                return None
            return (reach[0] >= value) == (op == "ge")
        case _:
            return None


def _reach(
    form: Affine, axes: Mapping[str, At], lanes: Lanes | None
) -> tuple[int, int] | None:
    """The smallest and largest value of a form in all active lanes."""
    low = high = form.const
    for axis, k in form.terms:
        at = axes.get(axis)
        if at is None or at.ends is None:
            return None
        across = lanes.active - 1 if lanes is not None and lanes.axis == axis else 0
        ends = k * at.ends[0], k * (at.ends[1] + across)
        low, high = low + min(ends), high + max(ends)
    return low, high
