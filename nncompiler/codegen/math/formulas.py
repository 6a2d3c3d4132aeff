"""Transcendental primitives as formulas of basic ones; generated code calls no library.

`expand` replaces exp, log, tanh, sigmoid, erf, sin, cos, pow and rsqrt by additions,
multiplications, comparisons, shifts and bit casts. Equal sub-expressions are one shared object:
evaluate by identity, never by walking the tree. Rounding is part of the formulas, so instructions
made of them must not be reassociated or contracted.

Accuracy in units in the last place is measured in docs/math.md, and holds with and without
hardware fma.
"""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.codegen.math.exponential import erf, exp, one_plus_erf, sigmoid, tanh
from nncompiler.codegen.math.logarithm import log, power
from nncompiler.codegen.math.trigonometric import cos, sin
from nncompiler.codegen.math.value import Value
from nncompiler.ir.scalar import Affine, Apply, Bitcast, Cast, Const, Expr, Load
from nncompiler.ir.types import F32
from nncompiler.record import replace


def _rsqrt(x: Value) -> Value:
    return 1.0 / x.apply("sqrt")


FORMULAS: dict[str, Callable[..., Value]] = {
    "exp": exp, "log": log, "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "sin": sin, "cos": cos,
    "pow": power, "rsqrt": _rsqrt,
}


def expand(expr: Expr, fma: bool) -> Expr:
    """`expr` in basic primitives; without `fma` in the target, none is left.

    Sub-expressions that are the same object stay the same object; what needs no change is
    returned as it is.
    """
    done: dict[int, Expr] = {}

    def visit(e: Expr) -> Expr:
        if id(e) not in done:
            done[id(e)] = _expand_node(e, visit, fma)
        return done[id(e)]

    return visit(expr)


def _expand_node(e: Expr, visit: Callable[[Expr], Expr], fma: bool) -> Expr:
    match e:
        case (
            Apply("add", (Const(1.0), Apply("erf", (x,))), dtype)
            | Apply("add", (Apply("erf", (x,)), Const(1.0)), dtype)
        ) if dtype == F32:
            return one_plus_erf(Value(visit(x), fma)).expr
        case Apply(op, args):
            new = tuple(visit(a) for a in args)
            values = [Value(a, fma) for a in new]
            if op in FORMULAS:
                return FORMULAS[op](*values).expr
            if op == "fma" and not fma:
                return values[0].mul_add(values[1], values[2]).expr
            return e if _same(new, args) else replace(e, args=new)
        case Cast(arg) | Bitcast(arg):
            inner = visit(arg)
            return e if inner is arg else replace(e, arg=inner)
        case Load(_, index, _, guard):
            indices = tuple(i if isinstance(i, Affine) else visit(i) for i in index)
            condition = None if guard is None else visit(guard)
            if condition is guard and _same(indices, index):
                return e
            return replace(e, index=indices, guard=condition)
        case _:
            return e


def _same(new: tuple[object, ...], old: tuple[object, ...]) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))
