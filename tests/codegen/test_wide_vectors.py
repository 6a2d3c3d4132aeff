"""What the planner chooses where vectors are as long as lines of the cache."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.types import F32
from nncompiler.passes.tiling.tile import choose_schedule
from tests.nest_harness import AVX2, AVX512, at, axes, buffer, kernel, load, run


def product(shapes: dict[str, tuple[int, int]], a: str, b: str) -> tuple[Kernel, dict]:
    """``c[i,j] = sum k { a * b }``, the factors indexed as they say; and its arrays."""
    arrays = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
    steps = shapes["a"][a.index("k")]
    term = apply("mul", load("a", arrays["a"], *a), load("b", arrays["b"], *b))
    fold = Fold(("acc",), "sum", axes(k=steps), (term,))
    m, n = shapes["c"]
    nest = kernel(For(axes(i=m, j=n), (fold, Store("c", at("i", "j"), Ref("acc", F32)))))
    return nest, arrays


def chosen(shapes: dict[str, tuple[int, int]], a: str, b: str, machine=AVX512) -> Schedule:
    nest, arrays = product(shapes, a, b)
    return choose_schedule(nest, {n: buffer(n, x) for n, x in arrays.items()}, machine)


@pytest.mark.parametrize(("a", "b"), [("ik", "kj"), ("ik", "jk"), ("ki", "kj")])
def test_large_panels(a, b):
    """Columns that the second-level cache holds are copied for very many rows, all steps at once,
    in each form of a large product; for shorter vectors no panel is larger than 64 KiB.
    """
    square = dict.fromkeys("abc", (1024, 1024))
    found = chosen(square, a, b)
    assert (found.tile, found.pack, found.order[-1]) == ((6, 64), 64, "k")
    assert 4 * 1024 * chosen(square, a, b, AVX2).pack <= 128 * 1024


def test_few_rows_or_small_factors_are_read_as_they_are():
    """A copy that few tiles would read, and of a factor that is in cache as a whole."""
    assert not chosen({"a": (64, 1024), "b": (1024, 512), "c": (64, 512)}, "ik", "kj").pack
    assert not chosen({"a": (512, 512), "b": (512, 128), "c": (512, 128)}, "ik", "kj").pack


def test_all_columns_of_a_turned_factor_are_copied(rng):
    """A factor that one tile reads as a whole, but not along its columns, is turned."""
    shapes = {"a": (64, 48), "b": (64, 48), "c": (64, 64)}
    nest, arrays = product(shapes, "ik", "jk")
    table = {n: buffer(n, x) for n, x in arrays.items()}
    found = choose_schedule(nest, table, AVX512)
    assert (found.vector, found.tile, found.pack) == (("j",), (4, 64), 64)
    for name in "ab":
        arrays[name][:] = rng.standard_normal(shapes[name])
    run(Kernel(nest.name, nest.body, found), **arrays)
    np.testing.assert_allclose(arrays["c"], arrays["a"] @ arrays["b"].T, rtol=1e-4, atol=1e-5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
