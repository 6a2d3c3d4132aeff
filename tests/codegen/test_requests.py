"""Cache lines that a register tile asks for while its sums are added up."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.affine import Affine
from nncompiler.ir.kernel import Fold, For, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.types import F32
from nncompiler.record import replace
from tests.nest_harness import at, axes, buffer, kernel, load, run

ROW, STEP = Affine.axis("i"), Affine.axis("k")


def gradient(rng, rows, columns, *steps, within=(), unroll=4):
    """A weight gradient whose epilogue adds to an array, and its arrays."""
    names = "kl"[: len(steps)]
    a = rng.standard_normal((*steps, rows)).astype(np.float32)
    b = rng.standard_normal((*steps, columns)).astype(np.float32)
    c = rng.standard_normal((rows, columns)).astype(np.float32)
    term = apply("mul", load("a", a, *names, "i"), load("b", b, *names, "j"))
    reduced = axes(**dict(zip(names, steps, strict=True)))
    fold = Fold(("acc",), "sum", reduced, (term,), within=within)
    more = apply("add", load("c", c, "i", "j"), Ref("acc", F32))
    nest = kernel(For(axes(i=rows, j=columns), (fold, Store("c", at("i", "j"), more))))
    tile = Schedule("contract", ("j",), "i", (6, 64), tuple("ji" + names), unroll=unroll)
    return replace(nest, schedule=tile), {"a": a, "b": b, "c": c}


def requests(nest, arrays, level="x86-64-v4"):
    """Lines of code that ask, for the first and for the second level of cache."""
    table = {name: buffer(name, array) for name, array in arrays.items()}
    text = emit_kernel(nest, table, select(level), "kernel").text
    asked = [x for x in text.splitlines() if "call void @llvm.prefetch" in x]
    near = [x for x in asked if "i32 3, i32 1)" in x]
    far = [x for x in asked if "i32 2, i32 1)" in x]
    assert len(near) + len(far) == len(asked)
    return near, far, text


@pytest.mark.parametrize(
    ("sizes", "asks"), [((96, 128, 128), 4), ((96, 128, 8, 16), 4), ((24, 128, 128), 0)]
)
def test_rows_ask_for_the_line_behind(rng, sizes, asks):
    """Of a factor that may have left the first-level cache, once in each step that is written out;
    not in tiles at the edge, nor where steps are short.
    """
    nest, arrays = gradient(rng, *sizes)
    assert len(requests(nest, arrays)[1]) == asks
    assert not requests(nest, arrays, "x86-64-v3")[1]


def test_rows_that_steps_read_along_ask_for_nothing(rng):
    """Where neighbours in memory are steps, hardware knows what comes next."""
    a, b = np.zeros((96, 128), np.float32), np.zeros((128, 128), np.float32)
    c = np.zeros((96, 128), np.float32)
    term = apply("mul", load("a", a, "i", "k"), load("b", b, "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=128), (term,))
    nest = kernel(For(axes(i=96, j=128), (fold, Store("c", at("i", "j"), Ref("acc", F32)))))
    nest = replace(nest, schedule=Schedule("contract", ("j",), "i", (6, 64), tuple("jik")))
    assert not requests(nest, {"a": a, "b": b, "c": c})[1]


@pytest.mark.parametrize(
    ("sizes", "by_row"),
    [
        ((96, 128, 64), True), ((96, 128, 8, 16), True), ((96, 128, 60), False),
        ((96, 128, 4, 16), False), ((96, 128, 32, 4), False),
    ],
)  # fmt: skip
def test_rows_of_the_epilogue_are_asked_for_one_by_one(rng, sizes, by_row):
    """A row before each part of the steps, or each step of the loop around others if there are
    enough and not many; the sums are the same.
    """
    nest, arrays = gradient(rng, *sizes)
    _, _, text = requests(nest, arrays)
    assert ("@llvm.umin.i64" in text) == by_row
    a, b = (arrays[x].reshape(-1, arrays[x].shape[-1]) for x in "ab")
    exact = arrays["c"] + a.T @ b
    run(nest, **arrays)
    np.testing.assert_allclose(arrays["c"], exact, rtol=1e-4, atol=1e-4)


def test_bounds_of_a_tile_are_kept(rng):
    """A sum that is bounded takes no step behind the last one of its tile, whatever is there."""
    nest, arrays = gradient(rng, 96, 128, 96, within=(ROW + STEP * -1,))
    (rows, steps), last = np.indices((96, 96)), 95 // 6 * 6
    arrays["a"][(steps > rows).T] = 0.0
    arrays["b"][last:] = np.inf
    exact = arrays["c"][:last] + arrays["a"].T[:last, :last] @ arrays["b"][:last]
    run(nest, **arrays)
    np.testing.assert_allclose(arrays["c"][:last], exact, rtol=1e-4, atol=1e-4)
