"""Builtin functions that move data or make it: shapes, joins, indices, constants."""

from __future__ import annotations

import math

from nncompiler.errors import UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.types import I32, broadcast_shapes
from nncompiler.lang.elaborate.builtin import (
    axis_of,
    define,
    integer,
    numbers,
    sizes,
    tensors,
)
from nncompiler.lang.elaborate.builtin import number as read_number
from nncompiler.lang.elaborate.context import Context, check_elements, tensor_type
from nncompiler.lang.elaborate.tensor import cast, matmul, show, tensor
from nncompiler.lang.elaborate.types import size
from nncompiler.lang.elaborate.values import (
    Argument,
    Arguments,
    Builtin,
    Tuple,
    V,
    describe,
    is_static,
)

SHAPE: list[Builtin] = []


@define(SHAPE, "size(x, axis=0)", "the size of an axis, or the length of a list: a number known "
        "at compile time", "size(x, 1)", "shape")
def _size(ctx: Context, a: Arguments) -> V:
    value = a["x"].value
    if isinstance(value, Tuple):
        return len(value.items)
    x = tensor(ctx, a["x"])
    return x.shape[axis_of(a["axis"], x)]


@define(SHAPE, "shape_of(x)", "the sizes of all axes as a list", "reshape(x + 1, shape_of(x))",
        "shape")
def _shape_of(ctx: Context, a: Arguments) -> V:
    return Tuple(tensor(ctx, a["x"]).shape, literal=True)


@define(SHAPE, "is_tensor(x)", "whether x is a tensor, and not a number or truth value known at "
        "compile time", "is_tensor(x)", "shape")
def _is_tensor(ctx: Context, a: Arguments) -> V:
    return isinstance(a["x"].value, Value)


@define(SHAPE, "reshape(x, sizes...)", "the same elements in row-major order under another "
        "shape; one size may be -1", "reshape(x, 2, -1)", "shape")
