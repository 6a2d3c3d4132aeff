"""Section 2 of the worked examples: scalar graphs, gates, and what one layer cannot learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nncompiler
from nncompiler.runtime.model import Model
from tests.model_support import MODELS, cache_of_run, close, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

POINTS = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.float32)
TABLES = {
    "and": (0, 0, 0, 1), "or": (0, 1, 1, 1), "not": (1, 1, 0, 0), "xor": (0, 1, 1, 0),
}  # fmt: skip


def truth(gate: str) -> np.ndarray:
    return np.array(TABLES[gate], np.float32)[:, None]


def gates() -> Model:
    return nncompiler.compile(MODELS / "logic_gates.nn", batch=4)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_scalar_graphs(dtype: str) -> None:
    """Values of the three graphs, and every partial derivative."""
    model = nncompiler.compile(MODELS / "scalar_graphs.nn", batch=1, dtype=dtype)
    one = {"scale": np.ones(1, model.manifest.dtype)}
    values, slopes = model.predict(one), model.gradients(one)
    exact = 1e-5 if dtype == "f32" else 1e-12

    close(values["f"], [-12], exact)
    close([slopes[f"f.{n}"] for n in "xyz"], (-4, -4, 3), exact)

    close(values["e"], [6], exact)
    close([slopes[f"e.{n}"] for n in "ab"], (2, 5), exact)

    close(values["l"], [11.652], 5e-4)
    close(slopes["l.x1"], 5.5, exact)
    close(slopes["l.x2"], 1.716, 5e-4)
    close(slopes["l.x2"], 2 - math.cos(5), exact)


def test_scalar_graphs_elsewhere() -> None:
    """At other points the gradients follow: nothing was folded into constants."""
    model = nncompiler.compile(MODELS / "scalar_graphs.nn", batch=1, dtype="f64")
    state = {n: np.float64(v) for n, v in zip(model.parameters, range(1, 8), strict=True)}
    model.load_state_dict(state)
    slopes = model.gradients({"scale": np.ones(1)})
    x, y, z, a, b = (state[n] for n in ("f.x", "f.y", "f.z", "e.a", "e.b"))
    close([slopes[f"f.{n}"] for n in "xyz"], (z, z, x + y), 1e-12)
    close([slopes[f"e.{n}"] for n in "ab"], (b + 1, a + 2 * b + 1), 1e-12)


@pytest.mark.parametrize("gate", TABLES)
def test_threshold_units(gate: str) -> None:
    """AND, OR and NOT as single threshold units, XOR by two layers of them: exactly 0 and 1."""
    found = gates().predict(POINTS)[f"{gate}_gate"]
    np.testing.assert_array_equal(found, truth(gate))


def test_logistic_and() -> None:
    """g(-30 + 20 x1 + 20 x2) is AND up to 1e-4, and as the weights of the unit that can learn."""
    model = gates()
    found = model.predict(POINTS)["logistic_and"]
    close(found, truth("and"), 1e-4)
    close(found.ravel(), 1 / (1 + np.exp(-(-30 + 20.0 * POINTS.sum(axis=1)))), 1e-7)
    model.load_state_dict(
        {"gate.W": np.array([[20], [20]], np.float32), "gate.b": np.array([-30], np.float32)})
    close(model.predict(POINTS)["learned"], found, 1e-7)


def learned(model: Model, gate: str, epochs: int) -> np.ndarray:
    """What a model answers after being trained on a gate."""
    model.fit({"x": POINTS, "t": truth(gate)}, epochs=epochs, batch=4, progress=False)
    found = model.predict(POINTS)
    return (found["learned"] if isinstance(found, dict) else found) > 0.5


@pytest.mark.parametrize("gate", ["and", "or", "not"])
def test_single_unit_learns(gate: str) -> None:
    """One logistic unit learns every gate that a line separates."""
    np.testing.assert_array_equal(learned(gates(), gate, 200), truth(gate))


@pytest.mark.parametrize("seed", range(5))
def test_single_unit_never_learns_xor(seed: int) -> None:
    """However long it is trained, one unit gets at least one row of XOR wrong."""
    model = gates()
    model.init(seed)
    model.load_state_dict(
        {n: np.random.default_rng(seed).normal(0, 3, v.shape).astype(np.float32)
         for n, v in model.parameters.items()})
    for _ in range(10):
        assert (learned(model, "xor", 200) != truth("xor")).any()
    best = model.loss({"x": POINTS, "t": truth("xor")})
    assert isinstance(best, float)
    assert best >= math.log(2) - 1e-6  # the least cross-entropy any single unit can have


def test_two_layers_learn_xor() -> None:
    """A hidden layer is enough."""
    model = nncompiler.compile(MODELS / "xor.nn", batch=4)
    np.testing.assert_array_equal(learned(model, "xor", 300), truth("xor"))
