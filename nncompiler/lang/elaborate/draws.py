"""Random numbers: bits to distributions, and the draws of a model in training.

Values are formed in f64 and rounded to f32, so that an f64 model gets the same numbers as an f32
one. Every draw in the model has a Philox stream of its own, numbered in the order of elaboration
behind those of the initialisers, and the draw number is that of the step. A draw in the body of a
scan is made before the scan, for all steps, and stepped along.
"""

from __future__ import annotations

import math

import numpy as np

from nncompiler.errors import Span, UserError
from nncompiler.ir.graph import Builder, Value
from nncompiler.ir.model import header_types
from nncompiler.ir.types import F32, F64, U32, DType
from nncompiler.lang.elaborate.builtin import define, number, sizes
from nncompiler.lang.elaborate.context import Context, check_elements
from nncompiler.lang.elaborate.region import Region
from nncompiler.lang.elaborate.tensor import cast, floating
from nncompiler.lang.elaborate.values import Arguments, Builtin, V

RANDOM: list[Builtin] = []
FIRST_STREAM = 2**16


# Distributions ----------------------------------------------------------------------------------


def _affine(b: Builder, x: Value, factor: float, offset: float) -> Value:
    return b.emit("add", b.emit("mul", x, b.const(factor, F64)), b.const(offset, F64))


def _fraction(b: Builder, words: Value) -> Value:
    """Random words as multiples of 2**-32 in [0, 1)."""
    return b.emit("mul", b.emit("cast", words, dtype=F64.name), b.const(2.0**-32, F64))


def uniform(b: Builder, words: Value, low: float, high: float, dtype: DType) -> Value:
    """low + (high - low) u, u in [0, 1); what f32 rounds to `high` goes just below."""
    drawn = b.emit("cast", _affine(b, _fraction(b, words), high - low, low), dtype=F32.name)
    if high > low:
        below = float(np.nextafter(np.float32(high), np.float32(-np.inf)))
        drawn = b.emit("min", drawn, b.const(below, F32))
    return drawn if dtype == F32 else b.emit("cast", drawn, dtype=dtype.name)


def normal(b: Builder, words: Value, more: Value, mean: float, std: float, dtype: DType) -> Value:
    """Box and Muller: sqrt(-2 log u) cos(2 pi v), u in (0, 1], v in [0, 1)."""
    above = b.emit("add", b.emit("cast", words, dtype=F64.name), b.const(1.0, F64))
    u = b.emit("mul", above, b.const(2.0**-32, F64))
    radius = b.emit("sqrt", b.emit("mul", b.emit("log", u), b.const(-2.0, F64)))
    angle = b.emit("cast", more, dtype=F64.name)
    wave = b.emit("cos", b.emit("mul", angle, b.const(2.0**-31 * math.pi, F64)))
    return _rounded(b, _affine(b, b.emit("mul", radius, wave), std, mean), dtype)


def _rounded(b: Builder, x: Value, dtype: DType) -> Value:
    narrow = b.emit("cast", x, dtype=F32.name)
    return narrow if dtype == F32 else b.emit("cast", narrow, dtype=dtype.name)


# Draws ------------------------------------------------------------------------------------------


def _words(ctx: Context, shape: tuple[int, ...], span: Span) -> Value:
    """Fresh random words of the step."""
    check_elements(shape, span)
    if not ctx.training:
        raise UserError("NN0212", "a random draw outside training", span,
                        help="prediction and evaluation give the same for the same input: draw in "
                             "`if training { ... }`, or make the random numbers an input")
    place = ctx.site or span
    stream, ctx.streams = FIRST_STREAM + ctx.streams, ctx.streams + 1

    def emit(b: Builder, shape: tuple[int, ...]) -> Value:
        if isinstance(b, Region):
            return b.step_of(emit(b.outer, (b.extent, *shape)), 0, "random")
        check_elements(shape, span)
        with b.at(place):
            seed, draws = (_header(ctx, name) for name in ("seed", "draws"))
            return b.emit("philox", seed, draws, shape=shape, stream=stream)

    return emit(ctx.b, shape)


def _header(ctx: Context, name: str) -> Value:
    """A value at the head of the state as an argument of the model's graph."""
    if name not in ctx.header:
        ctx.header[name] = ctx.root.param("header", f"#{name}", header_types(ctx.dtype)[name])
    return ctx.header[name]


def _shape(a: Arguments) -> tuple[int, ...]:
    """Sizes, or those of a tensor."""
    if len(a.rest) == 1 and isinstance(a.rest[0].value, Value):
        return a.rest[0].value.shape
    return sizes(a.rest)


def draw_uniform(ctx: Context, a: Arguments, low: float, high: float) -> Value:
    words = _words(ctx, _shape(a), a.span)
    return ctx.build(a.span, lambda b: uniform(b, words, low, high, ctx.dtype))


def draw_normal(ctx: Context, a: Arguments, mean: float, std: float) -> Value:
    words, more = (_words(ctx, _shape(a), a.span) for _ in range(2))
    return ctx.build(a.span, lambda b: normal(b, words, more, mean, std, ctx.dtype))


@define(RANDOM, "bernoulli(p, sizes...)", "1 with probability p, else 0, drawn in each training "
        "step; without sizes p is a tensor and each element has its own; no gradient",
        "bernoulli(0.5, 3, 4)", "random")
def _bernoulli(ctx: Context, a: Arguments) -> V:
    if not a.rest:
        p = floating(ctx, a["p"], "bernoulli")
        words = _words(ctx, p.shape, a.span)
        chance = cast(ctx, p, F64, a.span)
        drawn = ctx.build(a.span, lambda b: b.emit("lt", _fraction(b, words), chance))
        return cast(ctx, drawn, ctx.dtype, a.span)
    chance_ = number(a["p"], "`p`")
    if not 0 <= chance_ <= 1:
        raise UserError("NN0165", f"expected a probability from 0 to 1, but found {chance_:g}",
                        a["p"].span)
    words = _words(ctx, _shape(a), a.span)
    # Whole words are compared: the draw is the same in f32 and f64, and certain at 0 and at 1.
    limit = min(round(chance_ * 2**32), 2**32 - 1)
    name = "le" if chance_ == 1 else "lt"
    drawn = ctx.build(a.span, lambda b: b.emit(name, words, b.const(limit, U32)))
    return cast(ctx, drawn, ctx.dtype, a.span)
