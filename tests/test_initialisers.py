"""Compiled initialisation against the interpreter: random bits and uniform numbers exactly, normal
ones within 2 ULP; and against what each initialiser promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.graph import Builder
from nncompiler.ir.interp import run
from nncompiler.ir.types import DTYPES, U32, Array, TensorType
from tests.differential import Compiled
from tests.model_support import cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

#: Name, initialiser, and mean and variance of its distribution for f32[60,40].
KINDS = {
    "zeros": ("zeros()", 0, 0),
    "ones": ("ones()", 1, 0),
    "constant": ("constant(0.25)", 0.25, 0),
    "uniform": ("uniform(-1, 3)", 1, 16 / 12),
    "normal": ("normal(2, 0.5)", 2, 0.25),
    "glorot_uniform": ("glorot_uniform()", 0, 2 / 100),
    "glorot_normal": ("glorot_normal()", 0, 2 / 100),
    "he_uniform": ("he_uniform()", 0, 2 / 60),
    "he_normal": ("he_normal()", 0, 2 / 60),
}
SHAPE = (60, 40)
SOURCE = "\n".join([
    "layer held()(x : f32[..., n]) {",
    *(f"    param {name}_ : f32[60, 40] = {text}" for name, (text, _, _) in KINDS.items()),
    f"    return x @ ({' + '.join(f'{name}_' for name in KINDS)})",
    "}",
    "model drawn { input x : f32[batch, 60]  output y = x |> held() as p }",
])  # fmt: skip
SEEDS = (0, 1, 2**32 + 5, 2**64 - 1)


def compiled_and_interpreted(seed: int, dtype: str) -> tuple[dict[str, Array], dict[str, Array]]:
    model = nncompiler.compile(SOURCE, batch=1, dtype=dtype, functions=("init", "infer"))
    model.init(seed)
    graph = Compilation(read_source(SOURCE), {"batch": 1}, Options(dtype=dtype)).network
    words = np.array([seed % 2**32, seed >> 32], np.uint32)
    expected = run(graph.function("init"), {"seed": words})
    return dict(model.parameters), expected


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_numbers_are_the_interpreters(seed: int, dtype: str) -> None:
    """All but the normal ones bit for bit; those within 2 ULP."""
    found, expected = compiled_and_interpreted(seed, dtype)
    assert set(found) == set(expected) == {f"p.{name}_" for name in KINDS}
    for name, wanted in expected.items():
        got = found[name]
        assert got.dtype == wanted.dtype == DTYPES[dtype].numpy
        if "normal" in name:
            ulp = np.spacing(np.abs(wanted))
            assert np.all(np.abs(got - wanted) <= 2 * ulp), name
        else:
            assert got.tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize("name", KINDS)
def test_moments_are_those_of_the_distribution(name: str) -> None:
    """Mean and variance within five standard errors; a uniform one keeps to its bounds."""
    _, mean, variance = KINDS[name]
    values = np.float64(compiled_and_interpreted(7, "f32")[0][f"p.{name}_"])
    assert values.shape == SHAPE
    error = 5 / math.sqrt(values.size)
    assert abs(values.mean() - mean) <= error * math.sqrt(variance)
    assert abs(values.var() - variance) <= error * math.sqrt(2) * variance
    if "uniform" in name:
        assert np.abs(values - mean).max() <= np.float32(math.sqrt(3 * variance))


def test_both_float_types_draw_the_same() -> None:
    """A model in f64 starts where the one in f32 does."""
    narrow, wide = (compiled_and_interpreted(7, d)[0] for d in ("f32", "f64"))
    assert all(np.array_equal(narrow[name], wide[name]) for name in narrow)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (7, 3), (33, 65)])
def test_compiled_bits_are_the_interpreters(shape: tuple[int, ...]) -> None:
    """Raw words of Philox, for shapes of all remainders by four and by a vector's width."""
    b = Builder("bits")
    seed = b.param("input", "seed", TensorType(U32, (2,)))
    draw = b.param("input", "draw", TensorType(U32))
    words = b.emit("philox", seed, draw, shape=shape, stream=2**32 - 1)
    function = b.finish([("words", words)])
    compiled = Compiled([function])
    for key, number in ((0, 0), (2**63 + 9, 1), (2**64 - 1, 2**32 - 1)):
        values: dict[str, Array] = {
            "seed": np.array([key % 2**32, key >> 32], np.uint32),
            "draw": np.array(number, np.uint32),
        }
        found = compiled.run("bits", values)["words"]
        assert found.dtype == np.uint32
        assert np.array_equal(found, run(function, values)["words"])
