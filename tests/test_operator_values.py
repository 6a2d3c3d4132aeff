"""Values of operators that their samples cannot state: NaN, ties, zeros, overflow, draws."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.op import Sample, lookup
from nncompiler.ir.ops.random import philox4x32
from nncompiler.ir.ops.shape import reshape_groups, reshape_is_affine
from nncompiler.ir.types import BOOL, F32, F64, I32, TensorType
from tests.ops_support import build, lowered, value_of


def _apply(name: str, *arrays: object, **attrs: object) -> np.ndarray:
    types = {"float32": F32, "float64": F64, "int32": I32, "bool": BOOL}
    inputs = [np.asarray(a) for a in arrays]
    operands = tuple(TensorType(types[str(a.dtype)], a.shape) for a in inputs)
    sample = Sample(operands, tuple(sorted(attrs.items())))
    b, node = build(name, sample)
    expected = value_of(b, node.output, inputs)
    np.testing.assert_array_equal(lowered(node, inputs), expected)
    return expected


def _gradients(name: str, *arrays: object, **attrs: object) -> list[np.ndarray]:
    """Gradients of the sum of the result."""
    inputs = [np.asarray(a, np.float64) for a in arrays]
    sample = Sample(tuple(TensorType(F64, a.shape) for a in inputs), tuple(sorted(attrs.items())))
    b, node = build(name, sample)
    ones = b.full(1.0, node.output.type)
    found = lookup(name).gradient(b, node, (ones,))
    return [value_of(b, g, inputs) for g in found if g is not None]


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_propagates(name: str) -> None:
    """max and min with a NaN on either side are NaN, reduced or not."""
    nan = np.array([np.nan, 1.0], np.float32)
    assert np.isnan(_apply(name, nan, nan[::-1].copy())).all()
    assert np.isnan(_apply(f"reduce_{name}", nan, axes=(0,), keepdims=False))
    assert _apply(f"arg{name}", nan[::-1].copy(), axes=(0,), keepdims=False) == 1


def test_ties_give_the_gradient_to_the_first() -> None:
    """relu written max(0, x) has gradient 0 at 0; reductions give all to the first extremum."""
    for name in ("max", "min"):
        first, second = _gradients(name, [0.0, 0.0, 0.0], [-0.0, 0.0, 0.0])
        assert first.tolist() == [1, 1, 1] and second.tolist() == [0, 0, 0]
        square = [[2.0, 2.0], [2.0, 2.0]]
        (found,) = _gradients(f"reduce_{name}", square, axes=(0, 1), keepdims=False)
        assert found.tolist() == [[1, 0], [0, 0]]


def test_gradients_at_zero() -> None:
    """abs'(0) = 0, products with zeros, powers of zero."""
    assert _gradients("abs", [0.0, -0.0])[0].tolist() == [0, 0]
    over = {"axes": (1,), "keepdims": False}
    rows = [[2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [2.0, 4.0, 3.0]]
    (found,) = _gradients("reduce_prod", rows, **over)
    assert found.tolist() == [[0, 6, 0], [0, 0, 0], [12, 6, 8]]
    base, exponent = _gradients("pow", [0.0, 0.0, -2.0], [0.0, 2.0, 3.0])
    assert base.tolist() == [0, 0, 12] and exponent[:2].tolist() == [0, 0]


def test_casts_saturate() -> None:
    """Float to integer: towards zero, saturating, NaN to 0; to bool: not equal to 0."""
    x = np.array([-1.9, 1.9, 3e9, -3e9, np.nan, np.inf], np.float32)
    least, most = -(2**31), 2**31 - 1
    assert _apply("cast", x, dtype="i32").tolist() == [-1, 1, most, least, 0, most]
    assert _apply("cast", x, dtype="u8").tolist() == [0, 1, 255, 0, 0, 255]
    truths = _apply("cast", np.array([0.0, -0.0, np.nan, 0.1]), dtype="bool")
    assert truths.tolist() == [False, False, True, True]


def test_integer_division_does_not_trap() -> None:
    """Towards zero; by zero gives 0; the least integer by -1 wraps."""
    x = np.array([7, -7, 5, -(2**31)], np.int32)
    y = np.array([2, 2, 0, -1], np.int32)
    assert _apply("div", x, y).tolist() == [3, -3, 0, -(2**31)]


def test_argmax_takes_the_first() -> None:
    """Ties, infinities and a row of -inf."""
    x = np.array([[1, 3, 3], [-np.inf] * 3, [np.nan, np.inf, np.nan]], np.float32)
    assert _apply("argmax", x, axes=(1,), keepdims=False).tolist() == [1, 0, 0]
    assert _apply("argmin", -x, axes=(1,), keepdims=False).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "00000000 00000000 00000000 00000000", "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)  # fmt: skip
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    """The known-answer vectors that Random123 publishes for philox4x32 with 10 rounds."""
    words = [np.array([int(w, 16) for w in text.split()], np.uint64) for text in (counter, key)]
    assert " ".join(f"{int(w):08x}" for w in philox4x32(*words)) == expected


def test_reshape_groups() -> None:
    """Dimensions are matched as finely as they can be, 1s left out."""
    assert reshape_groups((6, 1, 4), (2, 3, 4)) == (((0,), (0, 1)), ((2,), (2,)))
    assert reshape_groups((2, 3, 4), (6, 4)) == (((0, 1), (0,)), ((2,), (1,)))
    assert reshape_is_affine((6, 4), (2, 3, 1, 4)) and not reshape_is_affine((2, 3), (6,))
    assert not reshape_is_affine((4, 6), (3, 8)) and not reshape_is_affine((0, 3), (3, 0))
