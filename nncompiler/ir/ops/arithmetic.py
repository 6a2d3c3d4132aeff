"""Sums, differences, products, quotients, powers and extrema, element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import Sample
from nncompiler.ir.ops.common import (
    Cotangents,
    Definitions,
    Grads,
    constant_of,
    is_constant,
    only,
    producer,
    sample,
)  # fmt: skip
from nncompiler.ir.ops.elementwise import PAIRS, Elementwise, read_all
from nncompiler.ir.scalar import Expr, Index, apply, const
from nncompiler.ir.types import F64, I32, U32


class Add(Elementwise):
    name = "add"
    proportional = ((0, 1),)

    def affine(
        self, b: Builder, node: Node, k: int
    ) -> tuple[Value | None, Value | None] | None:
        return (None, node.inputs[1 - k])

    def value(self, *inputs: Any) -> Any:
        return np.add(*inputs)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        return (only(cotangents), only(cotangents))

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        # x + 0.0 is not x (it turns -0.0 into 0.0), but x + -0.0 is
        zero = -0.0 if node.output.dtype.is_float else 0
        for x, y in (node.inputs, node.inputs[::-1]):
            if is_constant(y, zero, definitions):
                return x
            if negated := producer(y, "neg", definitions):
                return b.emit("sub", x, negated.inputs[0])
        return None


class Sub(Elementwise):
    name = "sub"
    proportional = ((0, 1),)

    def affine(
        self, b: Builder, node: Node, k: int
    ) -> tuple[Value | None, Value | None] | None:
        return (None, b.emit("neg", node.inputs[1])) if k == 0 else None

    def value(self, *inputs: Any) -> Any:
        return np.subtract(*inputs)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        return (only(cotangents), b.emit("neg", only(cotangents)))

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, y = node.inputs
        if is_constant(y, 0.0, definitions):
            return x
        negated = producer(y, "neg", definitions)
        return b.emit("add", x, negated.inputs[0]) if negated else None


class Mul(Elementwise):
    name = "mul"
    proportional = ((0,), (1,))

    def affine(
        self, b: Builder, node: Node, k: int
    ) -> tuple[Value | None, Value | None] | None:
        return (node.inputs[1 - k], None)

    def factors(self, node: Node) -> tuple[float, tuple[Value, ...]] | None:
        return (1.0, node.inputs)

    def value(self, *inputs: Any) -> Any:
        return np.multiply(*inputs)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        x, y = node.inputs
        d = only(cotangents)
        return (b.emit("mul", d, y), b.emit("mul", d, x))

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        for x, y in (node.inputs, node.inputs[::-1]):
            if is_constant(y, 1, definitions):
                return x
            if is_constant(y, -1, definitions) and y.dtype.kind != "uint":
                return b.emit("neg", x)
            factor = constant_of(y, definitions)
            if factor is not None and (negated := producer(x, "neg", definitions)):
                return b.emit("mul", negated.inputs[0], b.const(-factor, y.dtype))
        return None


class Div(Elementwise):
    """Integers are divided towards zero; a zero divisor gives 0: machine code must not trap."""

    name = "div"

    def quotient(self, node: Node) -> tuple[Value, Value] | None:
        x, y = node.inputs
        return (x, y) if y.dtype.is_float else None

    def value(self, *inputs: Any) -> Any:
        x, y = inputs
        if x.dtype.kind == "f":
            return np.divide(x, y)
        quotient = np.floor_divide(x, y)
        rest = x - quotient * y
        return np.where(y == 0, 0, quotient + ((rest != 0) & ((x < 0) != (y < 0))))

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        q = b.emit("div", only(cotangents), node.inputs[1])
        return (q, b.emit("neg", b.emit("mul", q, node.output)))

    def samples(self) -> Sequence[Sample]:
        floats = [sample(*pair, low=0.5) for pair in PAIRS]
        return [
            *floats,
            sample((5,), (3, 5), dtype=F64, low=0.5),
            sample((33,), (33,), dtype=I32, low=-4, high=4),
            sample((9,), (9,), dtype=U32, low=0, high=9),
        ]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        x, y = read_all(node, index, ctx)
        if y.dtype.is_float:
            return apply("div", x, y)
        zero, one = const(0, y.dtype), const(1, y.dtype)
        by_zero = apply("eq", y, zero)
        if y.dtype.kind == "uint":
            safe = apply("select", by_zero, one, y)
            return apply("select", by_zero, zero, apply("div", x, safe))
        # the least integer divided by -1 overflows, which also traps; its negation wraps
        flips = apply("eq", y, const(-1, y.dtype))
        safe = apply("select", apply("or", by_zero, flips), one, y)
        quotient = apply("select", flips, apply("neg", x), apply("div", x, safe))
        return apply("select", by_zero, zero, quotient)

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, y = node.inputs
        divisor = constant_of(y, definitions)
        if divisor == 1:
            return x
        if divisor and y.dtype.is_float and math.isfinite(divisor):
            mantissa, exponent = math.frexp(divisor)
            if abs(mantissa) == 0.5 and abs(exponent) < 100:  # the reciprocal is exact
                return b.emit("mul", x, b.const(1.0 / divisor, y.dtype))
        return None


class Pow(Elementwise):
    """``a ** b``. The gradient of the exponent is that of ``a > 0``; at ``a == 0`` it is 0."""

    name = "pow"
    kinds = frozenset({"float"})

    def value(self, *inputs: Any) -> Any:
        return np.power(*inputs)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        x, y = node.inputs
        d, one, zero = only(cotangents), b.const(1.0, y.dtype), b.const(0.0, y.dtype)
        # an exponent of 0 must not turn 0 * x ** -1 into nan
        less = b.emit("where", b.emit("eq", y, zero), one, b.emit("sub", y, one))
        dx = b.emit("mul", d, b.emit("mul", y, b.emit("pow", x, less)))
        log = b.emit("log", b.emit("where", b.emit("eq", x, zero), one, x))
        return (dx, b.emit("mul", d, b.emit("mul", node.output, log)))

    def samples(self) -> Sequence[Sample]:
        found = [sample(*pair, low=0.5, high=2.5) for pair in PAIRS]
        return [*found, sample((5,), (3, 5), dtype=F64, low=0.5, high=2.5)]

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, exponent = node.inputs[0], constant_of(node.inputs[1], definitions)
        match exponent:
            case 1:
                return x
            case 2:
                return b.emit("mul", x, x)
            case 3:
                return b.emit("mul", b.emit("mul", x, x), x)
            case -1:
                return b.emit("div", b.const(1.0, x.dtype), x)
            case _:
                return None


class Extremum(Elementwise):
    """The larger or smaller of two; NaN propagates.

    Ties give the gradient to the first operand. So relu is ``max(0, x)``, with the constant first:
    its gradient at 0 is 0. The mask is found from the result, so that `x` need not be kept.
    """

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        d, zero = only(cotangents), b.const(0.0, node.output.dtype)
        first = b.emit("eq", node.output, node.inputs[0])
        return (b.emit("where", first, d, zero), b.emit("where", first, zero, d))

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, y = node.inputs
        return x if x == y else None


class Max(Extremum):
    __doc__ = Extremum.__doc__
    name = "max"

    def value(self, *inputs: Any) -> Any:
        return np.maximum(*inputs)


class Min(Extremum):
    __doc__ = Extremum.__doc__
    name = "min"

    def value(self, *inputs: Any) -> Any:
        return np.minimum(*inputs)
