"""Operators that only change the shape: reshape, transpose, broadcast.

Those that cut and join (slice, pad, concat) are in `join`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nncompiler.errors import CompilerBug
from nncompiler.ir.graph import Builder, Node, Value
from nncompiler.ir.index_bounds import whole
from nncompiler.ir.lowering import Lowering
from nncompiler.ir.op import (
    DimMap,
    Operator,
    Part,
    Sample,
    broadcast_dims,
    broadcast_index,
    expect,
    expect_inputs,
    fill_shape,
    index_expr,
    scaled,
)
from nncompiler.ir.ops.common import (
    Cotangents,
    Definitions,
    Grads,
    only,
    producer,
    sample,
)
from nncompiler.ir.scalar import Affine, Expr, Index, apply
from nncompiler.ir.types import F64, I32, Array, TensorType, broadcast_shapes

# --- reshape -------------------------------------------------------------------------------------

Groups = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def reshape_groups(source: tuple[int, ...], target: tuple[int, ...]) -> Groups | None:
    """The finest matching of dimensions: (source, target) dims of equal size, 1s left out.

    >>> reshape_groups((6, 1, 4), (2, 3, 4))
    (((0,), (0, 1)), ((2,), (2,)))

    None for an empty tensor unless the extents themselves agree.
    """
    a = [d for d, n in enumerate(source) if n != 1]
    b = [d for d, n in enumerate(target) if n != 1]
    if math.prod(source) == 0:
        same = [source[d] for d in a] == [target[d] for d in b]
        return tuple(((x,), (y,)) for x, y in zip(a, b, strict=True)) if same else None
    groups, i, j = [], 0, 0
    while i < len(a):
        left, right, i0, j0 = source[a[i]], target[b[j]], i, j
        while left != right:
            if left < right:
                i += 1
                left *= source[a[i]]
            else:
                j += 1
                right *= target[b[j]]
        i, j = i + 1, j + 1
        groups.append((tuple(a[i0:i]), tuple(b[j0:j])))
    return tuple(groups)


def reshape_is_affine(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether every source index is affine in the target's: no dimensions are merged."""
    groups = reshape_groups(source, target)
    return groups is not None and all(len(dims) == 1 for dims, _ in groups)


def linear_index(index: Sequence[Index], extents: Sequence[int]) -> Index:
    """The row-major number of a point in a box."""
    total: Index = Affine()
    for i, n in zip(index, extents, strict=True):
        total = scaled(total, n, 0) if total != Affine() else total
        if isinstance(total, Affine) and isinstance(i, Affine):
            total = total + i
        else:
            total = i if total == Affine() else apply("add", index_expr(total), index_expr(i))
    return total


class Reshape(Operator):
    """``reshape {shape}``: the same elements in row-major order under another shape."""

    name = "reshape"
    proportional = ((0,),)
    kind = "view"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, shape = node.inputs[0].type, node.ints("shape")
        expect(
            min(shape, default=0) >= 0 and math.prod(shape) == found.size,
            f"'reshape' expected a shape of {found.size} elements for {found}, "
            f"but found {list(shape)}",
        )
        return (found.with_shape(shape),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.array(inputs[0].reshape(node.ints("shape")))

    def samples(self) -> Sequence[Sample]:
        pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
            ((0, 3), (3, 0)), ((0, 3), (0, 1, 3)), ((17,), (1, 17, 1)), ((1, 1), ()),
            ((6, 1, 4), (2, 3, 4)), ((33, 4), (33, 2, 2)), ((2, 3, 4), (6, 4)), ((4, 6), (3, 8)),
        ]  # fmt: skip
        found = [sample(a, attrs={"shape": b}) for a, b in pairs]
        found.append(sample((15,), dtype=F64, attrs={"shape": (3, 5)}))
        return [*found, sample((8,), dtype=I32, attrs={"shape": (2, 4)})]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        return (b.emit("reshape", only(cotangents), shape=node.inputs[0].shape),)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        source, target = node.inputs[0].shape, node.ints("shape")
        groups = reshape_groups(source, target)
        if groups is None or not reshape_is_affine(source, target):
            raise CompilerBug(
                "NN0394", f"reshape of {list(source)} to {list(target)} is not affine, but a view"
            )
        place: list[Index] = [Affine()] * len(source)
        for (d,), parts in groups:
            place[d] = linear_index([index[p] for p in parts], [target[p] for p in parts])
        return ctx.read(0, tuple(place))

    def dims(self, node: Node) -> DimMap:
        groups = reshape_groups(node.inputs[0].shape, node.ints("shape")) or ()
        return tuple((0, a[0], b[0]) for a, b in groups if len(a) == len(b) == 1)

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        found, open_dims = whole(node.inputs[0].shape), set(range(len(part)))
        for _, d, j in self.dims(node):
            found = (*found[:d], part[j], *found[d + 1 :])
            open_dims.remove(j)
        cut = any(len(part[j]) < node.output.shape[j] for j in open_dims)
        return None if cut else found

    def leaf_only(self, node: Node) -> bool:
        groups = reshape_groups(node.inputs[0].shape, node.ints("shape"))
        return groups is None or any(len(a) != 1 or len(b) != 1 for a, b in groups)

    def operations(self, node: Node) -> int:
        return 0

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, shape = node.inputs[0], node.ints("shape")
        if x.shape == shape:
            return x
        if inner := producer(x, "reshape", definitions):
            return b.emit("reshape", inner.inputs[0], shape=shape)
        inner = producer(x, "broadcast", definitions)
        if inner and not inner.inputs[0].shape:
            return b.emit("broadcast", inner.inputs[0], shape=shape)
        return None


