"""Operators without operands: constants and ramps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Node
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import Operator, Sample, added, expect, expect_inputs, index_expr, scaled
from nncompiler.ir.ops.common import sample
from nncompiler.ir.scalar import Affine, Expr, Index, cast, const
from nncompiler.ir.types import DTYPES, Array, DType, TensorType


def dtype_of(node: Node) -> DType:
    """The attribute `dtype`."""
    name = node.attr("dtype")
    expect(name in DTYPES, f"'{node.op}' expected a dtype, but found '{name}'")
    return DTYPES[str(name)]


class Constant(Operator):
    """``constant {value, dtype}``: a scalar; larger constants are broadcasts of one."""

    name = "constant"
    differentiable = False
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 0)
        dtype, value = dtype_of(node), node.attr("value")
        if dtype.is_float:
            fits = isinstance(value, (int, float))
        elif dtype.kind == "bool":
            fits = value in (0, 1)
        else:
            low = 0 if dtype.kind == "uint" else -(2 ** (8 * dtype.bytes - 1))
            fits = isinstance(value, int) and low <= value < low + 2 ** (8 * dtype.bytes)
        expect(fits, f"'constant' expected a value of dtype {dtype}, but found {value!r}")
        return (TensorType(dtype),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.asarray(node.attr("value"), dtype_of(node).numpy)

    def samples(self) -> Sequence[Sample]:
        rows = (
            (1.5, "f32"), (0.1, "f64"), (-0.0, "f32"), (math.inf, "f32"), (-7, "i32"),
            (True, "bool"), (2**32 - 1, "u32"),
        )  # fmt: skip
        return [sample(attrs={"value": v, "dtype": d}) for v, d in rows]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        value = node.attr("value")
        assert isinstance(value, (int, float))
        return const(value, dtype_of(node))


class Iota(Operator):
    """``iota {dtype, shape}``: the row-major position of each element: 0, 1, …"""

    name = "iota"
    differentiable = False
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 0)
        dtype, shape = dtype_of(node), node.ints("shape")
        expect(dtype.kind != "bool", "'iota' does not make bool")
        expect(
            min(shape, default=0) >= 0 and math.prod(shape) < 2**31,
            f"'iota' expected positions that fit i32, but found shape {list(shape)}",
        )
        return (TensorType(dtype, shape),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        shape = node.ints("shape")
        return np.arange(math.prod(shape)).reshape(shape).astype(dtype_of(node).numpy)

    def samples(self) -> Sequence[Sample]:
        rows = [
            ((0,), "i32"), ((1,), "i32"), ((17,), "i32"), ((33,), "f32"), ((5,), "u32"),
            ((3,), "f64"), ((2, 3), "i32"), ((3, 1, 5), "f32"), ((), "i32"),
        ]  # fmt: skip
        return [sample(attrs={"shape": s, "dtype": d}) for s, d in rows]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        position: Index = Affine()
        for i, n in zip(index, node.ints("shape"), strict=True):
            position = added(scaled(position, n, 0), i)
        return cast(index_expr(position), dtype_of(node))
