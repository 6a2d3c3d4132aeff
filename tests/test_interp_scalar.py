"""The meaning of scalars: primitives, casts, combines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nncompiler.ir.combine import COMBINES
from nncompiler.ir.interp_scalar import NUMPY, combine, convert, evaluate
from nncompiler.ir.scalar import PRIMITIVES, Const
from nncompiler.ir.types import BOOL, F32, F64, I32, I64, U8, U32, U64


def scalar(op, dtype, *args, result=None):
    arrays = tuple(np.asarray(a, dtype.numpy) for a in args)
    return evaluate(op, arrays, result or PRIMITIVES[op].result or dtype)


def test_every_primitive_has_a_meaning():
    """The table has exactly the primitives."""
    assert NUMPY.keys() == PRIMITIVES.keys()


@pytest.mark.parametrize(
    ("op", "dtype", "args", "want"),
    [
        ("div", I32, (-7, 2), -3), ("rem", I32, (-7, 2), -1), ("div", I32, (7, -2), -3),
        ("div", I32, (5, 0), 0), ("div", U32, (7, 2), 3),
        ("add", U32, (2**32 - 1, 2), 1), ("mul", I32, (2**31 - 1, 2), -2),
        ("mulhi", U32, (2**32 - 1, 2**32 - 1), 2**32 - 2),
        ("mulhi", U64, (2**64 - 1, 2**64 - 1), 2**64 - 2), ("mulhi", U8, (255, 255), 254),
        ("shr", I32, (-8, 1), -4), ("shr", U32, (2**31, 31), 1), ("shl", U32, (3, 31), 2**31),
        ("round", F32, (2.5,), 2.0), ("round", F32, (-1.5,), -2.0), ("floor", F32, (-0.5,), -1.0),
        ("max", F32, (math.nan, 1.0), math.nan), ("min", F32, (1.0, math.nan), math.nan),
        ("sign", F32, (-3.0,), -1.0), ("sigmoid", F32, (-1000.0,), 0.0),
        ("erf", F64, (0.5,), math.erf(0.5)), ("erf", F32, (0.5,), np.float32(math.erf(0.5))),
        ("fma", F32, (1 + 2**-12, 1 + 2**-12, -1 - 2**-11), 2**-24),
        ("exp", F32, (100.0,), math.inf), ("rsqrt", F32, (4.0,), 0.5),
        ("pow", F64, (2.0, 3.0), 8.0),
        ("lt", F32, (math.nan, 1.0), False), ("xor", BOOL, (True, True), False),
        ("not", BOOL, (True,), False), ("and", U32, (6, 3), 2),
    ],
)  # fmt: skip
def test_primitives(op, dtype, args, want):
    """Truncating division, wrapping, NaN propagation, ties to even, one rounding."""
    np.testing.assert_array_equal(scalar(op, dtype, *args), want)


@pytest.mark.parametrize(
    ("value", "source", "target", "want"),
    [
        (1e20, F32, I32, 2**31 - 1), (-1e20, F32, I32, -(2**31)), (math.nan, F32, I32, 0),
        (1e20, F64, I64, 2**63 - 1), (-1.0, F32, U32, 0), (-1.9, F64, I32, -1),
        (3e9, F64, U32, 3_000_000_000), (1e20, F64, U64, 2**64 - 1), (300.0, F32, U8, 255),
        (-1, I32, U32, 2**32 - 1), (2.0**31 - 1, F64, I32, 2**31 - 1), (0.5, F32, BOOL, True),
        (math.nan, F32, BOOL, True), (True, BOOL, F32, 1.0), (1e300, F64, F32, math.inf),
        (2**31, U32, I32, -(2**31)), (math.inf, F32, I64, 2**63 - 1),
    ],
)  # fmt: skip
def test_casts(value, source, target, want):
    """Float to integer saturates and NaN gives 0; integers wrap; bool is "not zero"."""
    got = convert(np.asarray(value, source.numpy), target)
    assert got.dtype == target.numpy and got == want


@pytest.mark.parametrize(
    ("name", "values", "want"),
    [
        ("argmax", [1, 3, 3, 2], (3, 1)), ("argmin", [1, 3, 1, 2], (1, 0)),
        ("argmax", [1, math.nan, 5, math.nan], (math.nan, 1)),
        ("argmin", [1, math.nan, 5, math.nan], (math.nan, 1)),
        ("argmax", [-math.inf, -math.inf], (-math.inf, 0)),
        ("argmax", [], (-math.inf, 2**31 - 1)),
    ],
)  # fmt: skip
def test_argmax(name, values, want):
    """The first of equal values, NaN before all, the identity for nothing."""
    init = COMBINES[name].identity((F32, I32))
    index = np.arange(len(values), dtype=np.int32)
    got = combine(name, (np.array(values, np.float32), index), init)
    np.testing.assert_array_equal([float(g) for g in got], want)


def test_combines_start_from_init():
    """A start value counts once; nothing at all gives just that."""
    x = np.array([[1, 2], [3, 4]], np.float32)
    start = (Const(10.0, F32),)
    assert combine("sum", (x,), start)[0].tolist() == [13, 17]
    assert combine("max", (x,), start)[0].tolist() == [10, 10]
    assert combine("prod", (x[:, :0],), start)[0].tolist() == [10, 10]
    assert math.isnan(combine("min", (np.float32([math.nan, 1]),), start)[0])