# --- transpose and broadcast ---------------------------------------------------------------------


class Transpose(Operator):
    """``transpose {perm}``: dimension `j` of the result is ``perm[j]`` of the operand."""

    name = "transpose"
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, perm = node.inputs[0].type, node.ints("perm")
        expect(
            sorted(perm) == list(range(found.rank)),
            f"'transpose' expected a permutation of {found.rank} dimensions, "
            f"but found {list(perm)}",
        )
        return (found.with_shape(tuple(found.shape[p] for p in perm)),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return np.array(np.transpose(inputs[0], node.ints("perm")), order="C")

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
            ((), ()), ((17,), (0,)), ((0, 3), (1, 0)), ((16, 33), (1, 0)), ((2, 3, 15), (2, 0, 1)),
            ((2, 1, 3, 5), (0, 2, 3, 1)),
        ]  # fmt: skip
        found = [sample(s, attrs={"perm": p}) for s, p in rows]
        return [*found, sample((3, 4, 5), dtype=F64, attrs={"perm": (1, 2, 0)})]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        return (b.emit("transpose", only(cotangents), perm=inverse(node.ints("perm"))),)

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        back = inverse(node.ints("perm"))
        return ctx.read(0, tuple(index[j] for j in back))

    def dims(self, node: Node) -> DimMap:
        return tuple((0, p, j) for j, p in enumerate(node.ints("perm")))

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        return tuple(part[j] for j in inverse(node.ints("perm")))

    def permutation(self, node: Node) -> tuple[int, ...]:
        return node.ints("perm")

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, perm = node.inputs[0], node.ints("perm")
        if perm == tuple(range(len(perm))):
            return x
        if inner := producer(x, "transpose", definitions):
            first = inner.ints("perm")
            return b.emit("transpose", inner.inputs[0], perm=tuple(first[p] for p in perm))
        inner = producer(x, "broadcast", definitions)
        if inner and not inner.inputs[0].shape:
            return b.emit("broadcast", inner.inputs[0], shape=node.output.shape)
        wide = [p for p in perm if x.shape[p] != 1]
        if wide == sorted(wide):
            return b.emit("reshape", x, shape=node.output.shape)  # only extents of 1 move
        return None


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=lambda j: perm[j]))


class Broadcast(Operator):
    """``broadcast {shape}``: NumPy's rule, to exactly `shape`."""

    name = "broadcast"
    proportional = ((0,),)
    cheap = True

    def infer(self, node: Node) -> tuple[TensorType, ...]:
        expect_inputs(node, 1)
        found, shape = node.inputs[0].type, node.ints("shape")
        expect(
            broadcast_shapes(found.shape, shape) == shape,
            f"'broadcast' expected an operand that broadcasts to {list(shape)}, but found {found}",
        )
        return (found.with_shape(shape),)

    def reference(self, node: Node, *inputs: Array) -> Array:
        return fill_shape(inputs[0], node.ints("shape"))

    def samples(self) -> Sequence[Sample]:
        rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
            ((), ()), ((), (17,)), ((1,), (0,)), ((33,), (2, 33)), ((3, 1), (3, 16)),
            ((2, 1, 5), (2, 2, 3, 5)),
        ]  # fmt: skip
        found = [sample(a, attrs={"shape": b}) for a, b in rows]
        found.append(sample((1, 3), dtype=F64, attrs={"shape": (4, 3)}))
        return [*found, sample((), dtype=I32, attrs={"shape": (3,)})]

    def gradient(self, b: Builder, node: Node, cotangents: Cotangents) -> Grads:
        return (only(cotangents),)  # the sweep sums over what was broadcast

    def lower(self, node: Node, index: tuple[Index, ...], ctx: Lowering) -> Expr:
        return ctx.read(0, broadcast_index(index, node.inputs[0].shape))

    def origin(self, node: Node, k: int, part: Part) -> Part | None:
        shape = node.inputs[0].shape
        last = part[len(part) - len(shape) :]
        return tuple(range(1) if n == 1 else r for n, r in zip(shape, last, strict=True))

    def dims(self, node: Node) -> DimMap:
        return broadcast_dims(node.inputs[0].shape, node.ints("shape"), 0)

    def simplify(self, b: Builder, node: Node, definitions: Definitions) -> Value | None:
        x, shape = node.inputs[0], node.ints("shape")
        if x.shape == shape:
            return x
        if inner := producer(x, "broadcast", definitions):
            return b.emit("broadcast", inner.inputs[0], shape=shape)
        return None
