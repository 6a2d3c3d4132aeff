"""`scatter_add`: sums by index, the gradient of `gather`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.kernel import Axis, For, Let, Stmt
from nncompiler.ir.lowering import Memory
from nncompiler.ir.op import Operator, Sample, expect, expect_inputs
from nncompiler.ir.ops.common import Cotangents, Definitions, Grads, integer, only
from nncompiler.ir.ops.contract_tables import scattered_first
from nncompiler.ir.scalar import Affine, Index, Ref, apply, const
from nncompiler.ir.types import F32, F64, I32, Array, TensorType

#: Elements of a row that are added up at a time.
_BLOCK = 256


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
        """The result is cleared, then each part is added to its row, one after the other; long
        rows block by block, each a table small enough for the nearest cache."""
        indices, axis = node.inputs[1].type, integer(node, "axis")
        out, dtype = node.output.shape, node.output.dtype
        sizes = (*out[:axis], *out[axis + 1 :])
        blocks = sizes[-1] // _BLOCK if axis < len(out) - 1 and not sizes[-1] % _BLOCK else 1
        outer, inside = (Axis("b", blocks),) if blocks > 1 else (), list(sizes)
        if outer:
            inside[-1] = _BLOCK
        looked, place = _loops("n", indices.shape)
        low = apply("max", memory.load(1, place), const(0, I32))
        row = Let("row", apply("min", low, const(out[axis] - 1, I32)))

        def beside(name: str) -> tuple[tuple[Axis, ...], tuple[Affine, ...]]:
            axes, at = _loops(name, inside)
            return axes, (*at[:-1], at[-1] + Affine.axis("b") * _BLOCK) if outer else at

        clear, at = beside("c")
        cleared = memory.store((*at[:axis], Affine.axis("v"), *at[axis:]), const(0, dtype))
        adds, at = beside("r")
        target: tuple[Index, ...] = (*at[:axis], Ref("row", I32), *at[axis:])
        part = memory.load(0, (*at[:axis], *place, *at[axis:]))
        added = memory.store(target, apply("add", memory.result(target), part))
        body = (
            For((Axis("v", out[axis]), *clear), (cleared,)),
            *_around(looked, (row, *_around(adds, (added,))), ordered=True),
        )
        return _around(outer, body)

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
