"""Operators that index by data: `gather` and its companion `one_hot`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Builder, Node
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Operator, Sample, expect, expect_inputs, index_expr
from nncompiler.ir.ops.common import Cotangents, Grads, expect_axis, integer, only
from nncompiler.ir.ops.constant import dtype_of
from nncompiler.ir.scalar import Expr, Index, apply, cast, const
from nncompiler.ir.types import F32, F64, I32, Array, TensorType


class Gather(Operator):
    """``gather {axis} %data, %indices``: NumPy's ``take``; out of range it reads the nearest.

    Arguments of a function are range-checked before it runs; clamping keeps computed indices safe.
    """

    name = "gather"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 2)
        data, indices, axis = node.inputs[0].type, node.inputs[1].type, integer(node, "axis")
        expect_axis(node, axis, data.rank)
        expect(indices.dtype == I32, f"'gather' expected i32 indices, but found {indices}")
        expect(data.shape[axis] > 0, f"'gather' from no elements: axis {axis} of {data} is empty")
        return (data.with_shape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        data, indices = inputs
        places = indices.astype(np.int64)
        return np.asarray(np.take(data, places, integer(node, "axis"), mode="clip"))

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [
            ((17,), (), 0), ((5,), (33,), 0), ((3, 16), (0,), 0), ((4, 15), (2, 3), 0),
            ((2, 3, 4), (5,), 1), ((2, 5), (3, 1), 1),
        ]  # fmt: skip
        return [
            Sample((TensorType(d, s), TensorType(I32, i)), (("axis", a),), -2.0, 6.0)
            for d, some in ((F32, rows), (F64, rows[3:4]), (I32, rows[4:5]))
            for s, i, a in some
        ]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        (data, indices), axis = node.inputs, integer(node, "axis")
        found = b.emit(
            "scatter_add", only(cotangents), indices, axis=axis, extent=data.shape[axis]
        )
        return (found, None)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        (data, indices), axis = node.inputs, integer(node, "axis")
        end = axis + indices.type.rank
        found = ctx.read(1, index[axis:end])
        top = const(data.shape[axis] - 1, I32)
        place = apply("min", apply("max", found, const(0, I32)), top)
        return ctx.read(0, (*index[:axis], place, *index[end:]))

    def dims(self, node: Node) -> DimMap:
        (data, indices), axis = node.inputs, integer(node, "axis")
        before = tuple((0, d, d) for d in range(axis))
        behind = tuple((0, d, d - 1 + indices.type.rank) for d in range(axis + 1, data.type.rank))
        return (*before, *behind, *((1, d, axis + d) for d in range(indices.type.rank)))

    def along(self, node: Node, axis: int) -> tuple[int | None, ...] | None:
        first = integer(node, "axis")
        within = first <= axis < first + node.inputs[1].type.rank
        return (None, axis - first) if within else None

    def leaf_only(self, node: Node) -> bool:
        return True

    def index_bounds(self, node: Node) -> tuple[tuple[int, int], ...]:
        return ((1, node.inputs[0].shape[integer(node, "axis")]),)


class OneHot(Operator):
    """``one_hot {depth, dtype}``: a new last axis, 1 at the index and 0 elsewhere.

    An index out of range gives zeros only.
    """

    name = "one_hot"
    differentiable = False
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, depth = node.inputs[0].type, integer(node, "depth")
        expect(found.dtype == I32, f"'one_hot' expected indices of dtype i32, but found {found}")
        expect(depth >= 0, f"'one_hot' expected a depth of 0 or more, but found {depth}")
        return (TensorType(dtype_of(node), (*found.shape, depth)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        result = np.zeros(self.infer(node)[0].shape, dtype_of(node).numpy)
        for place in np.ndindex(inputs[0].shape):
            hot = int(inputs[0][place])
            if 0 <= hot < integer(node, "depth"):
                spot = (*place, hot)
                result[spot] = 1
        return result

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], int, str]] = [
            ((), 3, "f32"), ((17,), 10, "f32"), ((0,), 3, "f32"), ((3, 5), 4, "f64"),
            ((33,), 1, "bool"), ((4,), 0, "f32"), ((15,), 5, "i32"),
        ]  # fmt: skip
        return [
            Sample((TensorType(I32, s),), (("depth", n), ("dtype", d)), -2.0, n + 1.0)
            for s, n, d in rows
        ]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return cast(apply("eq", ctx.read(0, index[:-1]), index_expr(index[-1])), dtype_of(node))

    def dims(self, node: Node) -> DimMap:
        return tuple((0, d, d) for d in range(node.inputs[0].type.rank))

    def index_bounds(self, node: Node) -> tuple[tuple[int, int], ...]:
        return ((0, integer(node, "depth")),)
