"""Sliding windows, for pooling: `window` lays them out as axes of their own, `overlap` adds them
up again.

The two are each other's gradient. Neither copies by itself: they are read through, at affine
indices.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import (
    DimMap,
    Operator,
    Sample,
    Shapes,
    added,
    expect,
    expect_inputs,
    index_expr,
    scaled,
)
from nncompiler.ir.ops.common import Cotangents, Grads, conjunction, cut, only, sample, within
from nncompiler.ir.scalar import Affine, Expr, Index, apply, const
from nncompiler.ir.types import F64, I32, Array, TensorType


def count(extent: int, size: int, stride: int, dilation: int) -> int:
    """How many windows fit: (extent - dilation (size - 1) - 1) / stride + 1, none where the
    extent is too small."""
    reach = dilation * (size - 1) + 1
    return (extent - reach) // stride + 1 if extent >= reach else 0


class _Windows(Operator):
    """What both share: `axes` that windows slide along, and per axis `size`, `stride`,
    `dilation`."""

    def amounts(self, node: Node) -> tuple[tuple[int, int, int, int], ...]:
        """(axis, size, stride, dilation), checked."""
        names = ("axes", "size", "stride", "dilation")
        columns = tuple(node.ints(n) for n in names)
        expect(
            len({len(c) for c in columns}) == 1,
            f"'{node.op}' expected {', '.join(names)} of one length",
        )
        found = tuple(zip(*columns, strict=True))
        expect(
            list(columns[0]) == sorted(set(columns[0])),
            f"'{node.op}' expected axes in order, each once",
        )
        for axis, size, stride, dilation in found:
            expect(
                axis >= 0 and min(size, stride, dilation) >= 1,
                f"'{node.op}' expected positive amounts",
            )
        return found

    def windowed(self, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the windows over a tensor of `shape`: window axes come last."""
        amounts = self.amounts(node)
        expect(
            all(axis < len(shape) for axis, *_ in amounts),
            f"'{node.op}' expected axes below {len(shape)}",
        )
        outer = list(shape)
        for axis, size, stride, dilation in amounts:
            outer[axis] = count(shape[axis], size, stride, dilation)
        return (*outer, *(size for _, size, _, _ in amounts))

    def pieces(
        self, node: Node, shape: tuple[int, ...]
    ) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Per place in the window: that place, and the slices of the tensor that all windows have
        there."""
        amounts = self.amounts(node)
        found = []
        for place in itertools.product(*(range(size) for _, size, _, _ in amounts)):
            slices = [slice(None)] * len(shape)
            for (axis, size, stride, dilation), r in zip(amounts, place, strict=True):
                number = count(shape[axis], size, stride, dilation)
                slices[axis] = slice(r * dilation, r * dilation + stride * number, stride)
            found.append((place, tuple(slices)))
        return found

    def leaf_only(self, node: Node) -> bool:
        return True


class Window(_Windows):
    """``window {axes, dilation, size, stride}``: y[…, o, …, r] = x[…, o * stride + r * dilation,
    …]."""

    name = "window"
    cheap = True
    skips = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found = node.inputs[0].type
        return (found.with_shape(self.windowed(node, found.shape)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        x = inputs[0]
        result = np.zeros(self.windowed(node, x.shape), x.dtype)
        for place, slices in self.pieces(node, x.shape):
            at: Any = (Ellipsis, *place)
            result[at] = x[slices][tuple(slice(0, n) for n in result[at].shape)]
        return result

    def samples(self) -> Sequence[Sample]:
        rows = [
            ((1, 1, 6, 6), (2, 3), (2, 2), (2, 2), (1, 1)), ((2, 3, 7, 5), (2, 3), (3, 2), (1, 2),
            (1, 1)), ((17,), (0,), (3,), (1,), (2,)), ((3, 9, 2), (1,), (3,), (2,), (1,)), ((2,
            2), (1,), (3,), (1,), (1,)),
        ]  # fmt: skip
        found = [sample(s, attrs=_attributes(*rest)) for s, *rest in rows]
        return [*found, sample((2, 8), dtype=F64, attrs=_attributes((1,), (2,), (2,), (1,)))]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        attrs = dict(node.attrs)
        return (b.emit("overlap", only(cotangents), shape=node.inputs[0].shape, **attrs),)  # type: ignore[arg-type]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        amounts = self.amounts(node)
        rank = len(index) - len(amounts)
        place = list(index[:rank])
        for (axis, _, stride, dilation), r in zip(amounts, index[rank:], strict=True):
            place[axis] = added(scaled(index[axis], stride, 0), scaled(r, dilation, 0))
        return ctx.read(0, tuple(place))

    def dims(self, node: Node) -> DimMap:
        moved = {axis for axis, *_ in self.amounts(node)}
        return tuple((0, d, d) for d in range(node.inputs[0].type.rank) if d not in moved)

    def reach(self, node: Node, shape: tuple[int, ...]) -> Shapes:
        """As far as the last window comes; windows are made as a whole."""
        found = list(shape[: node.inputs[0].type.rank])
        for axis, size, stride, dilation in self.amounts(node):
            windows = found[axis]
            found[axis] = (windows - 1) * stride + (size - 1) * dilation + 1 if windows else 0
        return (tuple(found),)

    def narrowed(
        self, b: Builder, node: Node, inputs: Sequence[Value], shape: tuple[int, ...]
    ) -> Value:
        (reach,) = self.reach(node, shape)
        return b.emit("window", cut(b, inputs[0], reach), **dict(node.attrs))  # type: ignore[arg-type]


class Overlap(_Windows):
    """``overlap {axes, dilation, shape, size, stride}``: x[i] = sum of y[o, r] over o * stride +
    r * dilation = i."""

    name = "overlap"
    kind = "fold"

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, shape = node.inputs[0].type, node.ints("shape")
        wanted = self.windowed(node, shape)
        expect(
            found.shape == wanted,
            f"'overlap' expected windows of shape {list(wanted)}, but found {found}",
        )
        return (found.with_shape(shape),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        y = inputs[0]
        result = np.zeros(node.ints("shape"), y.dtype)
        for place, slices in self.pieces(node, result.shape):
            at: Any = (Ellipsis, *place)
            part: Any = y[at]
            target: Any = result[slices]
            target[tuple(slice(0, n) for n in part.shape)] += part
        return result

    def samples(self) -> Sequence[Sample]:
        rows = [
            ((1, 1, 6, 6), (2, 3), (2, 2), (2, 2), (1, 1)), ((2, 3, 7, 5), (2, 3), (3, 2), (1, 2),
            (1, 1)), ((17,), (0,), (3,), (1,), (2,)), ((3, 9, 2), (1,), (3,), (2,), (1,)), ((2,
            5), (1,), (2,), (3,), (1,)),
        ]  # fmt: skip
        found = []
        for shape, axes, size, stride, dilation in rows:
            attrs = _attributes(axes, size, stride, dilation)
            outer = list(shape)
            for axis, n, s, d in zip(axes, size, stride, dilation, strict=True):
                outer[axis] = count(shape[axis], n, s, d)
            found.append(sample((*outer, *size), attrs={**attrs, "shape": shape}))
        return found

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        attrs = {k: v for k, v in node.attrs if k != "shape"}
        return (b.emit("window", only(cotangents), **attrs),)  # type: ignore[arg-type]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        amounts, shape = self.amounts(node), node.ints("shape")
        zero = const(0, node.inputs[0].dtype)

        apart = [size <= stride and dilation == 1 for _, size, stride, dilation in amounts]

        def element(axes: tuple[Affine, ...]) -> tuple[Expr, ...]:
            place, inside, conditions = list(index), list[Index](), list[Expr]()
            left = iter(axes)
            for (axis, size, stride, dilation), alone in zip(amounts, apart, strict=True):
                windows = count(shape[axis], size, stride, dilation)
                if alone:
                    place[axis], r, more = _only(index[axis], shape[axis], size, stride, windows)
                else:
                    r = next(left)
                    start = added(index[axis], scaled(r, -dilation, 0))
                    place[axis], more = _quotient(start, stride, windows)
                inside.append(r)
                conditions += more
            return (ctx.read(0, (*place, *inside), conjunction(conditions), zero),)

        sizes = [n for (_, n, _, _), alone in zip(amounts, apart, strict=True) if not alone]
        return ctx.fold("sum", sizes, element)[0] if sizes else element(())[0]

    def dims(self, node: Node) -> DimMap:
        moved = {axis for axis, *_ in self.amounts(node)}
        return tuple((0, d, d) for d in range(node.output.type.rank) if d not in moved)


def _attributes(
    axes: tuple[int, ...],
    size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> dict[str, tuple[int, ...]]:
    return {"axes": axes, "size": size, "stride": stride, "dilation": dilation}


def _only(
    place: Index, extent: int, size: int, stride: int, windows: int
) -> tuple[Index, Index, list[Expr]]:
    """Of windows that lie apart: the one that may reach `place`, the place in it, and the
    conditions under which it does."""
    if stride == 1:
        return place, Affine(), within(place, None, windows if windows < extent else None)
    step, value = const(stride, I32), index_expr(place)
    window, inside = apply("div", value, step), apply("rem", value, step)
    more = within(inside, None, size if size < stride else None)
    short = windows * stride < extent
    return window, inside, [*more, *within(window, None, windows if short else None)]


def _quotient(place: Index, stride: int, extent: int) -> tuple[Index, list[Expr]]:
    """``place / stride``, and the conditions under which it is a whole number in ``0 <= x <
    extent``."""
    if stride == 1:
        return place, within(place, 0, extent)
    step, value = const(stride, I32), index_expr(place)
    whole = apply("eq", apply("rem", value, step), const(0, I32))
    bounds = within(place, 0, stride * (extent - 1) + 1)
    return apply("div", value, step), [whole, *bounds]
