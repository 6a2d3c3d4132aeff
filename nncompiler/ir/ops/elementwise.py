"""Elementwise operators: result[i] = primitive(a[i], b[i], …) with NumPy broadcasting.

Each is the scalar primitive of the same name; gradients, simplifications and references are its
own. Operands have one dtype. Arithmetic is here; see also `logic` and `unary`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.op import (
    DimMap,
    Lowering,
    Sample,
    broadcast_dims,
    broadcast_index,
    expect,
    expect_inputs,
)  # fmt: skip
from nncompiler.ir.ops.common import (
    Alongside,
    Cotangents,
    Definitions,
    Grads,
    constant_of,
    fit,
    is_constant,
    only,
    producer,
    sample,
)  # fmt: skip
from nncompiler.ir.scalar import PRIMITIVES, Expr, Index, apply, const
from nncompiler.ir.types import (
    F64,
    I32,
    U32,
    Array,
    DType,
    TensorType,
    broadcast_shapes,
)  # fmt: skip

PAIRS = (
    ((0,), (0,)), ((1,), (1,)), ((3,), ()), ((17,), (17,)), ((2, 33), (33,)), ((15, 1), (1, 16)),
    ((3, 1, 31), (2, 1)),
)  # fmt: skip


class Elementwise(Alongside):
    """The common part. Subclasses give `value`, their meaning on NumPy arrays, and `rule`, their
    own simplifications.
    """

    arity: ClassVar[int] = 2
    kinds: ClassVar[frozenset[str]] = frozenset({"float", "int", "uint"})

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, self.arity)
        dtype = common_dtype(node, node.inputs)
        expect(dtype.kind in self.kinds, f"'{node.op}' does not take {dtype} operands")
        return (TensorType(PRIMITIVES[self.name].result or dtype, common_shape(node)),)

    @abstractmethod
    def value(self, *inputs: Any) -> Any:
        """The meaning, on NumPy arrays."""

    def reference(self, node: Node, *inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.value(*inputs), self.infer(node)[0].dtype.numpy)

    def samples(self) -> Sequence[Sample]:
        found = [sample(*pair) for pair in PAIRS] + [sample((5,), (3, 5), dtype=F64)]
        if "int" in self.kinds:
            found.append(sample((7,), (7,), dtype=I32, low=-5, high=5))
        return found

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return apply(self.name, *read_all(node, index, ctx))

    def dims(self, node: Node) -> DimMap:
        return elementwise_dims(node)

    def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        """A simpler value, perhaps of a shape that still has to be broadcast to the result's."""
        return None

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        found = self.rule(b, node, definitions)
        if found is None:
            return without_broadcasts(b, node, definitions)
        return fit(b, found, node.output.type)


def common_dtype(node: Node, operands: Sequence[Value]) -> DType:
    first = operands[0].dtype
    for v in operands:
        if v.dtype != first:
            raise _unfit(node, "operands of one dtype", operands)
    return first


def common_shape(node: Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    for v in node.inputs:
        joined = broadcast_shapes(shape, v.shape)
        if joined is None:
            raise _unfit(node, "shapes that broadcast", node.inputs)
        shape = joined
    return shape


def _unfit(node: Node, expected: str, operands: Sequence[Value]) -> UserError:
    found = " and ".join(str(v.type) for v in operands)
    return UserError("NN0310", f"'{node.op}' expected {expected}, but found {found}")


def read_all(node: Node, index: tuple[Index, ...], ctx: Lowering) -> list[Expr]:
    return [ctx.read(k, broadcast_index(index, v.shape)) for k, v in enumerate(node.inputs)]


def elementwise_dims(node: Node) -> DimMap:
    return _dims(tuple([v.type.shape for v in node.inputs]), node.output.type.shape)


@lru_cache(4096)
def _dims(shapes: tuple[tuple[int, ...], ...], out: tuple[int, ...]) -> DimMap:
    return tuple(d for k, shape in enumerate(shapes) for d in broadcast_dims(shape, out, k))


def without_broadcasts(b: Builder, node: Node, definitions: Definitions) -> Value | None:
    """The same without the explicit broadcasts that its own broadcasting makes needless."""
    inputs, shape = list(node.inputs), node.output.shape
    for k, v in enumerate(node.inputs):
        if source := producer(v, "broadcast", definitions):
            shorter = [*inputs[:k], source.inputs[0], *inputs[k + 1 :]]
            if common_shape(Node(node.op, tuple(shorter), ())) == shape:
                inputs = shorter
    return b.emit(node.op, *inputs) if inputs != list(node.inputs) else None


# --- arithmetic ----------------------------------------------------------------------------------


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
