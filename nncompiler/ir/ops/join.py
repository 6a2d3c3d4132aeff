"""Operators that join: pad, concat. They read at shifted places, so from memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import (
    DimMap,
    Operator,
    Part,
    Sample,
    expect,
    expect_inputs,
    index_expr,
    scaled,
)
from nncompiler.ir.ops.common import (
    Cotangents,
    Definitions,
    Grads,
    attribute,
    conjunction,
    expect_axis,
    integer,
    only,
    producer,
    sample,
    within,
)  # fmt: skip
from nncompiler.ir.ops.elementwise import common_dtype
from nncompiler.ir.scalar import Expr, Index, apply, const
from nncompiler.ir.types import F64, I32, Array, TensorType


def positions(r: range, first: int, extent: int) -> range:
    """Those of `r` from `first` on and before `first + extent`, counted from there."""
    low = max(0, -((r.start - first) // r.step))
    high = max(low, -((r.start - first - extent) // r.step))
    found = r[low:high]
    return range(found.start - first, found.stop - first, found.step)


def spread(extent: int, interior: int) -> int:
    """The extent with `interior` elements put between each two neighbours."""
    return extent + max(extent - 1, 0) * interior


class Pad(Operator):
    """``pad {high, low, value}``: `value` before and after each dimension; where the attribute
    `interior` is given, so many between neighbours too.
    """

    name = "pad"
    cheap = True

    def amounts(self, node: Node) -> tuple[tuple[int, int, int], ...]:
        """(low, high, interior) of every dimension."""
        rank = node.inputs[0].type.rank
        interior = attribute(node, "interior", (0,) * rank)
        assert isinstance(interior, tuple)
        low, high = node.ints("low"), node.ints("high")
        expect(
            len(low) == len(high) == len(interior) == rank
            and min(low + high + interior, default=0) >= 0,
            f"'pad' expected {rank} amounts, none negative, but found low {list(low)}, "
            f"high {list(high)}, interior {list(interior)}",
        )
        return tuple(zip(low, high, interior, strict=True))

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found = node.inputs[0].type
        expect(isinstance(node.attr("value"), (int, float)), "'pad' expected a number for 'value'")
        sizes = zip(found.shape, self.amounts(node), strict=True)
        return (found.with_shape(tuple(lo + spread(n, mid) + hi for n, (lo, hi, mid) in sizes)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        result = np.full(self.infer(node)[0].shape, node.attr("value"), inputs[0].dtype)
        places = zip(inputs[0].shape, self.amounts(node), strict=True)
        inner = tuple(slice(lo, lo + spread(n, mid), mid + 1) for n, (lo, _, mid) in places)
        result[inner] = inputs[0]
        return result

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], dict[str, Attr]]] = [
            ((0,), {"low": (2,), "high": (1,), "value": 1.0}),
            ((17,), {"low": (0,), "high": (15,), "value": 0.0}),
            ((3, 5), {"low": (1, 2), "high": (1, 0), "value": -1.5}),
            ((2, 16), {"low": (0, 1), "high": (0, 0), "value": 3.0}),
            ((3, 4), {"low": (1, 0), "high": (0, 2), "interior": (1, 2), "value": 0.0}),
            ((1, 3), {"low": (0, 0), "high": (0, 0), "interior": (3, 1), "value": 0.0}),
        ]
        found = [sample(shape, attrs=attrs) for shape, attrs in rows]
        whole: dict[str, Attr] = {"low": (1,), "high": (1,), "value": 7}
        return [*found, sample((5,), dtype=F64, attrs=whole), sample((5,), dtype=I32, attrs=whole)]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        amounts, shape = self.amounts(node), node.inputs[0].shape
        low = tuple(lo for lo, _, _ in amounts)
        step = tuple(mid + 1 for _, _, mid in amounts)
        stop = tuple(lo + spread(n, mid) for n, (lo, _, mid) in zip(shape, amounts, strict=True))
        return (b.emit("slice", only(cotangents), start=low, stop=stop, step=step),)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        conditions: list[Expr] = []
        places: list[Index] = []
        shape = node.inputs[0].shape
        for i, n, (lo, hi, mid) in zip(index, shape, self.amounts(node), strict=True):
            place = scaled(i, 1, -lo) if lo else i
            conditions += within(place, 0 if lo else None, spread(n, mid) if hi or not n else None)
            if mid:
                step = const(mid + 1, I32)
                rest = apply("rem", index_expr(place), step)
                conditions.append(apply("eq", rest, const(0, I32)))
                place = apply("div", index_expr(place), step)
            places.append(place)
        fill = node.attr("value")
        assert isinstance(fill, (int, float))
        return ctx.read(
            0, tuple(places), conjunction(conditions), const(fill, node.inputs[0].dtype)
        )

    def dims(self, node: Node) -> DimMap:
        return tuple((0, d, d) for d, amount in enumerate(self.amounts(node)) if not any(amount))

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        shape, amounts = node.inputs[0].shape, self.amounts(node)
        if any(interior for _, _, interior in amounts):
            return None
        rows = zip(part, amounts, shape, strict=True)
        return tuple(positions(r, low, n) for r, (low, _, _), n in rows)

    def leaf_only(self, node: Node) -> bool:
        return any(any(amount) for amount in self.amounts(node))

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        return None if node.output.shape != node.inputs[0].shape else node.inputs[0]


class Concat(Operator):
    """``concat {axis}``: any number of operands, one behind the other along `axis`."""

    name = "concat"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect(bool(node.inputs), "'concat' expected at least one operand")
        dtype, first = common_dtype(node, node.inputs), node.inputs[0].type
        axis = integer(node, "axis")
        expect_axis(node, axis, first.rank)
        rest = {(v.type.rank, v.shape[:axis], v.shape[axis + 1 :]) for v in node.inputs}
        expect(
            len(rest) == 1,
            f"'concat' expected operands that differ along axis {axis} only, but found "
            f"{' and '.join(str(v.type) for v in node.inputs)}",
        )
        total = sum(v.shape[axis] for v in node.inputs)
        return (TensorType(dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :])),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.concatenate(inputs, integer(node, "axis"))

    def samples(self) -> Sequence[Sample]:
        return [
            sample((17,), attrs={"axis": 0}),
            sample((3,), (0,), (15,), attrs={"axis": 0}),
            sample((2, 16), (2, 1), (2, 33), attrs={"axis": 1}),
            sample((1, 2, 3), (4, 2, 3), attrs={"axis": 0}),
            sample((2, 3), (2, 2), dtype=F64, attrs={"axis": 1}),
            sample((2,), (2,), dtype=I32, attrs={"axis": 0}),
        ]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        axis, d, offset, found = integer(node, "axis"), only(cotangents), 0, []
        for v in node.inputs:
            start = tuple(offset if k == axis else 0 for k in range(v.type.rank))
            offset += v.shape[axis]
            stop = tuple(offset if k == axis else n for k, n in enumerate(v.shape))
            found.append(b.emit("slice", d, start=start, stop=stop, step=(1,) * v.type.rank))
        return found

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        axis = integer(node, "axis")
        pieces, offset = [], 0
        for k, v in enumerate(node.inputs):
            if v.shape[axis]:
                pieces.append((k, offset, offset + v.shape[axis]))
            offset += v.shape[axis]
        if not pieces:  # nothing to read: the result is empty
            return const(0, node.inputs[0].dtype)
        found: Expr | None = None
        for k, low, high in reversed(pieces):
            moved = scaled(index[axis], 1, -low) if low else index[axis]
            place = (*index[:axis], moved, *index[axis + 1 :])
            bounds = within(index[axis], low or None, high if high < offset else None)
            zero = const(0, node.inputs[0].dtype)
            piece = ctx.read(k, place, conjunction(bounds), zero)
            behind = apply("ge", index_expr(index[axis]), const(high, I32))
            found = piece if found is None else apply("select", behind, found, piece)
        assert found is not None
        return found

    def dims(self, node: Node) -> DimMap:
        axis, rank = integer(node, "axis"), node.inputs[0].type.rank
        return tuple((k, d, d) for k in range(len(node.inputs)) for d in range(rank) if d != axis)

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        axis = integer(node, "axis")
        first = sum(v.shape[axis] for v in node.inputs[:k])
        mine = positions(part[axis], first, node.inputs[k].shape[axis])
        return (*part[:axis], mine, *part[axis + 1 :])

    def leaf_only(self, node: Node) -> bool:
        return len(node.inputs) > 1

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        axis = integer(node, "axis")
        full = [v for v in node.inputs if v.shape[axis]] or [node.inputs[0]]
        if len(full) == 1:
            return full[0]
        flat: list[Value] = []
        for v in full:
            inner = producer(v, "concat", definitions)
            flat += inner.inputs if inner and inner.attr("axis") == axis else [v]
        return b.emit("concat", *flat, axis=axis) if flat != list(node.inputs) else None
