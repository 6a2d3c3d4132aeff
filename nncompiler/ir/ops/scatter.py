"""`scatter_add`: sums by index, the gradient of `gather`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.kernel import Axis, For, Let, Stmt
from nncompiler.ir.op import Memory, Operator, Sample, expect, expect_inputs
from nncompiler.ir.ops.common import Cotangents, Definitions, Grads, integer, only
from nncompiler.ir.ops.contract_tables import scattered_first
from nncompiler.ir.scalar import Affine, Index, Ref, apply, const
from nncompiler.ir.types import F32, F64, I32, Array, TensorType


class ScatterAdd(Operator):
    """``scatter_add {axis, extent} %parts, %indices``: y[…, i, …] is the sum of the parts with
    index i.

    The parts are added in the order of the indices, whatever runs beside it; an index out of range
    stands for the nearest. The work is that of reading the parts once.
    """

    name = "scatter_add"
    kind = "nest"

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 2)
        parts, indices = node.inputs[0].type, node.inputs[1].type
        axis, extent = integer(node, "axis"), integer(node, "extent")
        end = axis + indices.rank
        expect(indices.dtype == I32, f"'scatter_add' expected i32 indices, but found {indices}")
        expect(extent > 0, f"'scatter_add' expected an extent of 1 or more, but found {extent}")
        expect(
            axis >= 0 and parts.shape[axis:end] == indices.shape,
            f"'scatter_add' at axis {axis} expected parts for {indices}, but found {parts}",
        )
        return (parts.with_shape((*parts.shape[:axis], extent, *parts.shape[end:])),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        parts, indices = inputs
        axis, extent = integer(node, "axis"), integer(node, "extent")
        looked = tuple(range(axis, axis + indices.ndim))
        rows = np.moveaxis(parts, looked, range(indices.ndim))
        rest = rows.shape[indices.ndim :]
        rows = rows.reshape((indices.size, *rest))
        total = np.zeros((extent, *rest), parts.dtype)
        np.add.at(total, np.clip(indices.reshape(-1), 0, extent - 1), rows)
        return np.ascontiguousarray(np.moveaxis(total, 0, axis))

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = [
            ((), (), 0, 3), ((33,), (33,), 0, 5), ((0, 16), (0,), 0, 3),
            ((2, 3, 15), (2, 3), 0, 4), ((2, 5, 4), (5,), 1, 3),
            ((2, 3, 1), (3, 1), 1, 5), ((31, 17), (31,), 0, 1),
        ]  # fmt: skip
        return [
            Sample(
                (TensorType(d, s), TensorType(I32, i)), (("axis", a), ("extent", n)), -2.0, n + 1.0
            )
            for d, some in ((F32, rows), (F64, rows[3:4]), (I32, rows[4:5]))
            for s, i, a, n in some
        ]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        axis = integer(node, "axis")
        return (b.emit("gather", only(cotangents), node.inputs[1], axis=axis), None)

    def nest(self, node: Node, memory: Memory) -> tuple[Stmt, ...]:
        """The result is cleared, then each part is added to its row, one after the other."""
        indices, axis = node.inputs[1].type, integer(node, "axis")
        out, dtype = node.output.shape, node.output.dtype
        cleared, at = _loops("c", out)
        looked, place = _loops("n", indices.shape)
        beside, rest = _loops("r", (*out[:axis], *out[axis + 1 :]))
        before, behind = rest[:axis], rest[axis:]
        low = apply("max", memory.load(1, place), const(0, I32))
        row = Let("row", apply("min", low, const(out[axis] - 1, I32)))
        target: tuple[Index, ...] = (*before, Ref("row", I32), *behind)
        part = memory.load(0, (*before, *place, *behind))
        added = memory.store(target, apply("add", memory.result(target), part))
        return (
            *_around(cleared, (memory.store(at, const(0, dtype)),)),
            *_around(looked, (row, *_around(beside, (added,))), ordered=True),
        )

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        return scattered_first(b, node, definitions)

    def index_bounds(self, node: Node) -> tuple[tuple[int, int], ...]:
        return ((1, integer(node, "extent")),)

    def operations(self, node: Node) -> int:
        return node.inputs[0].type.size


def _loops(name: str, shape: Sequence[int]) -> tuple[tuple[Axis, ...], tuple[Affine, ...]]:
    """Axes over a shape, none where an extent is 1, and the index they make."""
    axes = tuple(Axis(f"{name}{d}", n) for d, n in enumerate(shape) if n != 1)
    index = tuple(Affine() if n == 1 else Affine.axis(f"{name}{d}") for d, n in enumerate(shape))
    return axes, index


def _around(
    axes: tuple[Axis, ...], body: tuple[Stmt, ...], ordered: bool = False
) -> tuple[Stmt, ...]:
    return (For(axes, body, ordered),) if axes else body
