"""Register tiles where bounds leave a part of the results without a step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nncompiler.ir.affine import Affine
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.machine import Machine
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.types import F32
from nncompiler.passes.tiling.masked import Masked, masked
from nncompiler.passes.tiling.tile import choose_schedule
from tests.nest_harness import AVX2, AVX512, at, axes, buffer, kernel, load, run

ROW, COLUMN, STEP = Affine.axis("i"), Affine.axis("j"), Affine.axis("k")
#: Of 64 rows and columns: below the diagonal, above it, a band, a part of the rows, and nothing.
BOUNDS = [
    (ROW + COLUMN * -1,),
    (ROW * -1 + COLUMN,),
    (ROW * 2 + COLUMN * -3 + 5, COLUMN * 2 + ROW * -1 + 3),
    (ROW + -40,),
    (COLUMN + -30, ROW * -1 + 20),
    (ROW * -1 + -1,),
]


@pytest.mark.parametrize("within", BOUNDS)
@pytest.mark.parametrize(("rows", "width"), [(6, 16), (16, 16), (5, 48), (7, 64), (1, 16)])
def test_tiles_that_take_steps(within, rows, width):
    """They are those in which each bound holds for a point, each with its own size."""
    m = n = 64
    count = -(-m // rows)
    cuts = sorted({0, m, *(i * (m // count) + min(i, m % count) for i in range(count))})
    expected = 0
    for (i, i_end), j in ((x, y) for x in pairwise(cuts) for y in range(0, n, width)):
        tile = [{"i": a, "j": b} for a in range(i, i_end) for b in range(j, min(j + width, n))]
        if all(any(f.evaluate(point) >= 0 for point in tile) for f in within):
            expected += 1000 * (i_end - i) + min(j + width, n) - j
    bounds = Masked(within, "i", "j")
    assert bounds.over_tiles(m, rows, n, width, lambda r, w: 1000 * r + w) == expected


def test_bounds_that_do_not_tell_tiles_apart():
    """Those that steps have, those of no axis, and those of one of several sums."""
    assert masked([total(STEP * 2 + COLUMN * -1)], "i", "j") is None
    assert masked([total(STEP + COLUMN * -1)], "i", "j", vector="k") is None
    assert masked([total(STEP + ROW + COLUMN)], "i", "j") is None
    assert masked([total(Affine(const=-1))], "i", "j") is None
    assert masked([total(ROW + COLUMN * -1), total()], "i", "j") is None
    assert masked([total(COLUMN)], None, "j") is None
    assert masked([total(COLUMN, STEP)], "i", "j") == Masked((COLUMN,), "i", "j")
    found = Masked((STEP + ROW * -1,), "i", "j", axes(k=32))
    assert masked([total(STEP + ROW * -1)], "i", "j") == found


def total(*within: Affine) -> Fold:
    """A sum of 32 steps with these bounds."""
    return Fold(("acc",), "sum", axes(k=32), (), within=within)


@pytest.mark.parametrize("form", [
    STEP + ROW * -1, ROW + STEP * -1, STEP * -1 + ROW + -9, STEP + COLUMN * -1 + 3,
    ROW * 2 + STEP * -1, STEP + ROW * -1 + 40, STEP + COLUMN * -2 + -8,
])  # fmt: skip
@pytest.mark.parametrize(("rows", "width"), [(6, 16), (8, 32), (13, 16), (1, 32)])
def test_steps_that_tiles_take(form, rows, width):
    """Those that one of a tile's results has, of 32 of 64 x 32 results."""
    m, n, k = 64, 32, 32
    count = -(-m // rows)
    cuts = sorted({0, m, *(i * (m // count) + min(i, m % count) for i in range(count))})
    expected = 0.0
    for (i, i_end), j in ((x, y) for x in pairwise(cuts) for y in range(0, n, width)):
        points = [(a, b) for a in range(i, i_end) for b in range(j, min(j + width, n))]
        taken = [any(form.evaluate({"i": a, "j": b, "k": s}) >= 0 for a, b in points)
                 for s in range(k)]  # fmt: skip
        expected += (i_end - i) * width * sum(taken) / k
    bounds = masked([total(form)], "i", "j")
    assert bounds is not None
    assert bounds.over_tiles(m, rows, n, width, lambda r, w: r * w) == pytest.approx(expected)


def causal(within: tuple[Affine, ...]) -> tuple[Kernel, dict[str, np.ndarray]]:
    """Scores of 64 rows, zero above the diagonal."""
    shapes = {"a": (64, 32), "b": (64, 32), "kept": (64, 64), "c": (64, 64)}
    arrays = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
    term = apply("mul", load("a", arrays["a"], "i", "k"), load("b", arrays["b"], "j", "k"))
    fold = Fold(("acc",), "sum", axes(k=32), (term,), within=within)
    stored = apply("mul", load("kept", arrays["kept"], "i", "j"), Ref("acc", F32))
    return kernel(For(axes(i=64, j=64), (fold, Store("c", at("i", "j"), stored)))), arrays


def chosen(within: tuple[Affine, ...], machine: Machine) -> Schedule:
    nest, arrays = causal(within)
    return choose_schedule(nest, {n: buffer(n, x) for n, x in arrays.items()}, machine)


@pytest.mark.parametrize("machine", [AVX512, AVX2])
def test_scores_get_tiles_of_which_more_are_empty(machine, rng):
    """They compute less above the diagonal than those of the same product without a bound; the
    results are the same."""
    nest, arrays = causal((ROW + COLUMN * -1,))
    table = {n: buffer(n, x) for n, x in arrays.items()}
    found, whole = choose_schedule(nest, table, machine), chosen((), machine)
    assert found.vector == whole.vector
    bounds = Masked((ROW + COLUMN * -1,), "i", "j")
    computed, otherwise = (
        bounds.over_tiles(64, rows, 64, width, lambda r, w: r * w)
        for rows, width in (found.tile, whole.tile)
    )
    assert computed < otherwise
    for name in "ab":
        arrays[name][:] = rng.standard_normal(arrays[name].shape)
    arrays["kept"][:] = np.tri(64)
    run(Kernel(nest.name, nest.body, found), **arrays)
    expected = np.tril(arrays["a"] @ arrays["b"].T)
    np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
