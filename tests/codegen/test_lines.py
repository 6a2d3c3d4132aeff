"""Partial sums whose columns' factor is turned to lines along the sum in front of the tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host, select
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.types import F32
from nncompiler.passes.tiling.tile import choose_schedule
from tests.nest_harness import AVX2, Compiled, at, axes, buffer, kernel, load, run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Kernel:
    """``c[i,j] = sum k { a[i,k] * b[k,j] }``"""
    term = apply("mul", load("a", a, "i", "k"), load("b", b, "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=len(b)), (term,))
    store = Store("c", at("i", "j"), Ref("acc", term.dtype))
    return kernel(For(axes(i=c.shape[0], j=c.shape[1]), (fold, store)))


def chosen(rows: int, columns: int, steps: int) -> Schedule:
    shapes = {"a": (rows, steps), "b": (steps, columns), "c": (rows, columns)}
    a, b, c = arrays = [np.zeros(s, np.float32) for s in shapes.values()]
    table = {n: buffer(n, x) for n, x in zip(shapes, arrays, strict=True)}
    return choose_schedule(product(a, b, c), table, AVX2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "columns", "steps"),
    [(1, 1, 1), (5, 1, 8), (5, 3, 3), (12, 10, 21), (7, 10, 64), (2, 17, 40), (5, 17, 1)],
)
def test_lines(rng, dtype, rows, columns, steps):
    """Awkward sizes, tiles of all columns and of a few, alone and by blocks; a NaN of one row
    stays there.
    """
    a = rng.standard_normal((rows, steps)).astype(dtype)
    b = rng.standard_normal((steps, columns)).astype(dtype)
    a[0, -1] = np.nan
    c = np.zeros((rows, columns), dtype)
    for tile, pack, unroll in (((1, columns), columns, 2), ((2, 4), 4, 1), ((2, 4), 8, 2)):
        schedule = Schedule("contract", ("k",), "i", tile, tuple("jik"), pack, unroll)
        c[:] = 7
        run(replace(product(a, b, c), schedule=schedule), a=a, b=b, c=c)
        assert np.isnan(c[0]).all()
        np.testing.assert_allclose(c[1:], a[1:] @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [2, 15, 17, 18, 20, 21, 23, 24, 29, 33, 84, 88])
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "host"])
def test_what_is_left_of_a_line(rng, level, steps, dtype):
    """One lane to half of a vector and more behind none, one or several whole ones; a factor that
    is turned, and one that is read as it lies. What does not belong to the sum, beside each row,
    is NaN.
    """
    wide = np.full((5, steps + 3), np.nan, dtype)
    a, c = wide[:, :steps], np.zeros((5, 3), dtype)
    a[:] = rng.standard_normal(a.shape)
    for b in rng.standard_normal((steps, 3)), rng.standard_normal((3, steps)).T:
        b = b.astype(dtype, order="K")
        for rows in 1, 2:
            pack = 3 if b.flags.c_contiguous else 0
            schedule = Schedule("contract", ("k",), "i", (rows, 3), tuple("jik"), pack, 2)
            c[:] = 7
            target = select(level)
            run(replace(product(a, b, c), schedule=schedule), target, a=a, b=b, c=c)
            np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("level", "steps", "lanes"),
    [("x86-64-v4", 84, 4), ("x86-64-v4", 86, 8), ("x86-64-v3", 84, 4), ("x86-64-v3", 85, 0)],
)
def test_what_is_left_takes_the_shortest_vectors(level, steps, lanes):
    """Half of a vector or less, first of all; more than that as a whole one under a mask."""
    a, b, c = (np.zeros(s, np.float32) for s in ((6, steps), (steps, 10), (6, 10)))
    nest = product(a, b, c)
    schedule = Schedule("contract", ("k",), "i", (1, 10), tuple("jik"), 10, 2)
    table = {n: buffer(n, x) for n, x in (("a", a), ("b", b), ("c", c))}
    code = emit_kernel(replace(nest, schedule=schedule), table, select(level), "kernel").text
    found = [n for n in (4, 8) if f"call <{n} x float> @llvm.fma.v{n}f32" in code]
    whole = [] if level == "x86-64-v4" else [8]
    assert found == sorted({*whole, lanes} - {0})


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_lines_of_several_axes(rng, name):
    """A sum over two axes, of which lanes run over the inner one; a batch in both factors, and
    an axis that shares the lines.
    """
    a = rng.standard_normal((2, 3, 7, 4, 13)).astype(np.float32)
    b = rng.standard_normal((2, 4, 13, 5)).astype(np.float32)
    c = np.zeros((2, 3, 7, 5), np.float32)
    term = apply("mul", load("a", a, *"nmikl"), load("b", b, *"nklj"))
    fold = Fold(("acc",), "sum", axes(k=4, l=13), (term,))
    body = For(axes(n=2, m=3, i=7, j=5), (fold, Store("c", at(*"nmij"), Ref("acc", F32))))
    schedule = Schedule("contract", ("l",), "i", (2, 5), tuple("njmikl"), 5, 2)
    run(replace(kernel(body), schedule=schedule), select(name), a=a, b=b, c=c)
    np.testing.assert_allclose(c, np.einsum("nmikl,nklj->nmij", a, b), rtol=1e-4, atol=1e-5)


def test_parts_give_the_bits_of_a_whole(rng):
    """Each worker turns the lines for itself."""
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((9, 30), (30, 10)))
    c, found = np.zeros((9, 10), np.float32), np.zeros((9, 10), np.float32)
    schedule = Schedule("contract", ("k",), "i", (1, 10), tuple("jik"), 10, 2)
    nest = replace(product(a, b, c), schedule=schedule)
    run(nest, a=a, b=b, c=c)
    shared = replace(nest, schedule=replace(schedule, parallel=("j", "i")))
    table = {name: buffer(name, array) for name, array in (("a", a), ("b", b), ("c", found))}
    code = replace(emit_kernel(shared, table, host(), "kernel"), counters=("range", "parts"))
    for first, last in ((0, 2), (2, 3), (3, 7)):
        some = {"range": first | last << 32, "parts": 7}
        Compiled.of_code(code, host(), some)(a=a, b=b, c=found)
    np.testing.assert_array_equal(found, c)


@pytest.mark.parametrize(
    ("rows", "columns", "steps", "tile"),
    [(64, 10, 256, (1, 10)), (64, 10, 84, (1, 10)), (64, 5, 256, (2, 5)), (64, 2, 64, (6, 2))],
)
def test_few_columns_become_lines(rows, columns, steps, tile):
    """Where columns would leave many lanes empty, lanes run along the sum."""
    found = chosen(rows, columns, steps)
    assert (found.vector, found.tile, found.pack) == (("k",), tile, columns)
    assert found.order == ("j", "i", "k")


@pytest.mark.parametrize(
    ("rows", "columns", "steps"), [(64, 16, 256), (64, 14, 64), (64, 64, 256), (2, 10, 64)]
)
def test_columns_that_fill_their_vectors_stay(rows, columns, steps):
    """Nothing is turned where lanes are full, where sums are too short to be added up across
    lanes, or for a few rows.
    """
    assert chosen(rows, columns, steps).vector == ("j",)