def _reshape(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    given = numbers(a.rest, "a size")
    known = [1 if _is_rest(g) else size(g.value, g.span) for g in given]
    total, count = math.prod(x.shape), math.prod(known)
    rest = [k for k, g in enumerate(given) if _is_rest(g)]
    if len(rest) > 1:
        raise UserError("NN0139", "only one size can be -1", given[rest[1]].span)
    if rest and total % count == 0:
        known[rest[0]] = total // count
    if math.prod(known) != total:
        shown = [-1 if k in rest else n for k, n in enumerate(known)]
        raise UserError("NN0139", f"{show(x)} has {total} elements, which do not fit the shape "
                        f"{shown}", a.span, notes=[ctx.origin("the operand", x)])
    return ctx.emit("reshape", x, span=a.span, shape=tuple(known))


def _is_rest(found: Argument) -> bool:
    return found.value == -1 and isinstance(found.value, int)


@define(SHAPE, "reshape_like(x, like)", "x in row-major order under the shape of another "
        "tensor", "reshape_like(flatten(x), x)", "shape")
def _reshape_like(ctx: Context, a: Arguments) -> V:
    x, like = tensor(ctx, a["x"]), tensor(ctx, a["like"])
    if math.prod(x.shape) != math.prod(like.shape):
        raise UserError("NN0139", f"{show(x)} has {math.prod(x.shape)} elements, which do not fit "
                        f"the shape {show(like)}", a.span,
                        notes=[ctx.origin("the operand", x), ctx.origin("the other", like)])
    return ctx.emit("reshape", x, span=a.span, shape=like.shape)


@define(SHAPE, "flatten(x)", "all axes but the first as one", "flatten(x)", "shape")
def _flatten(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    if not x.shape:
        raise UserError("NN0136", "`flatten` expected at least one axis, but found a scalar",
                        a["x"].span)
    return ctx.emit("reshape", x, span=a.span, shape=(x.shape[0], math.prod(x.shape[1:])))


@define(SHAPE, "transpose(x, axes...)", "the axes in another order; the last two exchanged when "
        "none is given", "transpose(x)", "shape")
def _transpose(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    rank = len(x.shape)
    if not a.rest:
        if rank < 2:
            raise UserError("NN0143", f"expected at least two axes to exchange, but found "
                            f"{describe(x)}", a["x"].span)
        perm = (*range(rank - 2), rank - 1, rank - 2)
    else:
        perm = tuple(axis_of(g, x) for g in numbers(a.rest, "an axis"))
    if sorted(perm) != list(range(rank)):
        raise UserError("NN0143", f"expected each of the {rank} axes of {show(x)} once, "
                        f"but found {list(perm)}", a.span)
    return ctx.emit("transpose", x, span=a.span, perm=perm)


@define(SHAPE, "broadcast(x, sizes...)", "x repeated to a shape", "broadcast(x, 2, 3, 4)",
        "shape")
def _broadcast(ctx: Context, a: Arguments) -> V:
    x, shape = tensor(ctx, a["x"]), sizes(a.rest)
    if broadcast_shapes(x.shape, shape) != shape:
        raise UserError("NN0142", f"{show(x)} does not broadcast to {list(shape)}", a.span,
                        notes=[ctx.origin("the operand", x)])
    check_elements(shape, a.span)
    return ctx.emit("broadcast", x, span=a.span, shape=shape)


@define(SHAPE, "split(x, n, axis=-1)", "n equal parts along an axis, as several values",
        "a, b = split(x, 2)", "shape")
def _split(ctx: Context, a: Arguments) -> V:
    x, n = tensor(ctx, a["x"]), size(a["n"].value, a["n"].span, "a number of parts")
    axis = axis_of(a["axis"], x)
    if x.shape[axis] % n:
        raise UserError("NN0140", f"axis {axis} of {show(x)} has {x.shape[axis]} elements, "
                        f"which do not divide into {n} equal parts", a.span,
                        notes=[ctx.origin("the operand", x)])
    part = x.shape[axis] // n
    step = (1,) * len(x.shape)
    parts: list[V] = []
    for k in range(n):
        ctx.step(a.span)
        start = tuple(k * part if d == axis else 0 for d in range(len(x.shape)))
        stop = tuple((k + 1) * part if d == axis else m for d, m in enumerate(x.shape))
        parts.append(ctx.emit("slice", x, span=a.span, start=start, stop=stop, step=step))
    return Tuple(tuple(parts))


@define(SHAPE, "concat(parts, axis=-1)", "tensors one behind the other along an axis",
        "concat([x, x], axis=0)", "shape")
def _concat(ctx: Context, a: Arguments) -> V:
    parts = tensors(ctx, a["parts"], "`concat`")
    axis = axis_of(a["axis"], parts[0])
    first = parts[0]
    for other in parts[1:]:
        rest = [(*p.shape[:axis], *p.shape[axis + 1 :]) for p in (first, other)]
        if len(first.shape) != len(other.shape) or rest[0] != rest[1]:
            raise UserError("NN0141", f"{show(first)} and {show(other)} differ in more than "
                            f"axis {axis}", a["parts"].span,
                            notes=[ctx.origin("one", first), ctx.origin("the other", other)])
    return ctx.emit("concat", *parts, span=a.span, axis=axis)


@define(SHAPE, "stack(parts, axis=0)", "tensors or numbers of one shape along a new axis",
        "stack([x, x])", "shape")
def _stack(ctx: Context, a: Arguments) -> V:
    parts = tensors(ctx, a["parts"], "`stack`")
    other = next((p for p in parts if p.shape != parts[0].shape), None)
    if other is not None:
        raise UserError("NN0141", f"`stack` expected equal shapes, but found {show(parts[0])} "
                        f"and {show(other)}", a["parts"].span)
    axis = axis_of(a["axis"], parts[0], extra=1)
    shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
    rows = [ctx.emit("reshape", p, span=a.span, shape=shape) for p in parts]
    return ctx.emit("concat", *rows, span=a.span, axis=axis)


@define(SHAPE, "pad(x, low, high, value=0)", "`value` before and after; `low` and `high` are "
        "one number per axis", "pad(x, [0, 1], [0, 1])", "shape")
def _pad(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    amounts = [_amounts(a[side], len(x.shape)) for side in ("low", "high")]
    shape = [n + lo + hi for n, lo, hi in zip(x.shape, *amounts, strict=True)]
    check_elements(shape, a.span)
    value = read_number(a["value"], "`value`")
    return ctx.emit("pad", x, span=a.span, low=amounts[0], high=amounts[1],
                    value=value if x.dtype.is_float else int(value))


def _amounts(found: Argument, rank: int) -> tuple[int, ...]:
    given = [integer(g, "padding") for g in numbers([found], "padding")]
    if len(given) != rank or min(given, default=0) < 0 or max(given, default=0) > 2**31:
        raise UserError("NN0137", f"expected {rank} amounts of padding, none negative, "
                        f"but found {given}", found.span)
    return tuple(given)


# Indices ----------------------------------------------------------------------------------------


def _indices(ctx: Context, found: Argument, name: str) -> Value:
    value = found.value
    if is_static(value) and not isinstance(value, float):
        return tensor(ctx, found, I32)
    x = tensor(ctx, found)
    if x.dtype.name == "u8":
        return cast(ctx, x, I32, found.span)
    if x.dtype != I32:
        raise UserError("NN0150", f"`{name}` expected indices of i32, but found {describe(x)}",
                        found.span, help="convert them: `i32(...)`")
    return x


@define(SHAPE, "one_hot(indices, depth)", "a new last axis with 1 at the index and 0 elsewhere",
        "one_hot(k, 10)", "index")
def _one_hot(ctx: Context, a: Arguments) -> V:
    indices = _indices(ctx, a["indices"], "one_hot")
    depth = size(a["depth"].value, a["depth"].span, "a depth")
    check_elements((*indices.shape, depth), a.span)
    return ctx.emit("one_hot", indices, span=a.span, depth=depth, dtype=ctx.dtype.name)


@define(SHAPE, "gather(x, indices, axis=0)", "the slices of x along an axis that the indices "
        "name; an index out of range reads the nearest", "gather(x, k)", "index")
def _gather(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    indices, axis = _indices(ctx, a["indices"], "gather"), axis_of(a["axis"], x)
    check_elements((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), a.span)
    return ctx.emit("gather", x, indices, span=a.span, axis=axis)


@define(SHAPE, "range(n)", "0, 1, ..., n - 1 as i32[n]", "range(10)", "index")
def _range(ctx: Context, a: Arguments) -> V:
    n = size(a["n"].value, a["n"].span)
    return ctx.emit("iota", span=a.span, shape=(n,), dtype=I32.name)


# Constants --------------------------------------------------------------------------------------


@define(SHAPE, "full(value, sizes...)", "a constant of any shape, of the default float",
        "full(0.5, 2, 3)", "constant")
def _full(ctx: Context, a: Arguments) -> V:
    return constant(ctx, read_number(a["value"], "`value`"), a)


def constant(ctx: Context, value: float, a: Arguments) -> Value:
    """A constant of the sizes given."""
    shape = sizes(a.rest)
    check_elements(shape, a.span)
    tensor(ctx, Argument(value, a.span))
    return ctx.build(a.span, lambda b: b.full(value, tensor_type(ctx.dtype, shape)))


@define(SHAPE, "matmul(a, b)", "`a @ b`", "matmul(x, transpose(x))", "contraction")
def _matmul(ctx: Context, a: Arguments) -> V:
    return matmul(ctx, a["a"], a["b"], a.span)
