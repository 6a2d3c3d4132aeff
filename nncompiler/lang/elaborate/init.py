"""Initialisers: the functions that name them, and the graph `init` that draws every parameter.

`uniform` and `normal` with sizes are random draws of the model instead.

Number k of the parameters and, after them, the states draws from the Philox streams 2k and 2k + 1
of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.types import BOOL, U32, TensorType
from nncompiler.lang.elaborate.builtin import define, number
from nncompiler.lang.elaborate.builtins_shape import constant
from nncompiler.lang.elaborate.context import Context, is_float32_range
from nncompiler.lang.elaborate.draws import draw_normal, draw_uniform, normal, uniform
from nncompiler.lang.elaborate.values import (
    Argument,
    Arguments,
    Builtin,
    Initial,
    Parameter,
    V,
)

INITIALISERS: list[Builtin] = []
_BOTH = "with sizes a tensor drawn in each training step, without the initialiser"


@define(INITIALISERS, "zeros(sizes...)", "zeros; without sizes, the initialiser", "zeros()",
        "initialiser")
def _zeros(ctx: Context, a: Arguments) -> V:
    return constant(ctx, 0.0, a) if a.rest else Initial("constant", (0.0,))


@define(INITIALISERS, "ones(sizes...)", "ones; without sizes, the initialiser", "ones()",
        "initialiser")
def _ones(ctx: Context, a: Arguments) -> V:
    return constant(ctx, 1.0, a) if a.rest else Initial("constant", (1.0,))


@define(INITIALISERS, "constant(value)", "every element the same", "constant(0.1)", "initialiser")
def _constant(ctx: Context, a: Arguments) -> V:
    return Initial("constant", (_setting(a["value"], "`value`"),))


@define(INITIALISERS, "uniform(low, high, sizes...)", f"uniform in [low, high); {_BOTH}",
        "uniform(-0.1, 0.1)", "initialiser")
def _uniform(ctx: Context, a: Arguments) -> V:
    low, high = _setting(a["low"], "`low`"), _setting(a["high"], "`high`")
    if low > high:
        raise UserError("NN0165", f"expected a range from low to high, but found {low} and {high}",
                        a.span, help="the smaller bound comes first")
    return draw_uniform(ctx, a, low, high) if a.rest else Initial("uniform", (low, high))


@define(INITIALISERS, "normal(mean=0.0, std=1.0, sizes...)", f"normal distribution; {_BOTH}",
        "normal(0, 0.02)", "initialiser")
def _normal(ctx: Context, a: Arguments) -> V:
    mean, std = _setting(a["mean"], "`mean`"), _setting(a["std"], "`std`")
    if std < 0:
        raise UserError("NN0165", f"expected a standard deviation of 0 or more, but found {std}",
                        a["std"].span)
    return draw_normal(ctx, a, mean, std) if a.rest else Initial("normal", (mean, std))


def _setting(found: Argument, what: str) -> float:
    value = number(found, what)
    if not is_float32_range(value):
        raise UserError("NN0155", f"the number {value} is too large for f32", found.span)
    return value


def _scaled(name: str, doc: str) -> None:
    @define(INITIALISERS, f"{name}()", doc, f"{name}()", "initialiser")
    def run(ctx: Context, a: Arguments) -> V:
        return Initial(name)


_scaled("glorot_uniform", "uniform, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)")
_scaled("glorot_normal", "normal, variance 2 / (fan_in + fan_out)")
_scaled("he_uniform", "uniform, variance 2 / fan_in (He et al. 2015)")
_scaled("he_normal", "normal, variance 2 / fan_in")


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs per unit: [in, out], or [out, in, kernel...] from three axes on."""
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    if len(shape) == 2:
        return shape[0], shape[1]
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def init_function(parameters: Sequence[tuple[str, Parameter]]) -> Function:
    """``init``: from the seed, one result per parameter and state."""
    b = Builder("init")
    seed = b.param("header", "seed", TensorType(U32, (2,)))
    results = []
    for k, (name, p) in enumerate(parameters):
        with b.at(p.where or p.span):
            results.append((name, _draw(b, seed, k, p)))
    return b.finish(results)


def _draw(b: Builder, seed: Value, k: int, p: Parameter) -> Value:
    dtype = p.type.dtype
    fan_in, fan_out = fans(p.type.shape)

    def words(stream: int) -> Value:
        return b.emit("philox", seed, b.const(0, U32), shape=p.type.shape, stream=stream)

    match p.initial.kind:
        case "constant":
            number = p.initial.settings[0]
            if dtype.is_float:
                return b.full(float(np.float32(number)), p.type)
            return b.full(bool(number) if dtype == BOOL else int(number), p.type)
        case "uniform":
            low, high = p.initial.settings
            return uniform(b, words(2 * k), low, high, dtype)
        case "normal":
            mean, std = p.initial.settings
            return normal(b, words(2 * k), words(2 * k + 1), mean, std, dtype)
    name, _, distribution = p.initial.kind.partition("_")
    variance = 2 / (fan_in + fan_out) if name == "glorot" else 2 / fan_in
    if distribution == "uniform":
        bound = math.sqrt(3 * variance)
        return uniform(b, words(2 * k), -bound, bound, dtype)
    return normal(b, words(2 * k), words(2 * k + 1), 0.0, math.sqrt(variance), dtype)
