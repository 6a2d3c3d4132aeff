"""How a `Fold` combines values: sums, products, extremes and where they are."""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.ir.scalar import Const, Expr, apply, const
from nncompiler.ir.types import DType
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Combine:
    """An associative combination of tuples: `width` values; `result(l, r)` gives the combined
    tuple."""

    name: str
    width: int
    result: Callable[[tuple[Expr, ...], tuple[Expr, ...]], tuple[Expr, ...]]
    identity: Callable[[tuple[DType, ...]], tuple[Const, ...]]


def lowest(dtype: DType) -> Const:
    if dtype.is_float:
        return Const(float("-inf"), dtype)
    return const(0 if dtype.kind == "uint" else -(2 ** (8 * dtype.bytes - 1)), dtype)


def highest(dtype: DType) -> Const:
    if dtype.is_float:
        return Const(float("inf"), dtype)
    return const(2 ** (8 * dtype.bytes - (dtype.kind == "int")) - 1, dtype)


def _pick_first(good: str) -> Callable[[tuple[Expr, ...], tuple[Expr, ...]], tuple[Expr, ...]]:
    """(value, index) pairs: the better value, NaN best of all, and the smaller index among
    equals. `good` says that a value is no worse than another."""

    def result(left: tuple[Expr, ...], right: tuple[Expr, ...]) -> tuple[Expr, ...]:
        (lv, li), (rv, ri) = left, right
        l_good = apply("or", apply(good, lv, rv), apply("ne", lv, lv))
        r_good = apply("or", apply(good, rv, lv), apply("ne", rv, rv))
        earlier = apply("lt", ri, li)
        take = apply("or", apply("not", l_good), apply("and", r_good, earlier))
        return apply("select", take, rv, lv), apply("select", take, ri, li)

    return result


def _fold1(op: str) -> Callable[[tuple[Expr, ...], tuple[Expr, ...]], tuple[Expr, ...]]:
    return lambda left, right: (apply(op, left[0], right[0]),)


COMBINES: dict[str, Combine] = {
    c.name: c
    for c in (
        Combine("sum", 1, _fold1("add"), lambda d: (const(0, d[0]),)),
        Combine("prod", 1, _fold1("mul"), lambda d: (const(1, d[0]),)),
        Combine("max", 1, _fold1("max"), lambda d: (lowest(d[0]),)),
        Combine("min", 1, _fold1("min"), lambda d: (highest(d[0]),)),
        # the identity's index loses every tie, so an all -inf row still yields its first index
        Combine("argmax", 2, _pick_first("ge"), lambda d: (lowest(d[0]), highest(d[1]))),
        Combine("argmin", 2, _pick_first("le"), lambda d: (highest(d[0]), highest(d[1]))),
    )
}
