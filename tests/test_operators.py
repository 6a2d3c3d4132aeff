"""Every registered operator against its reference, on its samples; a new one needs no edit."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import CompilerBug, Limitation, UserError
from nncompiler.ir.graph import Builder
from nncompiler.ir.op import Operator, Sample, lookup
from nncompiler.ir.ops.contract_spec import parse_spec
from nncompiler.ir.ops.matmul import emit_matmul, matmul_spec
from nncompiler.ir.ops.random import philox4x32
from nncompiler.ir.ops.shape import reshape_groups, reshape_is_affine
from nncompiler.ir.types import BOOL, F32, F64, I32, TensorType
from tests.ops_support import (
    OPERATORS,
    build,
    draw,
    lowered,
    unbroadcast,
    value_of,
    widened,
)

CASES = [
    pytest.param(op, sample, id=f"{op.name}-{n}")
    for op in OPERATORS
    for n, sample in enumerate(op.samples())
]
SMOOTH = [
    case
    for case in CASES
    if case.values[0].differentiable and any(t.dtype.is_float for t in case.values[1].inputs)
]


def _inputs(sample: Sample, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [draw(t, sample, rng) for t in sample.inputs]


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_has_samples(op: Operator) -> None:
    """Every operator gives cases to test it with."""
    assert op.samples()


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_reference_fits_shape_rule(op: Operator, sample: Sample) -> None:
    """The reference's result is of the type that `infer` says (the interpreter checks dtypes)."""
    b, node = build(op.name, sample)
    found = value_of(b, node.output, _inputs(sample))
    assert found.shape == node.output.shape


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_lowering_equals_reference(op: Operator, sample: Sample) -> None:
    """The lowering, run by NumPy, gives the reference, and its unguarded loads stay inside."""
    b, node = build(op.name, sample)
    inputs = _inputs(sample)
    expected = value_of(b, node.output, inputs)
    if op.kind == "view" and not reshape_is_affine(node.inputs[0].shape, node.output.shape):
        with pytest.raises(CompilerBug):
            lowered(node, inputs)
        return
    tolerance = {F32: 2e-5, F64: 1e-12}.get(node.output.dtype, 0)
    np.testing.assert_allclose(lowered(node, inputs), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_gradient_equals_differences(op: Operator, sample: Sample) -> None:
    """The gradient of a random projection equals central differences in a random direction."""
    sample = widened(sample)
    b, node = build(op.name, sample)
    inputs, rng = _inputs(sample), np.random.default_rng(1)
    if not node.output.dtype.is_float:
        return
    weights = rng.uniform(-1, 1, node.output.shape).astype(node.output.dtype.numpy)
    seed = b.param("input", "seed", node.output.type)
    for k, found in enumerate(op.gradient(b, node, (seed,))):
        if found is None:
            assert not sample.inputs[k].dtype.is_float or not node.output.dtype.is_float
            continue
        got = unbroadcast(value_of(b, found, [*inputs, weights]), node.inputs[k].shape)
        assert got.shape == node.inputs[k].shape
        step = rng.uniform(-1, 1, inputs[k].shape)
        shifted = [[*inputs[:k], inputs[k] + h * step, *inputs[k + 1 :]] for h in (1e-5, -1e-5)]
        ahead, behind = (op.reference(node, *x).astype(np.float64) for x in shifted)
        if node.output.dtype == F32:
            continue  # differences through a cast to f32 are noise
        expected = np.sum(weights * (ahead - behind)) / 2e-5
        assert np.sum(got * step) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_dims_line_up(op: Operator, sample: Sample) -> None:
    """Dimensions that `dims` pairs have one extent, and no two of an operand run with one."""
    _, node = build(op.name, sample)
    dims = op.dims(node)
    for k, d, j in dims:
        assert node.inputs[k].shape[d] == node.output.shape[j]
    if op.kind != "contract":
        assert len({(k, j) for k, _, j in dims}) == len(dims)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_part_is_made_of_what_it_reaches(op: Operator, sample: Sample) -> None:
    """The part of a result that `narrowed` makes of the parts of operands that `reach` asks for
    is that part of the whole; a whole result needs no more than what it reaches."""
    b, node = build(op.name, sample)
    inputs, whole = _inputs(sample), node.output.shape
    expected = value_of(b, node.output, inputs)
    shapes = [(*whole[:d], n - 1, *whole[d + 1 :]) for d, n in enumerate(whole) if n > 1]
    for shape in [whole] * op.skips + shapes:
        reach = op.reach(node, shape)
        if reach is None:
            continue
        parts = [x[tuple(map(slice, r))] for x, r in zip(inputs, reach, strict=True)]
        b = Builder("part")
        operands = [
            b.param("input", f"x{k}", t.with_shape(x.shape))
            for k, (t, x) in enumerate(zip(sample.inputs, parts, strict=True))
        ]
        found = value_of(b, op.narrowed(b, node, operands, shape), parts)
        at = tuple(map(slice, shape))
        np.testing.assert_allclose(found[at], expected[at], rtol=1e-6, atol=1e-6)


VARIANTS = (
    "plain", "zero", "one", "minus", "two", "half", "neg", "broadcast", "transpose", "same",
)  # fmt: skip


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_simplification_keeps_the_value(op: Operator, sample: Sample) -> None:
    """`simplify` gives the same bits on constants, negations, broadcasts and transposes."""
    inputs = _inputs(sample)
    for x in inputs:
        if x.dtype.kind == "f" and x.size:
            x.flat[0] = -0.0  # x + 0.0 is not x
    for variant in VARIANTS:
        b = Builder("f")
        params = [b.param("input", f"x{k}", t) for k, t in enumerate(sample.inputs)]
        operands = [_dressed(b, v, variant, k, len(params)) for k, v in enumerate(params)]
        if variant == "same" and len({v.type for v in params}) == 1:
            operands = params[:1] * len(params)
        try:
            (out,) = b.emit_many(op.name, operands, dict(sample.attrs))
        except UserError:
            continue  # the attributes fit the original shapes only
        found = op.simplify(b, b.nodes[-1], {v: n for n in b.nodes for v in n.outputs})
        if found is not None:
            assert found.type == out.type
            expected, got = value_of(b, out, inputs), value_of(b, found, inputs)
            exact = op.name not in ("pow", "contract", "div")
            loose = 0 if exact else 1e-6  # powers as products, sums in another order
            np.testing.assert_allclose(got, expected, rtol=loose, atol=loose)
            # the sign of a sum that is zero is left open: sums start at 0.0 or at an element
            if exact and out.dtype.is_float and op.name != "reduce_sum":
                np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


def _dressed(b: Builder, v, variant: str, k: int, count: int):
    """Operand `v` or something in its place; constants replace the last operand only."""
    constants = {"zero": 0.0, "one": 1, "minus": -1, "two": 2, "half": 0.5}
    dtype = v.dtype
    if variant in constants and k == count - 1:
        number = constants[variant]
        if dtype.is_float:
            return b.full(float(number), v.type)
        if dtype == I32 and number == int(number):
            return b.full(int(number), v.type)
        return b.full(bool(number), v.type) if dtype == BOOL else v
    if variant == "neg" and dtype.kind in ("float", "int"):
        return b.emit("neg", v)
    if variant == "broadcast" and v.shape:
        return b.emit("broadcast", b.emit("reshape", v, shape=(1, *v.shape)), shape=(1, *v.shape))
    if variant == "transpose" and v.type.rank > 1:  # there and back; not an involution from rank 3
        axes = tuple(range(v.type.rank))
        back = b.emit("transpose", v, perm=(*axes[1:], 0))
        return b.emit("transpose", back, perm=(axes[-1], *axes[:-1]))
    return v


# --- values the samples cannot state -------------------------------------------------------------


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


# --- contract ------------------------------------------------------------------------------------

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
    test_gradient_equals_differences(lookup("contract"), sample)


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


def test_matmul_spec() -> None:
    """The notation of a product of two matrices and of a batch."""
    assert matmul_spec(2, 2) == "i j k: i k, k j -> i j"
    assert matmul_spec(4, 3) == "b0 b1 i j k: b0 b1 i k, b1 k j -> b0 b1 i j"


@pytest.mark.parametrize(
    ("name", "types", "attrs"),
    [
        ("add", ["f32[2]", "f32[3]"], {}),
        ("add", ["f32[2]", "i32[2]"], {}),
        ("and", ["i32[2]", "i32[2]"], {}),
        ("exp", ["i32[2]"], {}),
        ("where", ["f32[2]", "f32[2]", "f32[2]"], {}),
        ("cast", ["f32[2]"], {"dtype": "f16"}),
        ("reduce_max", ["f32[0]"], {"axes": (0,), "keepdims": False}),
        ("reduce_sum", ["f32[2]"], {"axes": (1,), "keepdims": False}),
        ("reduce_sum", ["f32[2,2]"], {"axes": (1, 0), "keepdims": False}),
        ("argmax", ["f32[2,0]"], {"axes": (1,), "keepdims": False}),
        ("reshape", ["f32[6]"], {"shape": (4,)}),
        ("transpose", ["f32[2,3]"], {"perm": (0, 0)}),
        ("broadcast", ["f32[2]"], {"shape": (3,)}),
        ("slice", ["f32[4]"], {"start": (0,), "stop": (5,), "step": (1,)}),
        ("concat", [], {"axis": 0}),
        ("pad", ["f32[4]"], {"low": (-1,), "high": (0,), "value": 0.0}),
        ("constant", [], {"value": 1.5, "dtype": "i32"}),
        ("concat", ["f32[2]", "f32[2,2]"], {"axis": 0}),
        ("gather", ["f32[2]", "f32[2]"], {"axis": 0}),
        ("gather", ["f32[0]", "i32[2]"], {"axis": 0}),
        ("contract", ["f32[2]"], {"spec": "i k: i, k -> i"}),
        ("contract", ["f32[2,3]", "f32[4,5]"], {"spec": "i j k: i k, k j -> i j"}),
        ("add", ["f32[2]"], {}),
        ("contract", ["f32[5]", "f32[3]"], {"spec": "h r: h+r, r -> h"}),
    ],
)  # fmt: skip
def test_shape_errors(name: str, types: list[str], attrs: dict[str, object]) -> None:
    """Operands that do not fit are the user's error."""
    from nncompiler.ir.types import parse_type

    b = Builder("f")
    operands = [b.param("input", f"x{k}", parse_type(t)) for k, t in enumerate(types)]
    with pytest.raises(UserError, match="NN0310"):
        b.emit_many(name, operands, attrs)
