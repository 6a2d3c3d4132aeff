"""What initialisers draw."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.interp import run
from nncompiler.ir.types import F32, F64
from nncompiler.lang.elaborate.init import fans
from tests.lang.elaborated import model, weights


def drawn(initial: str, shape: str = "200, 100", dtype=F64) -> np.ndarray:
    """A parameter drawn by an initialiser."""
    net = model(f"param w : f32[{shape}] = {initial}\noutput y = sum(w) + sum(x)", dtype=dtype)
    return weights(net)["w"]


@pytest.mark.parametrize("initial, low, high, std", [
    ("uniform(-1, 3)", -1, 3, 4 / 12**0.5),
    ("glorot_uniform()", -(6 / 300) ** 0.5, (6 / 300) ** 0.5, (2 / 300) ** 0.5),
    ("he_uniform()", -(6 / 200) ** 0.5, (6 / 200) ** 0.5, (2 / 200) ** 0.5),
    ("normal(2, 0.5)", -1, 5, 0.5),
    ("glorot_normal()", -0.6, 0.6, (2 / 300) ** 0.5),
    ("he_normal()", -0.7, 0.7, (2 / 200) ** 0.5),
])
def test_random_initialiser(initial, low, high, std):
    """Draws lie in their range with the right mean and deviation; f64 starts from f32's values."""
    found = drawn(initial)
    assert found.min() >= low and found.max() <= high
    assert abs(found.mean() - (2 if "2" in initial else (low + high) / 2)) < 0.03 * (high - low)
    assert abs(found.std() / std - 1) < 0.02
    np.testing.assert_array_equal(drawn(initial, dtype=F32).astype(np.float64), found)


def test_normal_draws_have_normal_tails():
    """A fraction of 0.0455 of normal draws lies beyond two deviations."""
    assert abs((abs(drawn("normal()")) > 2).mean() - 0.0455) < 0.005


@pytest.mark.parametrize("initial, wanted", [
    ("zeros()", 0), ("ones()", 1), ("constant(0.25)", 0.25), ("3", 3), ("constant(0.1)",
                                                                        np.float32(0.1))])
def test_constant_initialiser(initial, wanted):
    """Constants fill the parameter."""
    assert (drawn(initial, "2, 3") == wanted).all()


def test_parameters_draw_independently():
    """Two parameters of one shape and initialiser differ; one seed gives the same draws again."""
    net = model("a = x |> dense(4)\nb = x |> dense(4)\noutput y = a + b")
    first, again = weights(net), weights(net)
    assert not (first["a.W"] == first["b.W"]).any()
    np.testing.assert_array_equal(first["a.W"], again["a.W"])
    other = run(net.function("init"), {"seed": np.array([8, 0], np.uint32)})
    assert not (other["a.W"] == first["a.W"]).any()


def test_fans():
    """Dense weights are [in, out], kernels [out, in, ...]."""
    assert fans((3, 5)) == (3, 5) and fans((6, 2, 3, 3)) == (18, 54)
    assert fans((7,)) == (7, 7) and fans(()) == (1, 1)
