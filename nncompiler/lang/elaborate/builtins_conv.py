"""Builtin functions over the spatial axes of [batch, channels, spatial...].

A convolution, transposed or not, is one contraction with affine maps. Padding is not data: the
maps lead outside the operand there, which reads 0. Groups are an axis of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nncompiler.errors import UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.ops.contract_spec import make_spec
from nncompiler.ir.scalar import Affine
from nncompiler.ir.types import BOOL, MAX_ELEMENTS
from nncompiler.lang.elaborate.builtin import define, integer, number, numbers
from nncompiler.lang.elaborate.context import Context, check_elements, fits
from nncompiler.lang.elaborate.tensor import common_dtype, show, tensor
from nncompiler.lang.elaborate.types import size
from nncompiler.lang.elaborate.values import Argument, Arguments, Builtin, Tuple, V, describe
from nncompiler.record import dataclass

CONVOLUTION: list[Builtin] = []

_PADDING = ("`padding` is \"valid\" (none), \"same\" (as many places as the stride allows), a "
            "number, or a list of numbers or of pairs [before, after], one per spatial axis")


@dataclass(frozen=True, slots=True)
class Sliding:
    """How a kernel moves along one spatial axis of `extent` elements."""

    extent: int
    kernel: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def places(self) -> int:
        """How many places it has."""
        return (self.low + self.extent + self.high - self.reach) // self.stride + 1

    @property
    def padded(self) -> bool:
        """Whether some place meets nothing but padding."""
        starts = range(-self.low, min(0, self.places * self.stride - self.low), self.stride)
        first = (start % self.dilation for start in starts)  # the first element not before x
        reached = (start + (self.kernel - 1) * self.dilation for start in starts)
        return (
            (self.places - 1) * self.stride - self.low >= self.extent
            or any(at >= self.extent for at in first) or any(last < 0 for last in reached)
        )

    @property
    def is_point(self) -> bool:
        """Whether the kernel needs no axis: it has one element, and stays inside."""
        return self.kernel == 1 and self.low == self.high == 0

    @property
    def spread(self) -> int:
        """The extent with ``stride - 1`` elements put between neighbours."""
        return (self.extent - 1) * self.stride + 1

    @property
    def grown(self) -> int:
        """The extent of what it was moved over, had `extent` been its places."""
        return self.spread + self.reach - 1 - self.low - self.high


# Settings per axis ------------------------------------------------------------------------------


@define(CONVOLUTION, "per_axis(value, n)", "a list of n settings: `value` itself if it is a list "
        "of n, else n times `value`", "a, b = per_axis(3, 2)", "window")
def _per_axis(ctx: Context, a: Arguments) -> V:
    n = size(a["n"].value, a["n"].span, "a number of axes")
    if n > 8:
        raise UserError("NN0162", f"expected a number of axes from 1 to 8, but found {n}",
                        a["n"].span)
    return Tuple(tuple(g.value for g in _each(a["value"], n, "a setting")), literal=True)


def _each(found: Argument, n: int, what: str) -> list[Argument]:
    """One setting per spatial axis: a list of as many, or one for all."""
    if not isinstance(found.value, Tuple):
        return [found] * n
    given = numbers([found], what)
    if len(given) != n:
        raise UserError("NN0144", f"expected {what} for each of the {n} spatial axes, but found "
                        f"{describe(found.value)}", found.span, help="one number stands for all")
    return given


def _positive(found: Argument, n: int, what: str) -> list[int]:
    return [size(g.value, g.span, what) for g in _each(found, n, what)]


def _sides(found: Argument, n: int, extents: Sequence[int], reaches: Sequence[int],
           strides: Sequence[int], grow: bool) -> list[tuple[int, int]]:
    """Padding before and after, per axis; `grow` for the transposed convolution."""
    match found.value:
        case "valid":
            return [(0, 0)] * n
        case "same":
            totals = [reach - stride if grow else
                      max((-(-extent // stride) - 1) * stride + reach - extent, 0)
                      for extent, reach, stride in zip(extents, reaches, strides, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        case str():
            raise UserError("NN0145", f"expected \"valid\" or \"same\" for the padding, but "
                            f"found \"{found.value}\"", found.span)
    return [_pair(g) for g in _each(found, n, "padding")]


def _pair(found: Argument) -> tuple[int, int]:
    """Padding of one axis: a number, or [before, after]."""
    given = numbers([found], "padding")
    sides = [integer(g, "`padding`") for g in (given * 2 if len(given) == 1 else given)]
    if len(sides) != 2 or not all(0 <= side <= MAX_ELEMENTS for side in sides):
        raise UserError("NN0145", f"expected padding of 0 or more, a number or a pair, but found "
                        f"{sides}", found.span)
    return sides[0], sides[1]


def _sliding(a: Arguments, extents: Sequence[int], kernels: Sequence[int],
             grow: bool = False) -> list[Sliding]:
    """The movement along every spatial axis."""
    n = len(extents)
    strides = _positive(a["stride"], n, "a stride")
    dilations = _positive(a["dilation"], n, "a dilation")
    reaches = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    sides = _sides(a["padding"], n, extents, reaches, strides, grow)
    found = [Sliding(extent, kernel, stride, dilation, low, high)
             for extent, kernel, stride, dilation, (low, high)
             in zip(extents, kernels, strides, dilations, sides, strict=True)]
    for k, axis in enumerate(found):
        if (axis.grown if grow else axis.places) < 1:
            raise UserError(
                "NN0144", f"a kernel that spans {axis.reach} does not fit spatial axis {k}, which "
                f"has {axis.extent} elements and padding of {axis.low} and {axis.high}",
                a.span, help=None if grow else 'padding="same" keeps the size')
    return found


# Convolutions -----------------------------------------------------------------------------------


def _operands(ctx: Context, a: Arguments, first: str) -> tuple[Value, Value]:
    """`x` and `w`, of one type and rank; the first two axes of w are `first`."""
    dtype = common_dtype(ctx, f"`{a.function}`", a["x"], a["w"], a.span)
    x, w = tensor(ctx, a["x"], dtype), tensor(ctx, a["w"], dtype)
    if not dtype.is_float:
        raise UserError("NN0151", f"`{a.function}` expected floats, but found {describe(x)}",
                        a["x"].span, help="convert first: `f32(...)`")
    if len(x.shape) < 3 or len(x.shape) != len(w.shape) or 0 in (*x.shape, *w.shape):
        raise UserError(
            "NN0144", f"`{a.function}` expected x of [batch, channels, spatial...] and w of "
            f"[{first}, kernel...], but found {show(x)} and {show(w)}", a.span,
            notes=[ctx.origin("x", x), ctx.origin("w", w)])
    return x, w


def _groups(ctx: Context, a: Arguments, x: Value, w: Value, wanted: str, fits: bool) -> None:
    if not fits:
        raise UserError(
            "NN0144", f"the channels of {show(x)}, the kernel {show(w)} and {a['groups'].value} "
            f"groups do not fit together: {wanted}", a.span,
            notes=[ctx.origin("x", x), ctx.origin("w", w)])


@define(CONVOLUTION, "convolve(x, w, stride=1, padding=0, dilation=1, groups=1)",
        "convolution (cross-correlation) of x [batch, channels, spatial...] with w [out, "
        "channels / groups, kernel...], over one to three spatial axes; " + _PADDING,
        "convolve(reshape(x, 3, 1, 4), ones(2, 1, 3), padding=1)", "window")
def _convolve(ctx: Context, a: Arguments) -> V:
    x, w = _operands(ctx, a, "out, channels / groups")
    groups = size(a["groups"].value, a["groups"].span, "a number of groups")
    _groups(ctx, a, x, w, "w has an axis of channels / groups, and groups divide the result's "
            "channels", x.shape[1] == groups * w.shape[1] and w.shape[0] % groups == 0)
    axes = _sliding(a, x.shape[2:], w.shape[2:])
    forms = [_place(k, s) for k, s in enumerate(axes)]
    return _contracted(ctx, a, x, w, groups, axes, forms, [s.places for s in axes], swapped=False)


def _place(k: int, s: Sliding) -> Affine:
    """Where the kernel reads: ``stride * h + dilation * r - low``."""
    kernel = Affine.axis(f"r{k}") * s.dilation if not s.is_point else Affine()
    return Affine.axis(f"h{k}") * s.stride + kernel + -s.low


@define(CONVOLUTION, "convolve_transposed(x, w, stride=1, padding=0, dilation=1, groups=1)",
        "transposed convolution, the input gradient of `convolve`: w is [channels, out / groups, "
        "kernel...], an axis grows to (n - 1) * stride + dilation * (kernel - 1) + 1 - padding, "
        "with \"same\" to n * stride", "convolve_transposed(reshape(x, 3, 1, 4), ones(1, 2, 3))",
        "window")
def _convolve_transposed(ctx: Context, a: Arguments) -> V:
    x, w = _operands(ctx, a, "channels, out / groups")
    groups = size(a["groups"].value, a["groups"].span, "a number of groups")
    _groups(ctx, a, x, w, "w begins with the channels of x, which groups divide",
            x.shape[1] == w.shape[0] and x.shape[1] % groups == 0)
    axes = _sliding(a, x.shape[2:], w.shape[2:], grow=True)
    check_elements((x.shape[0], groups * w.shape[1], *(s.grown for s in axes)), a.span)
    if any(s.stride > 1 for s in axes):
        none = (0,) * len(x.shape)
        interior = (0, 0, *(s.stride - 1 for s in axes))
        x = ctx.emit("pad", x, span=a.span, low=none, high=none, interior=interior, value=0.0)
    forms = [_source(k, s) for k, s in enumerate(axes)]
    return _contracted(ctx, a, x, w, groups, axes, forms, [s.grown for s in axes], swapped=True)


def _source(k: int, s: Sliding) -> Affine:
    """What a place of the result comes from: ``h + low - dilation * r``."""
    kernel = Affine.axis(f"r{k}") * -s.dilation if not s.is_point else Affine()
    return Affine.axis(f"h{k}") + kernel + s.low


def _contracted(ctx: Context, a: Arguments, x: Value, w: Value, groups: int,
                axes: Sequence[Sliding], forms: Sequence[Affine], places: Sequence[int],
                swapped: bool) -> Value:
    """The contraction, `groups` as an axis of both operands; `swapped`: w begins with channels."""
    out = w.shape[1] if swapped else w.shape[0] // groups
    channels = x.shape[1] // groups
    check_elements((x.shape[0], groups * out, *places), a.span)
    kernel = [(f"r{k}", s.kernel) for k, s in enumerate(axes) if not s.is_point]
    g = ["g"] if groups > 1 else []
    filters = ["c", "o"] if swapped else ["o", "c"]
    extents = {"g": groups, "o": out, "c": channels, **dict(kernel)}
    names = [*g, *filters, *(name for name, _ in kernel)]
    x = _reshaped(ctx, a, x, (x.shape[0], *([groups] if g else []), channels, *x.shape[2:]))
    w = _reshaped(ctx, a, w, tuple(extents[name] for name in names))
    outer = ["n", *g, "o", *(f"h{k}" for k in range(len(places)))]
    maps = ((*(Affine.axis(v) for v in ("n", *g, "c")), *forms),
            tuple(Affine.axis(name) for name in names))
    sizes = {f"h{k}": n for k, n in enumerate(places)}
    found = ctx.emit("contract", x, w, span=a.span, spec=str(make_spec(maps, outer, sizes)))
    return _reshaped(ctx, a, found, (x.shape[0], groups * out, *places))


def _reshaped(ctx: Context, a: Arguments, x: Value, shape: tuple[int, ...]) -> Value:
    return x if x.shape == shape else ctx.emit("reshape", x, span=a.span, shape=shape)


# Windows ----------------------------------------------------------------------------------------


@define(CONVOLUTION, "windows(x, size, stride=1, padding=0, dilation=1, value=0)",
        "every window of `size` over the spatial axes of x [batch, channels, spatial...], its "
        "elements as further axes at the end; padding reads `value`, a number or \"lowest\", "
        "with which no window may be all padding",
        "windows(reshape(x, 1, 1, 3, 4), 2)", "window")
def _windows(ctx: Context, a: Arguments) -> V:
    x = tensor(ctx, a["x"])
    n = len(x.shape) - 2
    if n < 1 or 0 in x.shape or x.dtype == BOOL:
        raise UserError("NN0144", f"`windows` expected numbers of [batch, channels, spatial...], "
                        f"but found {describe(x)}", a["x"].span, notes=[ctx.origin("x", x)])
    axes = _sliding(a, x.shape[2:], _positive(a["size"], n, "a size of the window"))
    if a["value"].value == "lowest" and (padded := [k for k, s in enumerate(axes) if s.padded]):
        raise UserError("NN0144", "expected every window to hold an element, but along spatial "
                        f"axis {padded[0]} some are all padding", a.span,
                        help="pad by half a window at most")
    shape = (*x.shape[:2], *(s.places for s in axes), *(s.kernel for s in axes))
    check_elements(shape, a.span)
    if any(s.low or s.high for s in axes):
        low, high = ((0, 0, *side) for side in ([s.low for s in axes], [s.high for s in axes]))
        check_elements([m + i + j for m, i, j in zip(x.shape, low, high, strict=True)], a.span)
        x = ctx.emit("pad", x, span=a.span, low=low, high=high, value=_fill(a["value"], x))
    return ctx.emit("window", x, span=a.span, axes=tuple(range(2, n + 2)),
                    dilation=tuple(s.dilation for s in axes), size=tuple(s.kernel for s in axes),
                    stride=tuple(s.stride for s in axes))


def _fill(found: Argument, x: Value) -> float | int:
    """What padding reads."""
    if found.value == "lowest":
        return {"i32": -(2**31), "u8": 0}.get(x.dtype.name, -math.inf)
    value = number(found, "`value`") if x.dtype.is_float else integer(found, "`value`")
    if not fits(value, x.dtype):
        raise UserError("NN0155", f"the number {value} does not fit {x.dtype}", found.span)
    return value
