"""Loads, stores and primitives through code generation, against NumPy and the interpreter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host
from nncompiler.ir.kernel import For, Store
from nncompiler.ir.scalar import (
    Affine,
    Apply,
    Bitcast,
    Cast,
    Iota,
    apply,
    cast,
    const,
)
from nncompiler.ir.types import BOOL, F32, F64, I32, I64, U8, U32, U64
from tests.codegen.nests import (
    COLUMN,
    DTYPE,
    ROW,
    agrees,
)
from tests.nest_harness import (
    at,
    axes,
    buffer,
    kernel,
    load,
)


def test_gather_rows_and_lanes(rng):
    """A row chosen by a loaded index; an element chosen in every lane; a scatter along lanes."""
    table, picks = (
        rng.standard_normal((9, 21)).astype(np.float32),
        rng.permutation(9)[:6].astype(np.int32),
    )
    rows, one = np.zeros((6, 21), np.float32), np.zeros(6, np.float32)
    spread = np.zeros(9, np.float32)
    pick = load("p", picks, "i")
    nest = kernel(
        For(axes(i=6, j=21), (Store("rows", at("i", "j"), load("t", table, pick, "j")),)),
        For(axes(k=6), (
            Store("one", at("k"), load("t", table, load("p", picks, "k"), Affine((("k", 2),), 1))),
            Store("spread", (load("p", picks, "k"),), load("one", one, "k")),
        )),
        vector=("j", "k"),
    )  # fmt: skip
    agrees(nest, t=table, p=picks, rows=rows, one=one, spread=spread)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
@pytest.mark.parametrize("n", [3, 16, 45])
def test_guarded_load_at_unit_stride(rng, dtype, n):
    """A shifted row with fill outside, for elements that mask in hardware and those that do not.
    """
    x = (rng.standard_normal(n) * 3).astype(dtype)
    y = np.zeros(n, dtype)
    d = buffer("x", x).type.dtype
    there = Iota(COLUMN + -2)
    inside = apply("and", apply("ge", there, const(0, I32)), apply("lt", there, const(n, I32)))
    shifted = load("x", x, COLUMN + -2, guard=inside, fill=const(1, d))
    agrees(kernel(For(axes(j=n), (Store("y", at("j"), shifted),)), vector=("j",)), x=x, y=y)


def test_guarded_gather_and_uniform_guard(rng):
    """Guards on strided, gathered and lane-independent loads; out-of-range addresses stay
    untouched.
    """
    x, p = rng.standard_normal((20, 3)).astype(np.float32), rng.integers(-9, 30, 20, np.int32)
    y = np.zeros((4, 20), np.float32)
    index = load("p", p, "j")
    valid = apply("and", apply("ge", index, const(0, I32)), apply("lt", index, const(20, I32)))
    even = apply("lt", Iota(COLUMN), const(7, I32))
    outer = apply("eq", Iota(ROW), const(1, I32))
    stores = [
        load("x", x, index, 1, guard=valid, fill=const(5, F32)),
        load("x", x, Affine((("j", 3),), 0), 2, guard=even, fill=const(6, F32)),
        load("x", x, Affine((("i", 40),), -35), 0, guard=outer, fill=const(7, F32)),
        load("x", x, Affine((("j", -1),), 19), 0),
    ]
    body = tuple(Store("y", (Affine((), n), COLUMN), e) for n, e in enumerate(stores))
    agrees(kernel(For(axes(i=1), (For(axes(j=20), body),)), vector=("j",)), x=x, p=p, y=y)


def test_strided_axis_over_lanes(rng):
    """Lanes across rows (a transposed copy), in both directions."""
    x = rng.standard_normal((19, 7)).astype(np.float32)
    y, z = np.zeros((7, 19), np.float32), np.zeros((7, 19), np.float32)
    body = (
        Store("y", at("j", "i"), load("x", x, "i", "j")),
        Store("z", at("j", "i"), load("x", x, "i", "j")),
    )
    for vector in ("i", "j"):
        agrees(kernel(For(axes(i=19, j=7), body), vector=(vector,)), x=x, y=y, z=z)


def test_ordered_loop_carries_through_memory(rng):
    """A cumulative sum: iteration i reads what i - 1 stored; columns over lanes."""
    x, y = rng.standard_normal((9, 21)).astype(np.float32), np.zeros((9, 21), np.float32)
    before = load(
        "y", y, ROW + -1, "j", guard=apply("gt", Iota(ROW), const(0, I32)), fill=const(0, F32)
    )
    step = For(
        axes(i=9),
        (Store("y", at("i", "j"), apply("add", before, load("x", x, "i", "j"))),),
        ordered=True,
    )
    agrees(kernel(For(axes(j=21), (step,)), vector=("j",)), x=x, y=y)
    agrees(kernel(For(axes(j=21), (step,))), x=x, y=y)


INTEGERS = np.array(
    [0, 1, -1, 2, -2, 7, -7, 31, 32, 33, -(2**31), 2**31 - 1, 100003, -65536], np.int64
)


@pytest.mark.parametrize("vector", [(), ("j",)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint8])
def test_integer_primitives(dtype, vector):
    """Wrapping, division without traps, shifts by any amount, comparisons, high products."""
    pairs = np.array(list(itertools.product(INTEGERS, INTEGERS))).astype(dtype)
    x, y = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    d = buffer("x", x).type.dtype
    names = [
        "add",
        "sub",
        "mul",
        "min",
        "max",
        "div",
        "rem",
        "and",
        "or",
        "xor",
        "eq",
        "lt",
        "ge",
        "shl",
        "shr",
    ]
    unary = ["neg", "abs", "sign"] if d.kind == "int" else []
    names += ["mulhi"] if d.kind == "uint" else []
    exprs = [apply(n, load("x", x, "j"), load("y", y, "j")) for n in names]
    exprs += [apply(n, load("x", x, "j")) for n in unary]
    exprs += [
        apply(n, load("x", x, "j"), const(c, d))
        for n in ("div", "rem", "shl", "shr")
        for c in (0, 3)
    ]
    out = np.zeros((len(exprs), len(x)), dtype)
    body = tuple(Store("out", (Affine((), n), COLUMN), cast(e, d)) for n, e in enumerate(exprs))
    nest = kernel(For(axes(j=len(x)), body), vector=vector)
    agrees(nest, x=x, y=y, out=out)


FLOATS = np.array(
    [0.0, -0.0, 1, -1, 0.5, 1.5, 2.5, -2.5, 3e9, -3e9, 1e-40, np.inf, -np.inf, np.nan, 7.25]
)


@pytest.mark.parametrize("vector", [(), ("j",)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_primitives(dtype, vector):
    """NaN through min, max and sign; relu written both ways; rounding to even; comparisons with
    NaN.
    """
    pairs = np.array(list(itertools.product(FLOATS, FLOATS)), dtype)
    x, y = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    d = DTYPE[dtype]
    binary = ["add", "sub", "mul", "div", "min", "max", "eq", "ne", "lt", "le", "gt", "ge"]
    exprs = [apply(n, load("x", x, "j"), load("y", y, "j")) for n in binary]
    exprs += [
        apply(n, load("x", x, "j")) for n in ("neg", "abs", "sign", "sqrt", "floor", "round")
    ]
    exprs += [
        apply("max", load("x", x, "j"), const(0, d)),
        apply("max", const(0, d), load("x", x, "j")),
    ]
    exprs += [apply("min", load("x", x, "j"), const(1, d)), apply("rsqrt", load("x", x, "j"))]
    exprs += [apply(n, load("x", x, "j"), const(np.nan, d)) for n in ("min", "max")]
    exprs += [apply(n, const(-np.nan, d), load("x", x, "j")) for n in ("min", "max")]
    exprs += [apply("max", const(np.nan, d), const(1, d))]
    out = np.zeros((len(exprs), len(x)), dtype)
    body = tuple(Store("out", (Affine((), n), COLUMN), cast(e, d)) for n, e in enumerate(exprs))
    agrees(kernel(For(axes(j=len(x)), body), vector=vector), x=x, y=y, out=out)


@pytest.mark.parametrize("vector", [(), ("j",)])
def test_conversions(vector):
    """Saturation, NaN to zero, sign and zero extension, truth values, bits as another type."""
    f = FLOATS.astype(np.float32)
    n = len(f)
    i = np.resize(INTEGERS, n).astype(np.int32)
    arrays = {"f": f, "i": i}
    exprs = [Cast(load("f", f, "j"), d) for d in (I32, I64, U8, U32, F64, BOOL)]
    exprs += [Cast(load("i", i, "j"), d) for d in (F32, F64, I64, U8, U32, U64, BOOL)]
    exprs += [Cast(Cast(load("i", i, "j"), U32), d) for d in (F32, F64, U64)]
    exprs += [Cast(Cast(load("i", i, "j"), BOOL), d) for d in (F32, I32, U8)]
    exprs += [Bitcast(load("f", f, "j"), I32), Bitcast(load("i", i, "j"), F32)]
    exprs += [Iota(COLUMN * 3 + 1), Iota(COLUMN, I64), apply("not", Cast(load("i", i, "j"), BOOL))]
    for k, e in enumerate(exprs):
        arrays[f"o{k}"] = np.zeros(n, e.dtype.numpy)
    body = tuple(Store(f"o{k}", at("j"), e) for k, e in enumerate(exprs))
    agrees(kernel(For(axes(j=n), body), vector=vector), **arrays)


def test_shared_expressions_are_computed_once():
    """An expression shared by identity a thousand-fold costs one instruction per node."""
    x, y = np.ones(16, np.float32), np.zeros(16, np.float32)
    e = load("x", x, "j")
    for _ in range(60):
        e = Apply("mul", (e, e), F32)
    nest = kernel(For(axes(j=16), (Store("y", at("j"), e),)), vector=("j",))
    code = emit_kernel(nest, {"x": buffer("x", x), "y": buffer("y", y)}, host(), "kernel")
    assert code.text.count("fmul") <= 120
