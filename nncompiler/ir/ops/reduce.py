"""Reductions: sum, max, min, prod {axes, keepdims}; argmax, argmin {axes, keepdims} of dtype i32.

NaN propagates through max and min. argmax and argmin give the first among ties; NaN beats numbers.
The sign of a sum that is zero is left open, as is the order of summation.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import DimMap, Sample, expect, expect_inputs, index_expr
from nncompiler.ir.ops.common import (
    Alongside,
    Cotangents,
    Definitions,
    Grads,
    constant_of,
    expect_axis,
    only,
    producer,
    sample,
)
from nncompiler.ir.ops.shape import inverse
from nncompiler.ir.scalar import Affine, Expr, Index
from nncompiler.ir.types import F32, F64, I32, Array, TensorType


def kept(shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """The shape that is left when `axes` are reduced."""
    if keepdims:
        return tuple(1 if d in axes else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in axes)


class Reduction(Alongside):
    """The common part. `combine` names the combination of scalars; `empty`: axes may be empty."""

    kind = "fold"
    combine: ClassVar[str]
    empty: ClassVar[bool] = True

    def axes(self, node: Node) -> tuple[int, ...]:
        return node.ints("axes")

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, axes = node.inputs[0].type, self.axes(node)
        for axis in axes:
            expect_axis(node, axis, found.rank)
        expect(
            list(axes) == sorted(set(axes)),
            f"'{node.op}' expected axes in order, each once, but found {list(axes)}",
        )
        expect(found.dtype.kind != "bool", f"'{node.op}' does not take bool operands")
        expect(
            self.empty or all(found.shape[a] for a in axes),
            f"'{node.op}' of no elements has no value, but an axis of {found} is empty",
        )
        return (found.with_shape(kept(found.shape, axes, bool(node.attr("keepdims")))),)

    @abstractmethod
    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        """The meaning, on a NumPy array."""

    def reference(self, node: Node, *inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            found = self.value(inputs[0], self.axes(node), bool(node.attr("keepdims")))
        return np.asarray(found, self.infer(node)[0].dtype.numpy)

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
            ((1,), (0,), False), ((17,), (0,), False), ((3, 33), (1,), True),
            ((16, 5), (0,), False), ((2, 3, 15), (0, 2), False), ((2, 3, 15), (0, 1), True),
            ((0, 31), (1,), False), ((2, 3), (), False),
        ]  # fmt: skip
        if self.empty:
            rows.append(((3, 0), (1,), False))
        found = [sample(s, attrs={"axes": a, "keepdims": k}) for s, a, k in rows]
        found.append(sample((4, 5), dtype=F64, attrs={"axes": (0, 1), "keepdims": False}))
        return [*found, sample((4, 5), dtype=I32, attrs={"axes": (1,), "keepdims": False})]

    def places(
        self, node: Node, index: tuple[Index, ...], axes: Sequence[Index]
    ) -> tuple[Index, ...]:
        """The operand's index at a point of the result and a point of the reduced axes."""
        reduced, dims = self.axes(node), range(node.inputs[0].type.rank)
        kept_at = [index[d] for d in dims if d not in reduced] if node.attr("keepdims") else index
        outer, inner = iter(kept_at), iter(axes)
        return tuple(next(inner if d in reduced else outer) for d in dims)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        extents = [node.inputs[0].shape[a] for a in self.axes(node)]
        if not extents:
            return ctx.read(0, index)

        def element(axes: tuple[Affine, ...]) -> tuple[Expr, ...]:
            return (ctx.read(0, self.places(node, index, axes)),)

        return ctx.fold(self.combine, extents, element)[0]

    def dims(self, node: Node) -> DimMap:
        reduced, keepdims = self.axes(node), bool(node.attr("keepdims"))
        outer = [d for d in range(node.inputs[0].type.rank) if d not in reduced]
        return tuple((0, d, d if keepdims else j) for j, d in enumerate(outer))

    def operations(self, node: Node) -> int:
        return node.inputs[0].type.size

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        if all(node.inputs[0].shape[a] == 1 for a in self.axes(node)):
            return b.emit("reshape", node.inputs[0], shape=node.output.shape)
        return None

    def spread(self, b: Builder, node: Node, value: Value) -> Value:
        """A value of the result's shape with its reduced axes put back as extents of 1."""
        shape = kept(node.inputs[0].shape, self.axes(node), True)
        return value if value.shape == shape else b.emit("reshape", value, shape=shape)


class Sum(Reduction):
    name = "reduce_sum"
    combine = "sum"
    linear = True
    proportional = ((0,),)

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype)

    def vanishes(self, x: Value, axes: Sequence[int], definitions: Definitions) -> bool:
        """What lies above a mean is as much as what lies below."""
        node = producer(x, "sub", definitions)
        if node is None or node.inputs[0].shape != x.shape:
            return False
        whole, mean = node.inputs
        shape = (1,) * (x.type.rank - mean.type.rank) + mean.shape
        return shape == kept(x.shape, axes, True) and is_mean(mean, whole, axes, definitions)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        d = self.spread(b, node, only(cotangents))
        return (b.emit("broadcast", d, shape=node.inputs[0].shape),)


