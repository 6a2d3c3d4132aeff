"""Functions of one argument, elementwise, as a table; then where, cast and stop_gradient.

A gradient is ``(builder, x, y, cotangent) -> cotangent of x``, by the result `y` where it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Part, Sample, expect, expect_inputs
from nncompiler.ir.ops.common import (
    Alongside,
    Cotangents,
    Definitions,
    Grads,
    constant_of,
    fit,
    only,
    producer,
    sample,
)  # fmt: skip
from nncompiler.ir.ops.elementwise import (
    Elementwise,
    common_dtype,
    common_shape,
    elementwise_dims,
    read_all,
    without_broadcasts,
)  # fmt: skip
from nncompiler.ir.scalar import Expr, Index, apply, cast
from nncompiler.ir.types import (
    BOOL,
    DTYPES,
    F32,
    F64,
    I32,
    I64,
    U8,
    Array,
    DType,
    TensorType,
)  # fmt: skip

Derivative: TypeAlias = Callable[[Builder, Value, Value, Value], Value]
Rule: TypeAlias = Callable[[Builder, Node, Definitions], "Value | None"]


class Unary(Elementwise):
    """A function of one argument; of a broadcast operand it is computed before broadcasting."""

    arity = 1

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        if source := producer(node.inputs[0], "broadcast", definitions):
            return b.emit("broadcast", b.emit(node.op, *source.inputs), shape=node.output.shape)
        return super().simplify(b, node, definitions)


def unary(
    called: str,
    function: Callable[[Any], Any],
    derivative: Derivative | None,
    *,
    between: tuple[float, float] = (-2.0, 2.0),
    takes: tuple[DType, ...] = (F32, F64),
    rule: Rule | None = None,
    factor: float | None = None,
) -> None:
    """Define the operator `called`. A `derivative` of None says that no gradient flows; with a
    `factor`, it is the argument times that."""

    class Function(Unary):
        __doc__ = f"The elementwise function `{called}`."
        name = called
        differentiable = derivative is not None
        proportional = () if factor is None else ((0,),)
        kinds = frozenset(d.kind for d in takes)

        def value(self, *inputs: Any) -> Any:
            return function(*inputs)

        def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
            if derivative is None:
                return super().gradient(b, node, cotangents)
            return (derivative(b, node.inputs[0], node.output, only(cotangents)),)

        def samples(self) -> Sequence[Sample]:
            low, high = between
            shapes: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (16,), (2, 33)]
            found = [sample(s, low=low, high=high) for s in shapes]
            return found + [sample((17,), dtype=d, low=low, high=high) for d in takes if d != F32]

        def rule(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
            return rule(b, node, definitions) if rule else None

        def factors(self, node: Node) -> tuple[float, tuple[Value, ...]] | None:
            return None if factor is None else (factor, node.inputs)


def _times(b: Builder, d: Value, *factors: Value | float) -> Value:
    for f in factors:
        d = b.emit("mul", d, f if isinstance(f, Value) else b.const(f, d.dtype))
    return d


def _one_minus(b: Builder, x: Value) -> Value:
    return b.emit("sub", b.const(1.0, x.dtype), x)


def _erf(x: Any) -> Any:
    # in f64 whatever the dtype: Python's is the only erf at hand, and it is accurate
    return np.asarray([math.erf(v) for v in x.ravel()], np.float64).reshape(x.shape)


def _sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _erf_gradient(b: Builder, x: Value, y: Value, d: Value) -> Value:
    return _times(b, d, 2 / math.sqrt(math.pi), b.emit("exp", b.emit("neg", b.emit("mul", x, x))))


def _neg_rule(b: Builder, node: Node, definitions: Definitions) -> Value | None:
    inner = definitions.get(node.inputs[0])
    if inner is None:
        return None
    if inner.op == "neg":
        return inner.inputs[0]
    if inner.op == "mul":
        for x, y in (inner.inputs, inner.inputs[::-1]):
            if (factor := constant_of(y, definitions)) is not None:
                return b.emit("mul", x, b.const(-factor, y.dtype))
    return None


def _abs_rule(b: Builder, node: Node, definitions: Definitions) -> Value | None:
    inner = definitions.get(node.inputs[0])
    if inner is None or inner.op not in ("neg", "abs"):
        return None
    return b.emit("abs", inner.inputs[0])


_SIGNED = (F32, F64, I32)

unary(
    "neg", np.negative, lambda b, x, y, d: b.emit("neg", d), takes=_SIGNED, rule=_neg_rule,
    factor=-1.0,
)  # fmt: skip
unary(
    "abs", np.abs, lambda b, x, y, d: _times(b, d, b.emit("sign", x)),
    takes=_SIGNED, rule=_abs_rule,
)  # fmt: skip
unary("sign", np.sign, None, takes=_SIGNED)
unary("floor", np.floor, None)
unary("exp", np.exp, lambda b, x, y, d: _times(b, d, y))
unary("log", np.log, lambda b, x, y, d: b.emit("div", d, x), between=(0.1, 4.0))
unary("sqrt", np.sqrt, lambda b, x, y, d: b.emit("div", _times(b, d, 0.5), y), between=(0.1, 4.0))
unary(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda b, x, y, d: _times(b, d, -0.5, y, y, y),
    between=(0.1, 4.0),
)  # fmt: skip
unary("tanh", np.tanh, lambda b, x, y, d: _times(b, d, _one_minus(b, _times(b, y, y))))
unary("sigmoid", _sigmoid, lambda b, x, y, d: _times(b, d, y, _one_minus(b, y)))
unary("erf", _erf, _erf_gradient)
unary("sin", np.sin, lambda b, x, y, d: _times(b, d, b.emit("cos", x)))
unary("cos", np.cos, lambda b, x, y, d: b.emit("neg", _times(b, d, b.emit("sin", x))))


class Where(Alongside):
    """``where(condition, a, b)``: elements of `a` where the condition holds, else of `b`."""

    name = "where"
    proportional = ((1, 2),)

    def choice(self, node: Node) -> tuple[Value, Value, Value] | None:
        condition, x, y = node.inputs
        return condition, x, y

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 3)
        found = node.inputs[0].type
        expect(found.dtype == BOOL, f"'where' expected a bool condition, but found {found}")
        return (TensorType(common_dtype(node, node.inputs[1:]), common_shape(node)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.where(*inputs)

    def samples(self) -> Sequence[Sample]:
        shapes: list[tuple[tuple[int, ...], ...]] = [
            ((0,), (0,), ()), ((17,), (17,), (17,)), ((3, 1), (33,), ()), ((), (2, 15), (15,)),
        ]  # fmt: skip
        found = [
            Sample((TensorType(BOOL, c), TensorType(d, x), TensorType(d, y)))
            for d in (F32, F64)
            for c, x, y in shapes
        ]
        integers = (TensorType(BOOL, (9,)), TensorType(I32, (9,)), TensorType(I32))
        return [*found, Sample(integers)]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        condition, d, zero = node.inputs[0], only(cotangents), b.const(0.0, node.output.dtype)
        return (None, b.emit("where", condition, d, zero), b.emit("where", condition, zero, d))

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return apply("select", *read_all(node, index, ctx))

    def dims(self, node: Node) -> DimMap:
        return elementwise_dims(node)

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        condition, x, y = node.inputs
        known = constant_of(condition, definitions)
        if known is not None:
            return fit(b, x if known else y, node.output.type)
        if x == y:
            return fit(b, x, node.output.type)
        if negated := producer(condition, "not", definitions):
            return b.emit("where", negated.inputs[0], y, x)
        return without_broadcasts(b, node, definitions)


class Cast(Alongside):
    """``cast {dtype}``: by value as in C, but float to integer saturates, NaN becomes 0.

    To bool is ``x != 0``.
    """

    name = "cast"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        dtype = node.attr("dtype")
        expect(dtype in DTYPES, f"'cast' expected a dtype, but found '{dtype}'")
        return (node.inputs[0].type.with_dtype(DTYPES[str(dtype)]),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        x: Any = inputs[0]
        target = self.infer(node)[0].dtype
        if target.kind == "bool":
            return np.asarray(x != 0)
        if target.is_float or x.dtype.kind != "f":
            with np.errstate(all="ignore"):
                return np.asarray(x.astype(target.numpy))
        limits = np.iinfo(target.numpy)  # type: ignore[type-var]
        wide = np.where(np.isnan(x), 0.0, x.astype(np.float64))
        over, under = wide >= float(limits.max), wide <= float(limits.min)
        exact = np.where(over | under, 0.0, wide).astype(target.numpy)
        found = np.where(over, limits.max, np.where(under, limits.min, exact))
        return np.asarray(found, target.numpy)

    def samples(self) -> Sequence[Sample]:
        pairs = [
            (F32, F32), (F32, F64), (F64, F32), (F32, I32), (F64, I64), (F32, U8), (F32, BOOL),
            (I32, F32), (I32, U8), (U8, F32), (BOOL, F32), (BOOL, I32),
        ]  # fmt: skip
        span = {"low": -300.0, "high": 300.0}
        return [sample((17,), dtype=s, attrs={"dtype": t.name}, **span) for s, t in pairs]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        source = node.inputs[0].dtype
        if not source.is_float or not node.output.dtype.is_float:
            return (None,)
        return (b.emit("cast", only(cotangents), dtype=source.name),)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return cast(ctx.read(0, index), DTYPES[str(node.attr("dtype"))])

    def dims(self, node: Node) -> DimMap:
        return elementwise_dims(node)

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, target = node.inputs[0], node.attr("dtype")
        if x.dtype.name == target:
            return x
        inner = definitions.get(x)
        if inner is None:
            return None
        if inner.op == "broadcast":
            converted = b.emit("cast", inner.inputs[0], dtype=target)
            return b.emit("broadcast", converted, shape=x.shape)
        if inner.op == "cast" and (inner.inputs[0].dtype, x.dtype, target) == (F32, F64, "f32"):
            return inner.inputs[0]  # widening and back
        return None


class StopGradient(Alongside):
    """The identity, through which no gradient flows."""

    name = "stop_gradient"
    differentiable = False
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        return (node.inputs[0].type,)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.array(inputs[0])

    def samples(self) -> Sequence[Sample]:
        return [sample((0,)), sample((3, 17)), sample((5,), dtype=I32)]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return ctx.read(0, index)

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        return part

    def dims(self, node: Node) -> DimMap:
        return elementwise_dims(node)
