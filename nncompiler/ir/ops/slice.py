"""The operator that cuts. It reads at shifted places, so from memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompiler.ir.graph import Attr, Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Operator, Part, Sample, expect, expect_inputs, scaled
from nncompiler.ir.ops.common import (
    Cotangents,
    Definitions,
    Grads,
    integer,
    only,
    sample,
)  # fmt: skip
from nncompiler.ir.scalar import Expr, Index
from nncompiler.ir.types import F64, Array, TensorType


class Slice(Operator):
    """``slice {start, step, stop}``: elements start, start + step, … before `stop`, per dimension.

    Bounds are plain positions, so the reversal of n elements is start n - 1, stop -1, step -1.
    """

    name = "slice"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found = node.inputs[0].type
        bounds = [node.ints(name) for name in ("start", "stop", "step")]
        expect(
            all(len(values) == found.rank for values in bounds),
            f"'slice' expected {found.rank} starts, stops and steps for {found}",
        )
        shape = []
        for n, start, stop, step in zip(found.shape, *bounds, strict=True):
            expect(step != 0, "'slice' expected a step other than 0")
            extent = len(range(start, stop, step))
            last = start + (extent - 1) * step
            expect(
                not extent or (0 <= start < n and 0 <= last < n),
                f"'slice' expected positions in 0..{n - 1}, but found {start}:{stop}:{step}",
            )
            shape.append(extent)
        return (found.with_shape(tuple(shape)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        found = inputs[0]
        bounds = zip(node.ints("start"), node.ints("stop"), node.ints("step"), strict=True)
        for axis, (start, stop, step) in enumerate(bounds):
            found = np.take(found, np.arange(start, stop, step), axis)
        return np.array(found)

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
            ((17,), (0,), (17,), (1,)), ((17,), (3,), (3,), (1,)), ((33,), (1,), (33,), (2,)),
            ((16,), (15,), (-1,), (-1,)), ((5, 31), (1, 0), (4, 31), (1, 1)),
            ((9, 8), (8, 1), (-1, 7), (-3, 5)),
        ]  # fmt: skip
        found = [sample(s, attrs={"start": a, "stop": o, "step": e}) for s, a, o, e in rows]
        double: dict[str, Attr] = {"start": (2,), "stop": (14,), "step": (3,)}
        return [*found, sample((15,), dtype=F64, attrs=double)]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        d, source = only(cotangents), node.inputs[0].shape
        start, step, shape = node.ints("start"), node.ints("step"), node.output.shape
        if min(step, default=1) < 0:
            d = b.emit(
                "slice", d,
                start=tuple(n - 1 if e < 0 else 0 for e, n in zip(step, shape, strict=True)),
                stop=tuple(-1 if e < 0 else n for e, n in zip(step, shape, strict=True)),
                step=tuple(-1 if e < 0 else 1 for e in step),
            )  # fmt: skip
        low: list[int] = []
        high: list[int] = []
        for first, e, extent, n in zip(start, step, shape, source, strict=True):
            if extent == 0:
                low.append(n)
                high.append(0)
                continue
            last = first + (extent - 1) * e
            low.append(min(first, last))
            high.append(n - 1 - max(first, last))
        attrs: dict[str, Attr] = {"low": tuple(low), "high": tuple(high), "value": 0.0}
        if any(abs(e) != 1 for e in step):
            attrs["interior"] = tuple(abs(e) - 1 for e in step)
        return b.emit_many("pad", (d,), attrs)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        places = zip(index, node.ints("start"), node.ints("step"), strict=True)
        return ctx.read(0, tuple(scaled(i, step, start) for i, start, step in places))

    def dims(self, node: Node) -> DimMap:
        return tuple((0, d, d) for d in range(node.inputs[0].type.rank) if self.whole(node, d))

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        bounds = zip(node.ints("start"), node.ints("stop"), node.ints("step"), strict=True)
        taken = [range(*b)[r.start : r.stop : r.step] for b, r in zip(bounds, part, strict=True)]
        return tuple(r if r.step > 0 else r[::-1] for r in taken)

    def leaf_only(self, node: Node) -> bool:
        return not all(self.whole(node, d) for d in range(node.inputs[0].type.rank))

    def whole(self, node: Node, d: int) -> bool:
        """Whether dimension `d` is taken whole and in order."""
        bounds = tuple(node.ints(name)[d] for name in ("start", "stop", "step"))
        return bounds == (0, node.inputs[0].shape[d], 1)

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x = node.inputs[0]
        if not self.leaf_only(node):
            return x
        inner = definitions.get(x)
        if inner is None:
            return None
        if inner.op == "broadcast" and not inner.inputs[0].shape:
            return b.emit("broadcast", inner.inputs[0], shape=node.output.shape)
        return self._of_concat(b, node, inner) if inner.op == "concat" else None

    def _of_concat(self, b: Builder, node: Node, inner: Node) -> Value | None:
        """A slice that lies in one piece of a concatenation is a slice of that piece."""
        axis = integer(inner, "axis")
        start, step = node.ints("start")[axis], node.ints("step")[axis]
        extent = node.output.shape[axis]
        if extent == 0:
            return None
        ends = (start, start + (extent - 1) * step)
        offset = 0
        for piece in inner.inputs:
            n = piece.shape[axis]
            if offset <= min(ends) and max(ends) < offset + n:
                shift = [offset if d == axis else 0 for d in range(piece.type.rank)]
                first, end = (
                    tuple(p - s for p, s in zip(node.ints(name), shift, strict=True))
                    for name in ("start", "stop")
                )
                return b.emit("slice", piece, start=first, stop=end, step=node.ints("step"))
            offset += n
        return None