def is_mean(value: Value, x: Value, axes: Sequence[int], definitions: Definitions) -> bool:
    """Whether `value`, in whatever shape, is the sum of `x` along `axes` divided by their extents.
    """
    while view := producer(value, "reshape", definitions):
        value = view.inputs[0]
    count = math.prod(x.shape[a] for a in axes)
    scaled = producer(value, "mul", definitions) or producer(value, "div", definitions)
    if scaled is None:
        return False
    product = scaled.op == "mul"
    for total, number in (scaled.inputs, *([scaled.inputs[::-1]] if product else [])):
        found = constant_of(number, definitions)
        whole = producer(total, "reduce_sum", definitions)
        if found and whole is not None and whole.inputs[0] == x:
            share = found if product else 1 / found
            close = math.isclose(share * count, 1, rel_tol=1e-6)
            return close and whole.ints("axes") == tuple(axes)
    return False


class Prod(Reduction):
    name = "reduce_prod"
    combine = "prod"

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        """The product of all other elements: with one zero only that one has any."""
        x, dtype = node.inputs[0], node.output.dtype
        zero, one = b.const(0.0, dtype), b.const(1.0, dtype)
        is_zero = b.emit("eq", x, zero)
        safe = b.emit("where", is_zero, one, x)
        axes, ones = self.axes(node), b.emit("cast", is_zero, dtype=dtype.name)
        product = b.emit("reduce_prod", safe, axes=axes, keepdims=True)
        zeros = b.emit("reduce_sum", ones, axes=axes, keepdims=True)
        at_zero = b.emit("where", b.emit("eq", zeros, one), product, zero)
        elsewhere = b.emit("where", b.emit("eq", zeros, zero), b.emit("div", product, safe), zero)
        others = b.emit("where", is_zero, at_zero, elsewhere)
        return (b.emit("mul", self.spread(b, node, only(cotangents)), others),)


class Extremum(Reduction):
    """The largest or smallest element. All of the gradient goes to the first that is extreme."""

    empty = False
    arg: ClassVar[str]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        x, axes, d = node.inputs[0], self.axes(node), only(cotangents)
        if not axes:
            return (d,)
        zero = b.const(0.0, node.output.dtype)
        outer = [a for a in range(x.type.rank) if a not in axes]
        perm = (*outer, *axes)
        rows = b.emit("transpose", x, perm=perm)
        last = tuple(range(len(outer), x.type.rank))
        first = b.emit(self.arg, rows, axes=last, keepdims=True)
        positions = b.emit("iota", shape=tuple(x.shape[a] for a in axes), dtype=I32.name)
        taken = b.emit("eq", positions, first)
        routed = b.emit("where", taken, b.emit("reshape", d, shape=first.shape), zero)
        return (b.emit("transpose", routed, perm=inverse(perm)),)


class Max(Extremum):
    __doc__ = Extremum.__doc__
    name = "reduce_max"
    combine = "max"
    arg = "argmax"

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.max(x, axis=axes, keepdims=keepdims)


class Min(Extremum):
    __doc__ = Extremum.__doc__
    name = "reduce_min"
    combine = "min"
    arg = "argmin"

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.min(x, axis=axes, keepdims=keepdims)


class ArgReduction(Reduction):
    """The position of an extremum: along one axis, or in row-major order along several."""

    differentiable = False
    empty = False

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect(bool(self.axes(node)), f"'{node.op}' expected an axis")
        return (super().infer(node)[0].with_dtype(I32),)

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
            ((1,), (0,), False), ((33,), (0,), True), ((16, 3), (0,), False),
            ((2, 17, 3), (1,), False), ((0, 15), (1,), True), ((3, 2, 5), (1, 2), True),
            ((4, 3, 2, 3), (0, 1, 3), False),
        ]  # fmt: skip
        found = [
            sample(s, dtype=d, attrs={"axes": a, "keepdims": k})
            for d in (F32, I32)
            for s, a, k in rows
        ]
        return [*found, sample((4, 5), dtype=F64, attrs={"axes": (1,), "keepdims": False})]

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        extents = [node.inputs[0].shape[a] for a in self.axes(node)]

        def element(axes: tuple[Affine, ...]) -> tuple[Expr, ...]:
            position = Affine()
            for axis, n in zip(axes, extents, strict=True):
                position = position * n + axis
            return ctx.read(0, self.places(node, index, axes)), index_expr(position)

        return ctx.fold(self.combine, extents, element)[1]

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        if all(node.inputs[0].shape[a] == 1 for a in self.axes(node)):
            return b.full(0, node.output.type)
        return None


def _position(
    find: Callable[..., Any], x: Any, axes: tuple[int, ...], keepdims: bool
) -> Any:
    outer = [d for d in range(x.ndim) if d not in axes]
    rows = x.transpose(*outer, *axes)
    count = math.prod(x.shape[d] for d in axes)
    found = find(rows.reshape(*rows.shape[: len(outer)], count), axis=-1)
    return found.reshape(kept(x.shape, axes, True)) if keepdims else found


class ArgMax(ArgReduction):
    name = "argmax"
    combine = "argmax"

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return _position(np.argmax, x, axes, keepdims)


class ArgMin(ArgReduction):
    name = "argmin"
    combine = "argmin"

    def value(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return _position(np.argmin, x, axes, keepdims)
