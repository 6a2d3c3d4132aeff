"""Sums for one row of a few columns without gaps: vectors run on from line to line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.tile_roles import run_on
from nncompiler.passes.tiling.tile import choose_schedule
from tests.nest_harness import AVX2, AVX512, at, axes, buffer, kernel, load, run

LEVELS = ("x86-64-v2", "x86-64-v3", "host")


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray) -> Kernel:
    """``c[n,j] = max(sum k { a[n,k] * b[n,k,j] }, bias[j])``"""
    term = apply("mul", load("a", a, "n", "k"), load("b", b, "n", "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=b.shape[1]), (term,))
    result = apply("max", Ref("acc", term.dtype), load("bias", bias, "j"))
    body = For(axes(n=c.shape[0], j=c.shape[1]), (fold, Store("c", at("n", "j"), result)))
    return kernel(body)


def scheduled(nest: Kernel, columns: int) -> Kernel:
    return replace(nest, schedule=Schedule("contract", ("j",), None, (1, columns), tuple("njk")))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7, 8, 9, 10, 13, 18, 20, 36])
def test_sums_of_few_columns(rng, columns, level, dtype):
    """Sums of whole rounds, of some lines more, of chains and less. What lies in front of factors
    and behind is NaN; lanes that nothing belongs to change nothing, whatever is infinite.
    """
    target = select(level)
    for steps in (32, 63, 64, 84, 129, 260):
        a = np.full((4, steps), np.nan, dtype)[1:3]
        b = np.full((4, steps, columns), np.nan, dtype)[1:3]
        a[:], b[:] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
        a[1, -1], b[1, -1] = np.inf, 1
        bias, c = rng.standard_normal(columns).astype(dtype), np.zeros((2, columns), dtype)
        nest = scheduled(product(a, b, c, bias), columns)
        run(nest, target, a=a, b=b, c=c, bias=bias)
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        found = np.maximum(np.einsum("nk,nkj->nj", a[:1], b[:1]), bias)
        np.testing.assert_allclose(c[:1], found, rtol=tolerance, atol=tolerance)
        assert np.isinf(c[1]).all()


def pieces(a, b, c, level: str) -> bool:
    """Whether code picks factors out of a vector of them, for each line of a round one."""
    arrays = {"a": a, "b": b, "c": c, "bias": np.zeros(c.shape[1], np.float32)}
    nest = scheduled(product(**arrays), c.shape[1])
    table = {name: buffer(name, array) for name, array in arrays.items()}
    text = emit_kernel(nest, table, select(level), "kernel").text
    return f"shufflevector <{8 if level == 'x86-64-v4' else 4} x float>" in text


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_lines_with_gaps_do_not_run_on(level):
    """Nor do factors that lie apart, and sums that are too short."""
    a, b, c = (np.zeros(s, np.float32) for s in ((1, 84), (1, 84, 10), (1, 10)))
    assert pieces(a, b, c, level)
    assert not pieces(a, np.zeros((1, 84, 11), np.float32)[:, :, :10], c, level)
    assert not pieces(np.zeros((1, 168), np.float32)[:, ::2], b, c, level)
    assert not pieces(a[:, :15], b[:, :15], c, level)


def test_lines_of_a_round():
    """As many lines as fill whole vectors, where that takes fewer of them."""
    assert run_on(10, 16, 84) == (8, 5) and run_on(10, 8, 84) == (4, 5)
    assert run_on(4, 16, 84) == (4, 1) and run_on(20, 16, 84) == (4, 5)
    assert run_on(16, 16, 84) is None  # each line is a vector
    assert run_on(84, 16, 120) is None  # few lanes are empty, and too many vectors would be
    assert run_on(10, 16, 31) is None  # no four rounds of eight lines


@pytest.mark.parametrize("machine", [AVX512, AVX2])
@pytest.mark.parametrize("columns", [2, 3, 5, 10])
def test_columns_are_lanes_where_lines_run_on(columns, machine):
    """The planner knows it: nothing is turned for one row. Where lines have gaps it is."""
    a, b, c = (np.zeros(s, np.float32) for s in ((1, 512), (1, 512, columns), (1, columns)))
    arrays = {"a": a, "b": b, "c": c, "bias": np.zeros(columns, np.float32)}

    def chosen() -> Schedule:
        table = {name: buffer(name, array) for name, array in arrays.items()}
        return choose_schedule(product(**arrays), table, machine)

    assert (chosen().vector, chosen().pack) == (("j",), 0)
    lanes = machine.vector_bytes // 4
    assert chosen().tile == (1, -(-columns // lanes) * lanes)
    if columns == 3:
        arrays["b"] = np.zeros((1, 512, 11), np.float32)[:, :, :3]
        assert chosen().vector == ("k",)
