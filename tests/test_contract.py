"""The operator `contract`: its text, convolutions, their gradients, products of matrices."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import Limitation, UserError
from nncompiler.ir.graph import Builder
from nncompiler.ir.op import Sample, lookup
from nncompiler.ir.ops.contract_spec import parse_spec
from nncompiler.ir.ops.matmul import emit_matmul, matmul_of_batches
from nncompiler.ir.types import F64, TensorType
from tests.ops_support import build, check_gradient, lowered, value_of

CONVOLUTION = "n h=4 w=4 o r s c: n 2*h+r-1 s+2*w-1 c, o r s c -> n h w o"


@pytest.mark.parametrize(
    "text",
    ["i j k: i k, k j -> i j", CONVOLUTION, "h=5 r: h-r+3, r -> h", "k: k, k ->"]
)  # fmt: skip
def test_spec_round_trip(text: str) -> None:
    """Canonical text is printed as it was read."""
    assert str(parse_spec(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "i j", "i: i -> j", "i j: i -> i", "k i: i k -> i", "i i: i -> i", "i: 2i -> i",
        "i: i+ -> i", "i: 2*3 -> i",
    ],
)  # fmt: skip
def test_spec_errors(text: str) -> None:
    """Text that is no contraction is an error, not a guess."""
    with pytest.raises(UserError, match="NN0310"):
        parse_spec(text)


def test_convolution_against_loops() -> None:
    """A strided, padded convolution equals the definition."""
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(5, 3, 3, 3))
    found = _apply_close("contract", x, w, spec=CONVOLUTION)
    padded = np.pad(x, ((0, 0), (1, 2), (1, 1), (0, 0)))
    for h in range(4):
        for v in range(4):
            window = padded[:, 2 * h : 2 * h + 3, 2 * v : 2 * v + 3]
            np.testing.assert_allclose(found[:, h, v], np.einsum("nrsc,orsc->no", window, w))


def _apply_close(name: str, *arrays: np.ndarray, **attrs: object) -> np.ndarray:
    sample = Sample(tuple(TensorType(F64, a.shape) for a in arrays), tuple(attrs.items()))
    b, node = build(name, sample)
    expected = value_of(b, node.output, arrays)
    np.testing.assert_allclose(lowered(node, arrays), expected, atol=1e-12)
    return expected


CONVOLUTIONS = [
    (CONVOLUTION, (2, 7, 8, 3), (5, 3, 3, 3)),
    ("n h=6 c r: n h+2*r-2 c, c r -> n h c", (2, 6, 3), (3, 3)),
    ("n h=3 o c r: n 3*h+r c, o c r -> n h o", (2, 11, 3), (4, 3, 3)),
    ("h=4 r: 3*h+2*r-1, r -> h", (13,), (3,)),
]


@pytest.mark.parametrize(("text", "x", "w"), CONVOLUTIONS)
def test_convolution_gradients(text: str, x: tuple[int, ...], w: tuple[int, ...]) -> None:
    """Strided, dilated and padded convolutions have gradients in both operands."""
    sample = Sample((TensorType(F64, x), TensorType(F64, w)), (("spec", text),))
    check_gradient(lookup("contract"), sample)


def test_gradient_limitation() -> None:
    """An operand read along its diagonal has no gradient yet, and the error says so."""
    b, node = build("contract", Sample((TensorType(F64, (3, 3)),), (("spec", "i: i i -> i"),)))
    with pytest.raises(Limitation, match="cannot be formed"):
        lookup("contract").gradient(b, node, (b.full(1.0, node.output.type),))


MATMULS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (1, 3, 4)), ((3,), (5, 3, 4)), ((0, 2, 3), (1, 3, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y"), MATMULS)
def test_matmul(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    """`@` follows NumPy, batch dimensions that broadcast included."""
    b = Builder("f")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in (x, y)]
    operands = [b.param("input", f"x{k}", TensorType(F64, s)) for k, s in enumerate((x, y))]
    found = value_of(b, emit_matmul(b, *operands), arrays)
    np.testing.assert_allclose(found, np.matmul(*arrays), atol=1e-12)


def test_notation_of_products() -> None:
    """Of two matrices and of a batch, one of whose operands has a dimension less."""
    assert str(matmul_of_batches([], [], 2, 2)) == "i j k: i k, k j -> i j"
    found = matmul_of_batches(["b0", "b1"], ["b1"], 4, 3)
    assert str(found) == "b0 b1 i j k: b0 b1 i k, b1 k j -> b0 b1 i j"
