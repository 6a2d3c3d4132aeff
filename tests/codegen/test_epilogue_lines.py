"""Requests for the lines of memory that an epilogue reads and writes, in front of its sums."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.kernel import Fold, For, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.types import F32
from nncompiler.record import replace
from tests.nest_harness import at, axes, buffer, kernel, load, run


def masked_product(rows: int, columns: int, steps: int):
    """A product whose epilogue reads one array and writes another."""
    result = rows, columns
    shapes = {"a": (rows, steps), "b": (steps, columns), "m": result, "c": result}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    term = apply("mul", load("a", arrays["a"], "i", "k"), load("b", arrays["b"], "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=steps), (term,))
    masked = apply("mul", Ref("acc", F32), load("m", arrays["m"], "i", "j"))
    nest = kernel(For(axes(i=rows, j=columns), (fold, Store("c", at("i", "j"), masked))))
    return replace(nest, schedule=Schedule("contract", ("j",), "i", (6, 64), tuple("jik"))), arrays


@pytest.mark.parametrize(
    ("sizes", "wide", "narrow"),
    [
        ((64, 256, 10), True, False), ((64, 256, 9), False, False), ((64, 64, 10), False, False),
        ((256, 256, 30), True, False), ((256, 256, 40), True, True), ((64, 256, 40), True, False),
    ],
)  # fmt: skip
def test_lines_are_asked_for_where_sums_hide_it(sizes, wide, narrow):
    """Of long vectors fewer steps do, and of arrays that are no larger than the second-level
    cache, for these may be further away; what the first level holds is not asked for.
    """
    nest, arrays = masked_product(*sizes)
    table = {name: buffer(name, array) for name, array in arrays.items()}
    for level, asks in (("x86-64-v4", wide), ("x86-64-v3", narrow)):
        text = emit_kernel(nest, table, select(level), "kernel").text
        assert ("call void @llvm.prefetch" in text) == asks, level


@pytest.mark.parametrize("sizes", [(64, 256, 10), (61, 150, 12), (71, 129, 11)])
def test_lines_past_the_end_may_be_asked_for(rng, sizes):
    """Tiles at the edges ask as others do."""
    nest, arrays = masked_product(*sizes)
    for name in "abm":
        arrays[name][:] = rng.standard_normal(arrays[name].shape)
    run(nest, **arrays)
    found = (arrays["a"] @ arrays["b"]) * arrays["m"]
    np.testing.assert_allclose(arrays["c"], found, rtol=1e-4, atol=1e-4)
