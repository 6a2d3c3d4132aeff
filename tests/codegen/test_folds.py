"""Folds and sums through code generation, against NumPy and the kernel interpreter."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host, select
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Store
from nncompiler.ir.scalar import (
    Iota,
    Ref,
    apply,
    const,
)
from nncompiler.ir.types import F32, I32
from tests.codegen.nests import (
    COLUMN,
    DTYPE,
    ROW,
    agrees,
    cross_entropy,
    scheduled,
)
from tests.nest_harness import (
    AVX512,
    Compiled,
    at,
    axes,
    buffer,
    kernel,
    load,
    run,
)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("n", [1, 3, 8, 33, 100])
def test_fold_over_lanes(rng, name, n):
    """Row reductions of every length, floats and integers."""
    x, y = rng.standard_normal((3, n)).astype(np.float32), np.zeros(3, np.float32)
    u, v = rng.integers(-9, 9, (3, n), np.int32), np.zeros(3, np.int32)
    body = [
        Fold(("r",), name, axes(j=n), (load("x", x, "i", "j"),)),
        Store("y", at("i"), Ref("r", F32)),
        Fold(("s",), name, axes(j=n), (load("u", u, "i", "j"),)),
        Store("v", at("i"), Ref("s", I32)),
    ]
    agrees(kernel(For(axes(i=3), tuple(body)), vector=("j",)), x=x, y=y, u=u, v=v)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_first_extreme_index(name):
    """Ties give the first, NaN wins over all, a row of infinities its first index."""
    rows = np.zeros((6, 37), np.float32)
    rows[0, (5, 20, 36)] = 3
    rows[1, (9, 33)] = -3
    rows[2] = np.inf if name == "argmin" else -np.inf
    rows[3, (12, 30)] = np.nan
    rows[4] = np.arange(37)
    rows[5] = -np.arange(37)
    value, index = np.zeros(6, np.float32), np.zeros(6, np.int32)
    fold = Fold(("m", "at"), name, axes(j=37), (load("x", rows, "i", "j"), Iota(COLUMN)))
    body = (fold, Store("value", at("i"), Ref("m", F32)), Store("index", at("i"), Ref("at", I32)))
    for vector in ((), ("j",), ("i",)):
        run(kernel(For(axes(i=6), body), vector=vector), x=rows, value=value, index=index)
        np.testing.assert_array_equal(index, getattr(np, name)(rows, axis=1))
        np.testing.assert_array_equal(value, rows[np.arange(6), index])


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("place", [0, 7, 8, 31, 32, 36])
def test_nan_propagates_through_folds(name, place):
    """One NaN anywhere makes the row NaN, over lanes and under them."""
    x = np.arange(3 * 37, dtype=np.float32).reshape(3, 37)
    x[1, place] = np.nan
    y = np.zeros(3, np.float32)
    fold = Fold(("m",), name, axes(j=37), (load("x", x, "i", "j"),))
    for vector in ("j", "i"):
        run(
            kernel(For(axes(i=3), (fold, Store("y", at("i"), Ref("m", F32)))), vector=(vector,)),
            x=x,
            y=y,
        )
        np.testing.assert_array_equal(y, getattr(np, name)(x, axis=1))


def column_sums(x: np.ndarray, y: np.ndarray) -> Kernel:
    fold = Fold(
        ("s",), "sum", axes(i=len(x)), (load("x", x, "i", "j"),), init=(const(2, F32),)
    )
    return kernel(
        For(axes(j=y.size), (fold, Store("y", at("j"), Ref("s", F32)))), vector=("j",)
    )


@pytest.mark.parametrize("rows", [33, 100])
@pytest.mark.parametrize("n", [1, 10, 40, 96, 100, 128])
def test_column_sums(rng, n, rows):
    """A reduction over rows with columns over lanes, with an initial value."""
    x, y = rng.standard_normal((rows, n)).astype(np.float32), np.zeros(n, np.float32)
    agrees(scheduled(column_sums(x, y), x=x, y=y), x=x, y=y)


@pytest.mark.parametrize(
    ("rows", "n", "lanes"), [(63, 128, 32), (64, 128, 64), (64, 96, 32), (64, 64, 32)]
)
def test_long_column_sums_are_wide(rows, n, lanes):
    """Over many rows many columns at once, but not so many that there is one step for all."""
    x, y = np.zeros((rows, n), np.float32), np.zeros(n, np.float32)
    buffers = {"x": buffer("x", x), "y": buffer("y", y)}
    text = emit_kernel(column_sums(x, y), buffers, select("x86-64-v3"), "kernel").text
    assert {int(w) for w in re.findall(r"load <(\d+) x float>", text)} == {lanes}


def test_whole_sum_with_initial_value(rng):
    """Two fold axes, lanes over the inner one, an initial value that is no identity."""
    x, y = rng.standard_normal((5, 43)).astype(np.float32), np.zeros((), np.float32)
    fold = Fold(("s",), "sum", axes(i=5, j=43), (load("x", x, "i", "j"),), init=(const(100, F32),))
    nest = kernel(fold, Store("y", (), Ref("s", F32)), vector=("j",))
    agrees(nest, x=x, y=y)
    again = np.zeros((), np.float32)
    run(nest, x=x, y=again)
    assert again.tobytes() == y.tobytes()


def whole_sum(shape: dict[str, int], vector: str, dtype=np.float32):
    """``y[] = sum axes { x[axes] }`` over everything, compiled once, as a function of ``x``."""
    x, y = np.zeros(tuple(shape.values()), dtype), np.zeros((), dtype)
    fold = Fold(("s",), "sum", axes(**shape), (load("x", x, *shape),))
    nest = kernel(fold, Store("y", (), Ref("s", DTYPE[dtype])), vector=tuple(vector))
    compiled = Compiled(nest, {"x": buffer("x", x), "y": buffer("y", y)})

    def total(x: np.ndarray):
        compiled(x=x, y=y)
        return y.copy()

    return total


@pytest.mark.parametrize("vector", ["", "k", "j"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 33), (1, 31, 64), (9, 31, 15), (1, 131, 7), (5, 16, 100), (1, 1, 2309), (67, 1, 1)],
)
def test_sum_in_blocks_takes_every_term_once(rng, shape, vector):
    """Blocks, blocks of blocks and what is left over: sums of integers are exact."""
    total = whole_sum(dict(zip("ijk", shape, strict=True)), vector)
    for _ in range(3):
        x = rng.integers(-99, 99, shape).astype(np.float32)
        assert total(x) == x.sum(dtype=np.float64)


@pytest.mark.parametrize(
    ("shape", "vector"),
    [
        ({"i": 1_000_000}, "i"),
        ({"i": 1_000_000}, ""),
        ({"i": 9, "j": 31, "k": 15}, "k"),
        ({"i": 9, "j": 31, "k": 15}, ""),
        ({"i": 7, "j": 30011}, "j"),
        ({"i": 30011, "j": 3}, "j"),
    ],
)
def test_long_sums_are_accurate(rng, shape, vector):
    """Rounding errors of random terms of one sign stay at a few ULP, whatever the number."""
    total = whole_sum(shape, vector)
    for _ in range(3):
        x = rng.uniform(0.1, 1.7, tuple(shape.values())).astype(np.float32)
        exact = x.sum(dtype=np.float64)
        assert abs(total(x) - exact) <= 3 * np.spacing(np.float32(exact))


def test_long_column_sums_are_accurate(rng):
    """Sums over 100 000 rows, columns over lanes, products with fused additions among them."""
    x, y = rng.uniform(0.1, 1.7, (100_003, 20)).astype(np.float32), np.zeros(20, np.float32)
    for term, exact in (
        (load("x", x, "i", "j"), x.sum(axis=0, dtype=np.float64)),
        (apply("mul", *[load("x", x, "i", "j")] * 2), (x.astype(np.float64) ** 2).sum(axis=0)),
    ):
        fold = Fold(("s",), "sum", axes(i=len(x)), (term,))
        nest = kernel(For(axes(j=20), (fold, Store("y", at("j"), Ref("s", F32)))), vector=("j",))
        run(nest, x=x, y=y)
        assert (np.abs(y - exact) <= 8 * np.spacing(exact.astype(np.float32))).all()


def test_code_of_a_sum_does_not_grow_with_it():
    """Blocks are loops: a thousand times the terms is a few lines more."""

    def lines(n: int) -> int:
        x, y = np.zeros(n, np.float32), np.zeros((), np.float32)
        fold = Fold(("s",), "sum", axes(i=n), (load("x", x, "i"),))
        nest = kernel(fold, Store("y", (), Ref("s", F32)), vector=("i",))
        table = {"x": buffer("x", x), "y": buffer("y", y)}
        return len(emit_kernel(nest, table, host(), "kernel").text.splitlines())

    assert lines(2**22) <= lines(2**12) + 25


@pytest.mark.parametrize("vector", [(), ("i",)])
def test_body_of_a_long_sum_runs_once_for_each_term(rng, vector):
    """A fold that sums what it reads and adds one to it in place."""
    x, y = rng.integers(-9, 9, 3001).astype(np.float32), np.zeros((), np.float32)
    more = Store("x", at("i"), apply("add", Ref("v", F32), const(1, F32)))
    body = (Let("v", load("x", x, "i")), more)
    fold = Fold(("s",), "sum", axes(i=3001), (Ref("v", F32),), body)
    before = x.copy()
    run(kernel(fold, Store("y", (), Ref("s", F32)), vector=vector), x=x, y=y)
    np.testing.assert_array_equal(x, before + 1)
    assert y == before.sum(dtype=np.float64)


@pytest.mark.parametrize("classes", [2, 10, 37])
def test_cross_entropy_in_one_nest(rng, classes):
    """A fold whose body folds, gathers and stores."""
    z = (3 * rng.standard_normal((11, classes))).astype(np.float32)
    y = rng.integers(0, classes, 11, np.int32)
    loss = np.zeros((), np.float32)
    nest = scheduled(cross_entropy(z, y, loss), z=z, y=y, loss=loss)
    agrees(nest, rtol=1e-5, z=z, y=y, loss=loss)


def causal_rows(x: np.ndarray, y: np.ndarray, bounded: bool) -> tuple[For, ...]:
    """Softmax of the lower half of every row, and the first place of its maximum."""
    n, width = x.shape
    seen = apply("ge", Iota(ROW), Iota(COLUMN))
    x_at, y_at = load("x", x, "i", "j"), load("y", y, "i", "j")
    within = (ROW + COLUMN * -1,) if bounded else ()
    before = (ROW + COLUMN * -1 + 1,) if bounded else ()
    score = apply("select", seen, x_at, const(-1e30, F32))
    power = apply("select", seen, apply("exp", apply("sub", score, Ref("m", F32))), const(0, F32))
    weight = apply("select", seen, apply("div", y_at, Ref("s", F32)), const(0, F32))
    row = (
        Fold(("m",), "max", axes(j=width), (score,), within=before),
        Let("scale", apply("mul", Ref("m", F32), const(2.0, F32))),
        For(axes(j=width), (Let("p", power), Store("y", at("i", "j"), Ref("p", F32))), False,
            within),  # fmt: skip
        Fold(("s",), "sum", axes(j=width), (y_at,), within=within),
        Fold(("v", "at"), "argmax", axes(j=width), (score, Iota(COLUMN))),
        For(axes(j=width), (Store("y", at("i", "j"), weight),), within=within),
        Store("first", at("i"), Ref("at", I32)),
        Store("sums", at("i"), apply("add", Ref("s", F32), Ref("scale", F32))),
    )
    return (For(axes(i=n), row),)


@pytest.mark.parametrize(
    ("rows", "width"), [(8, 64), (64, 64), (8, 8), (12, 37), (4, 3), (8, 600)]
)
@pytest.mark.parametrize("bounded", [False, True])
def test_rows_side_by_side_give_the_same_bits(rng, rows, width, bounded):
    """Loops that rows share, bounds and all, leave what one row after the other does."""
    x = rng.standard_normal((rows, width)).astype(np.float32)
    results = []
    for unroll in (1, 2, 4):
        arrays = {
            "x": x.copy(), "y": np.full_like(x, np.nan), "first": np.zeros(rows, np.int32),
            "sums": np.zeros(rows, np.float32),
        }  # fmt: skip
        nest = kernel(
            *causal_rows(x, arrays["y"], bounded), vector=("j",), register="i", unroll=unroll
        )
        agrees(nest, rtol=1e-5, **arrays)
        results.append(arrays)
    for name in ("y", "first", "sums"):
        for other in results[1:]:
            np.testing.assert_array_equal(other[name], results[0][name])


def test_short_rows_stand_side_by_side(rng):
    """Chosen for rows of a few whole vectors; not for longer ones, nor for single elements."""
    for width, found in ((64, ("i", 4)), (16, ("i", 4)), (256, (None, 1)), (10, (None, 1))):
        x = rng.standard_normal((32, width)).astype(np.float32)
        arrays = {
            "x": x, "y": np.zeros_like(x), "first": np.zeros(32, np.int32),
            "sums": np.zeros(32, np.float32),
        }  # fmt: skip
        chosen = scheduled(kernel(*causal_rows(x, arrays["y"], True)), **arrays).schedule
        assert (chosen.register, chosen.unroll) == found


@pytest.mark.parametrize(("width", "found"), [(64, ("i", 4)), (128, (None, 1))])
def test_rows_of_few_long_vectors_stand_alone(rng, width, found):
    """With vectors of 16 lanes as with vectors of 8, rows of up to 64 elements are short."""
    x = rng.standard_normal((32, width)).astype(np.float32)
    arrays = {
        "x": x, "y": np.zeros_like(x), "first": np.zeros(32, np.int32),
        "sums": np.zeros(32, np.float32),
    }  # fmt: skip
    nest = kernel(*causal_rows(x, arrays["y"], True))
    chosen = scheduled(nest, AVX512, **arrays).schedule
    assert (chosen.register, chosen.unroll) == found


def test_no_rows_stand_alone(rng):
    """Nothing is taken four at a time where there is nothing."""
    x = np.zeros((0, 64), np.float32)
    arrays = {
        "x": x, "y": x.copy(), "first": np.zeros(0, np.int32), "sums": np.zeros(0, np.float32),
    }  # fmt: skip
    chosen = scheduled(kernel(*causal_rows(x, arrays["y"], True)), **arrays).schedule
    assert (chosen.register, chosen.unroll) == (None, 1)
