"""Guards as bounds of loops: what lies outside a padded image is left out, not multiplied by zero.

    acc = sum m < 3 { (x[h+m-1] if h+m-1 >= 0 and h+m-1 < 30 else 0) * w[m] }

    for m from max(0, 1-h) to min(3, 31-h) { acc += x[h+m-1] * w[m] }

A condition becomes a bound of a loop when it is affine in the loop's axis, and otherwise in axes
that have a value by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.ir.scalar import Affine, Apply, Const, Expr, Iota, Load, apply, conjuncts, rewrite
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Edge:
    """The value of `form` by `step`, rounded down; what is negative may be rounded up."""

    form: Affine
    step: int = 1

    def at(self, w: Writer, value: Callable[[Affine], Counter]) -> Counter:
        found = value(self.form)
        if self.step == 1:
            return found
        if isinstance(found, int):
            return found // self.step
        return w.assign(f"sdiv i64 {found}, {self.step}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The axis runs from the largest of `low` (and 0) up to below the smallest of `high` (and its
    extent), and not at all where a form of `only` is negative.
    """

    low: tuple[Edge, ...] = ()
    high: tuple[Edge, ...] = ()
    only: tuple[Affine, ...] = ()

    def axes(self) -> frozenset[str]:
        """The axes that must have a value by then."""
        return frozenset(x for edge in (*self.low, *self.high) for x in edge.form.axes)

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high, self.only + other.only)

    def ends(
        self, extent: int, w: Writer, value: Callable[[Affine], Counter]
    ) -> tuple[Counter, Counter]:
        """Where the loop over 0 .. `extent` starts and stops, by the `value` of a form."""
        start: Counter = 0
        stop: Counter = extent
        for edge in self.low:
            start = extreme(w, "smax", start, edge.at(w, value))
        for edge in self.high:
            stop = extreme(w, "smin", stop, edge.at(w, value))
        return start, stop


def extreme(w: Writer, name: str, a: Counter, b: Counter) -> Counter:
    """The smaller (`smin`) or larger (`smax`) of two."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b) if name == "smax" else min(a, b)
    return w.intrinsic(f"llvm.{name}.i64", "i64", [("i64", str(a)), ("i64", str(b))])


def clip(value: Expr, axis: str, known: Iterable[str]) -> tuple[Expr, Bounds]:
    """`value`, a factor of what is summed, without the guards that a loop over `axis` can take
    over, and that loop's bounds.
    """
    known = frozenset(known)
    found = {c: b for c in _needed(value) if (b := _bound(c, axis, known)) is not None}
    low = tuple(dict.fromkeys(edge for is_low, edge in found.values() if is_low))
    high = tuple(dict.fromkeys(edge for is_low, edge in found.values() if not is_low))

    def change(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.guard is None:
            return e
        left = [c for c in conjuncts(e.guard) if c not in found]
        if not left:
            return replace(e, guard=None, fill=None)
        guard = left[0]
        for condition in left[1:]:
            guard = apply("and", guard, condition)
        return replace(e, guard=guard)

    return (rewrite(value, change) if found else value), Bounds(low, high)


def _needed(value: Expr) -> tuple[Expr, ...]:
    """Conditions without which `value` is zero."""
    match value:
        case Load(guard=guard, fill=Const(fill)) if guard is not None and fill == 0:
            return conjuncts(guard)
        case Apply("mul", (a, b)):
            return tuple(dict.fromkeys(_needed(a) + _needed(b)))
        case Apply("select", (condition, a, Const(0))):
            return tuple(dict.fromkeys(conjuncts(condition) + _needed(a)))
        case Apply("select", (_, a, b)):
            return tuple(c for c in _needed(a) if c in _needed(b))
        case _:
            return ()


def _bound(condition: Expr, axis: str, known: frozenset[str]) -> tuple[bool, Edge] | None:
    """The condition as a bound of `axis`: whether it is the lower one, and its value."""
    match condition:
        case Apply(("ge" | "lt") as op, (Iota(form), Const(value))):
            k = form.coefficient(axis)
            rest = form + Affine.axis(axis) * -k
            if not k or not set(rest.axes) <= known:
                return None
            # k * axis >= value - rest, or < that; rounded up, of a negative k to what is beyond
            short = rest * -1 + int(value)
            if k > 0:
                return op == "ge", Edge(short + (k - 1), k)
            return op == "lt", Edge(short * -1 + -k, -k)
        case _:
            return None
