"""Guards as bounds of loops: what lies outside a padded image is left out, not multiplied by zero.

    acc = sum m < 3 { (x[h+m-1] if h+m-1 >= 0 and h+m-1 < 30 else 0) * w[m] }

    for m from max(0, 1-h) to min(3, 31-h) { acc += x[h+m-1] * w[m] }

A condition becomes a bound of a loop when it is affine in the loop's axis, with coefficient 1 or
-1, and otherwise in axes that have a value by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nncompiler.ir.scalar import Affine, Apply, Const, Expr, Iota, Load, apply, rewrite, walk


@dataclass(frozen=True, slots=True)
class Bounds:
    """The axis runs from the largest of `low` (and 0) up to below the smallest of `high` (and its
    extent).
    """

    low: tuple[Affine, ...] = ()
    high: tuple[Affine, ...] = ()

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high)


def clip(value: Expr, axis: str, known: Iterable[str]) -> tuple[Expr, Bounds]:
    """`value`, a product that is 0 where a guard in it fails, with the guards that a loop over
    `axis` can take over removed, and that loop's bounds.
    """
    known = frozenset(known)
    low: dict[Affine, None] = {}
    high: dict[Affine, None] = {}

    def change(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.guard is None or e.fill is None or e.fill.value != 0:
            return e
        left = []
        for condition in _conjuncts(e.guard):
            found = _bound(condition, axis, known)
            if found is None:
                left.append(condition)
            else:
                is_low, form = found
                (low if is_low else high)[form] = None
        guard = left[0] if left else None
        for condition in left[1:]:
            guard = apply("and", guard, condition) if guard is not None else condition
        return replace(e, guard=guard, fill=None if guard is None else e.fill)

    factors = [x for x in walk(value) if isinstance(x, Load) and x.guard is not None]
    return (rewrite(value, change) if factors else value), Bounds(tuple(low), tuple(high))


def _conjuncts(guard: Expr) -> list[Expr]:
    match guard:
        case Apply("and", (a, b)):
            return _conjuncts(a) + _conjuncts(b)
        case _:
            return [guard]


def _bound(condition: Expr, axis: str, known: frozenset[str]) -> tuple[bool, Affine] | None:
    """The condition as a bound of `axis`: whether it is the lower one, and its value."""
    match condition:
        case Apply(("ge" | "lt") as op, (Iota(form), Const(value))):
            k = form.coefficient(axis)
            rest = form + Affine.axis(axis) * -k
            if abs(k) != 1 or not set(rest.axes) <= known:
                return None
            # k * axis + rest >= value, or < value
            edge = (rest * -k) + int(value) * k
            if k == 1:
                return op == "ge", edge
            return op == "lt", edge + 1
        case _:
            return None
