"""Elements that lie apart are reached lane by lane, in vectors of 32 bytes."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import select
from nncompiler.ir.kernel import For, Kernel, Schedule, Store
from nncompiler.ir.scalar import apply
from tests.nest_harness import at, axes, buffer, kernel, load, run


def doubled(extent: int, times: int, step: int) -> tuple[Kernel, dict[str, np.ndarray]]:
    """``out[i] = d[i]``, and so many times more, where elements of `d` lie `step` apart."""
    memory = np.random.default_rng(2).standard_normal(extent * step).astype(np.float32)
    terms = [load("d", memory, "i") for _ in range(times + 1)]
    total = reduce(lambda a, b: apply("add", a, b), terms)
    schedule = Schedule(vector=("i",), order=("i",))
    nest = kernel(For(axes(i=extent), (Store("out", at("i"), total),)))
    arrays = {"d": memory[::step], "out": np.zeros(extent, np.float32)}
    return Kernel("k", nest.body, schedule), arrays


def inserts(nest: Kernel, arrays: dict[str, np.ndarray], cpu: str) -> int:
    """Elements that are put into lanes one by one."""
    table = {name: buffer(name, array) for name, array in arrays.items()}
    return emit_kernel(nest, table, select(cpu), "kernel").text.count("insertelement")


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_vectors_of_elements_apart_are_short(cpu: str) -> None:
    """Whatever the target; with none apart nothing is put together."""
    nest, arrays = doubled(64, 0, 3)
    assert inserts(nest, arrays, cpu) == 8
    assert inserts(*doubled(64, 0, 1), cpu) == 0


def test_much_arithmetic_takes_long_vectors() -> None:
    """Then it matters how many lanes there are."""
    nest, arrays = doubled(64, 20, 3)
    assert inserts(nest, arrays, "x86-64-v4") >= 16


@pytest.mark.parametrize("extent", [1, 7, 8, 20, 33])
@pytest.mark.parametrize("step", [1, 3])
def test_every_element_is_reached(extent: int, step: int) -> None:
    """Of extents with and without a rest."""
    nest, arrays = doubled(extent, 1, step)
    run(nest, **arrays)
    np.testing.assert_array_equal(arrays["out"], arrays["d"] * 2)
