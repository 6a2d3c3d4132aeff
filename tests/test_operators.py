"""Every registered operator against its reference, on its samples; a new one needs no edit."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import CompilerBug, Source, UserError
from nncompiler.ir.graph import Builder
from nncompiler.ir.op import Operator, Sample
from nncompiler.ir.ops.shape import reshape_is_affine
from nncompiler.ir.text.scan import Scanner
from nncompiler.ir.types import BOOL, F32, F64, I32
from tests.ops_support import OPERATORS, build, check_gradient, inputs_of, lowered, value_of

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


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_has_samples(op: Operator) -> None:
    """Every operator gives cases to test it with."""
    assert op.samples()


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_reference_fits_shape_rule(op: Operator, sample: Sample) -> None:
    """The reference's result is of the type that `infer` says (the interpreter checks dtypes)."""
    b, node = build(op.name, sample)
    found = value_of(b, node.output, inputs_of(sample))
    assert found.shape == node.output.shape


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_lowering_equals_reference(op: Operator, sample: Sample) -> None:
    """The lowering, run by NumPy, gives the reference, and its unguarded loads stay inside."""
    b, node = build(op.name, sample)
    inputs = inputs_of(sample)
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
    check_gradient(op, sample)


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
    inputs, whole = inputs_of(sample), node.output.shape
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
    inputs = inputs_of(sample)
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
    b = Builder("f")
    found = [Scanner(Source("<type>", t)).type() for t in types]
    operands = [b.param("input", f"x{k}", t) for k, t in enumerate(found)]
    with pytest.raises(UserError, match="NN0310"):
        b.emit_many(name, operands, attrs)
