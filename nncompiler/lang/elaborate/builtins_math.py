"""Builtin functions that compute: elementwise, choices, conversions, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

from nncompiler.errors import UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.types import BOOL, I32, U8, broadcast_shapes
from nncompiler.lang.elaborate import static
from nncompiler.lang.elaborate.builtin import axes_of, axis_of, define, flag
from nncompiler.lang.elaborate.context import Context
from nncompiler.lang.elaborate.tensor import (
    cast,
    common_dtype,
    elementwise,
    floating,
    mismatch,
    show,
    tensor,
    truth,
)
from nncompiler.lang.elaborate.values import (
    Argument,
    Arguments,
    Builtin,
    V,
    is_number,
    is_static,
)

MATH: list[Builtin] = []


def _function(name: str, python: Callable[[float], float], doc: str, example: str) -> None:
    """A function of one float, computed by Python when its argument is known."""

    @define(MATH, f"{name}(x)", doc, example, "elementwise")
    def run(ctx: Context, a: Arguments) -> V:
        x = a["x"]
        if is_number(x.value):
            assert isinstance(x.value, (int, float))
            return static.apply(name, python, x.value, a.span)
        return ctx.emit(name, floating(ctx, x, name), span=a.span)


_function("exp", math.exp, "e to the power of x", "exp(x)")
_function("log", math.log, "natural logarithm", "log(x)")
_function("sqrt", math.sqrt, "square root", "sqrt(x)")
_function("rsqrt", lambda v: 1 / math.sqrt(v), "1 / sqrt(x)", "rsqrt(x)")
_function("tanh", math.tanh, "hyperbolic tangent", "tanh(x)")
_function("sigmoid", lambda v: 1 / (1 + math.exp(-v)) if v > -700 else 0.0,
          "logistic function 1 / (1 + exp(-x))", "sigmoid(x)")
_function("erf", math.erf, "error function", "erf(x)")
_function("sin", math.sin, "sine", "sin(x)")
_function("cos", math.cos, "cosine", "cos(x)")
_function("floor", math.floor, "largest whole number not above x", "floor(x)")


@define(MATH, "abs(x)", "absolute value; its gradient at 0 is 0", "abs(x)", "elementwise")
def _abs(ctx: Context, a: Arguments) -> V:
    return _signed(ctx, a, "abs", abs)


@define(MATH, "sign(x)", "-1, 0 or 1; no gradient", "sign(x)", "elementwise")
def _sign(ctx: Context, a: Arguments) -> V:
    return _signed(ctx, a, "sign", lambda v: (v > 0) - (v < 0))


def _signed(ctx: Context, a: Arguments, name: str, python: Callable[[float], float]) -> V:
    value = a["x"].value
    if is_number(value):
        assert isinstance(value, (int, float))
        return static.bounded(python(value), a.span)
    if isinstance(value, Value) and value.dtype == I32:
        return ctx.emit(name, value, span=a.span)
    return ctx.emit(name, floating(ctx, a["x"], name), span=a.span)


@define(MATH, "pow(x, y)", "x to the power of y, as `x ** y`", "pow(abs(x), 1.5)", "elementwise")
def _pow(ctx: Context, a: Arguments) -> V:
    x, y = a["x"], a["y"]
    if is_number(x.value) and is_number(y.value):
        return static.arithmetic("**", x.value, y.value, a.span)  # type: ignore[arg-type]
    return elementwise(ctx, "pow", x, y, a.span)


@define(MATH, "where(condition, a, b)", "an element of a where the condition holds, of b "
        "elsewhere", "where(x > 0, x, 0.1 * x)", "elementwise")
def _where(ctx: Context, a: Arguments) -> V:
    condition = truth(ctx, a["condition"], "where")
    dtype = common_dtype(ctx, "`where`", a["a"], a["b"], a.span)
    if isinstance(a["a"].value, bool) and isinstance(a["b"].value, bool):
        dtype = BOOL
    left, right = tensor(ctx, a["a"], dtype), tensor(ctx, a["b"], dtype)
    joined = broadcast_shapes(left.shape, right.shape)
    if joined is None:
        raise mismatch(ctx, "`where`", left, right, a["a"], a["b"], a.span)
    if broadcast_shapes(condition.shape, joined) is None:
        raise mismatch(ctx, "the condition of `where` and its choices", condition,
                       left if len(left.shape) >= len(right.shape) else right,
                       a["condition"], a["a"], a.span)
    return ctx.emit("where", condition, left, right, span=a.span)


@define(MATH, "stop_gradient(x)", "x, through which no gradient flows", "stop_gradient(x)",
        "elementwise")
def _stop_gradient(ctx: Context, a: Arguments) -> V:
    if is_static(a["x"].value):
        return a["x"].value
    return ctx.emit("stop_gradient", tensor(ctx, a["x"]), span=a.span)


# Conversions ------------------------------------------------------------------------------------


def _conversion(name: str, doc: str) -> None:
    @define(MATH, f"{name}(x)", doc, f"{name}(x)", "conversion")
    def run(ctx: Context, a: Arguments) -> V:
        dtype = ctx.float_type(name)
        value = a["x"].value
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, (int, float)):
            if dtype == BOOL:
                return ctx.constant(value != 0, BOOL, a.span)
            plain: float = float(value) if dtype.is_float else int(value)
            return tensor(ctx, Argument(plain, a.span), dtype)
        return cast(ctx, tensor(ctx, a["x"]), dtype, a.span)


_conversion("f32", "the default float (f64 under `--dtype f64`)")
_conversion("f64", "64-bit float")
_conversion("i32", "32-bit integer, towards zero, saturating")
_conversion("u8", "8-bit integer from 0 to 255, towards zero, saturating")
_conversion("bool", "whether x is not 0")


# Reductions -------------------------------------------------------------------------------------

_AXES = "over all axes, or over `axis` (a number or a list); `keepdims=true` leaves extents of 1"


def _reduce(ctx: Context, a: Arguments, op: str, x: Value) -> Value:
    axes = axes_of(a["axis"], x)
    keepdims = flag(a["keepdims"], "`keepdims`")
    return ctx.emit(op, x, span=a.span, axes=axes, keepdims=keepdims)


def _countable(ctx: Context, found: Argument, name: str) -> Value:
    """Numbers to add up; truth values count as 0 and 1."""
    x = tensor(ctx, found)
    if x.dtype == BOOL:
        return cast(ctx, x, ctx.dtype, found.span)
    return _widened(ctx, x, name, found)


def _widened(ctx: Context, x: Value, name: str, found: Argument) -> Value:
    if x.dtype == U8:
        raise UserError("NN0153", f"`{name}` of u8 would wrap around at 256", found.span,
                        help="convert first: `f32(x)` or `i32(x)`")
    return x


@define(MATH, "sum(x, [axis], keepdims=false)", f"sum {_AXES}; bool counts as 0 and 1",
        "sum(x, axis=-1)", "reduction")
def _sum(ctx: Context, a: Arguments) -> V:
    return _reduce(ctx, a, "reduce_sum", _countable(ctx, a["x"], "sum"))


@define(MATH, "mean(x, [axis], keepdims=false)", f"mean {_AXES}; bool counts as 0 and 1",
        "mean(x)", "reduction")
def _mean(ctx: Context, a: Arguments) -> V:
    x = _countable(ctx, a["x"], "mean")
    if not x.dtype.is_float:
        floating(ctx, Argument(x, a["x"].span), "mean")
    total = _reduce(ctx, a, "reduce_sum", x)
    count = math.prod(x.shape[axis] for axis in axes_of(a["axis"], x))
    return ctx.emit("div", total, ctx.constant(float(count), x.dtype, a.span), span=a.span)


@define(MATH, "prod(x, [axis], keepdims=false)", f"product {_AXES}", "prod(x, axis=0)",
        "reduction")
def _prod(ctx: Context, a: Arguments) -> V:
    return _reduce(ctx, a, "reduce_prod", floating(ctx, a["x"], "prod"))


def _extremum(name: str, word: str, python: Callable[..., float]) -> None:
    doc = (f"the {word} of two, element by element (a tie gives the gradient to the first); "
           f"with one tensor, the {word} {_AXES}")

    @define(MATH, f"{name}(x, [y], [axis], keepdims=false)", doc, f"{name}(0, x)", "reduction")
    def run(ctx: Context, a: Arguments) -> V:
        x, y = a["x"], a["y"]
        if not a.given("y"):
            found = tensor(ctx, x)
            if found.dtype == BOOL:
                floating(ctx, x, name)
            return _reduce(ctx, a, f"reduce_{name}", found)
        if a.given("axis"):
            raise UserError("NN0112", f"`{name}` takes a second operand or an axis, not both",
                            a["axis"].span)
        if is_number(x.value) and is_number(y.value):
            return python(x.value, y.value)
        return elementwise(ctx, name, x, y, a.span)


_extremum("max", "larger", max)
_extremum("min", "smaller", min)


def _position(name: str, word: str) -> None:
    @define(MATH, f"{name}(x, axis=-1, keepdims=false)",
            f"index (i32) of the {word} element along an axis, the first among ties",
            f"{name}(x)", "reduction")
    def run(ctx: Context, a: Arguments) -> V:
        x = tensor(ctx, a["x"])
        if not x.shape or x.dtype == BOOL:
            raise UserError("NN0136", f"`{name}` expected a tensor of numbers with an axis, "
                            f"but found {x.dtype}{show(x)}", a["x"].span)
        return ctx.emit(name, x, span=a.span, axes=(axis_of(a["axis"], x),),
                        keepdims=flag(a["keepdims"], "`keepdims`"))


_position("argmax", "largest")
_position("argmin", "smallest")

