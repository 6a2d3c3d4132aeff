"""Scalar primitives, casts and combinations in NumPy, for the Plan interpreter.

f32 transcendentals are computed in f64 and rounded once, the oracle of the generated math.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import PRIMITIVES, Const
from nncompiler.ir.types import Array, DType

A = Any  # NumPy's stubs cannot follow arithmetic on arrays of a generic element type


def _in_double(f: Callable[..., A]) -> Callable[..., A]:
    """Compute in f64; the caller rounds the result to the type wanted."""
    return lambda *args: f(*(np.asarray(a, np.float64) for a in args))


def _sigmoid(x: A) -> A:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _fma(a: A, b: A, c: A) -> A:
    """One rounding, as near as the host's widest float allows (f32: exact product, sum in f64)."""
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return np.asarray(a, wide) * np.asarray(b, wide) + np.asarray(c, wide)


def _div(a: A, b: A) -> A:
    """Towards zero for integers; a zero divisor gives 0 there."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, a.dtype.type(0), (a - np.fmod(a, safe)) // safe)


def _rem(a: A, b: A) -> A:
    safe = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, a.dtype.type(0), np.fmod(a, safe))


def _mulhi(a: A, b: A) -> A:
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        return (a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(bits)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low = (a0 * b0) >> half
    middle = a1 * b0 + low
    rest = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (rest >> half)


NUMPY: dict[str, Callable[..., A]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _div, "rem": _rem,
    "min": np.minimum, "max": np.maximum,
    "neg": np.negative, "abs": np.abs, "sign": np.sign,
    "sqrt": np.sqrt, "rsqrt": _in_double(lambda x: 1.0 / np.sqrt(x)),
    "floor": np.floor, "round": np.rint,
    "exp": _in_double(np.exp), "log": _in_double(np.log), "tanh": _in_double(np.tanh),
    "sigmoid": _in_double(_sigmoid), "erf": _in_double(np.vectorize(math.erf, otypes=[float])),
    "sin": _in_double(np.sin), "cos": _in_double(np.cos), "pow": _in_double(np.power),
    "fma": _fma,
    "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.logical_not,
    "shl": np.left_shift, "shr": np.right_shift, "mulhi": _mulhi,
    "select": np.where,
}  # fmt: skip

if missing := NUMPY.keys() ^ PRIMITIVES.keys():
    raise CompilerBug("NN0395", f"no agreement on the primitives {sorted(missing)}")


def evaluate(op: str, args: tuple[Array, ...], dtype: DType) -> Array:
    """A primitive, elementwise; integers wrap, nothing warns."""
    with np.errstate(all="ignore"):
        return np.asarray(NUMPY[op](*args)).astype(dtype.numpy, copy=False)


def convert(value: Array, dtype: DType) -> Array:
    """By value: float to integer truncates and saturates, NaN gives 0; integers wrap."""
    target = dtype.numpy
    with np.errstate(all="ignore"):
        if dtype.kind == "bool":
            return np.asarray(value != value.dtype.type(0))
        if value.dtype.kind != "f" or dtype.is_float:
            return value.astype(target)
        info: Any = np.iinfo(target)
        whole: Any = np.trunc(np.where(np.isnan(value), 0.0, value))
        # the upper limit is exclusive: 2**63 is a float, 2**63 - 1 is not
        high, low = whole >= float(int(info.max) + 1), whole <= float(info.min)
        inside = np.where(high | low, 0.0, whole).astype(target)
        return np.asarray(np.where(high, info.max, np.where(low, info.min, inside)).astype(target))


def combine(name: str, values: tuple[Array, ...], init: tuple[Const, ...]) -> tuple[Array, ...]:
    """Reduce the last axis, starting from `init`."""
    with np.errstate(all="ignore"):
        if name in ("argmax", "argmin"):
            return _pick(name == "argmax", values, init)
        start = init[0].dtype.numpy.type(init[0].value)
        function = _REDUCE[name]
        result = function.reduce(values[0], axis=-1, dtype=values[0].dtype, initial=start)
        return (np.asarray(result),)


_REDUCE: dict[str, A] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def _pick(largest: bool, values: tuple[Array, ...], init: tuple[Const, ...]) -> tuple[Array, ...]:
    """The best (value, index); NaN is best of all, and the smallest index among equals."""
    full = [
        np.concatenate([v, np.full((*v.shape[:-1], 1), c.value, v.dtype)], axis=-1)
        for v, c in zip(values, init, strict=True)
    ]
    value: Any = full[0]
    index: Any = full[1]
    nan = value != value
    best = value.max(-1, keepdims=True) if largest else value.min(-1, keepdims=True)
    candidate = np.where(nan.any(-1, keepdims=True), nan, value == best)
    limit: Any = np.iinfo(index.dtype).max
    place = np.where(candidate, index, limit).argmin(-1)[..., None]
    # among candidates only: an index may itself be the limit
    first = candidate.argmax(-1)[..., None]
    place = np.where(np.take_along_axis(candidate, place, -1), place, first)
    return tuple(np.take_along_axis(v, place, -1)[..., 0] for v in full)
