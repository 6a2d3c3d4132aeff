"""Running totals, stacking and unstacking: interpreted and compiled against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.ir.interp import run
from tests.lang.test_elaborate_scan import check_gradients, network
from tests.model_support import cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

X = np.random.default_rng(5).normal(size=(3, 5, 4))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_cumsum(axis):
    """NumPy's, along every axis; the gradient of each element sums what lies behind it."""
    net = network(f"y = cumsum(x, axis={axis})\noutput y\nloss sum(y ** 3)",
                  head="param x : f32[3, 5, 4] = zeros()")
    found = run(net.function("infer"), {"x": X})["y"]
    np.testing.assert_allclose(found, np.cumsum(X, axis), rtol=1e-13)
    check_gradients(net, {"x": X}, ["x"])


def test_cumsum_of_a_vector_compiled():
    """One axis only, in f32, with an infinity: what lies before it stays finite."""
    model = nncompiler.compile("model m { input x : f32[6]  output y = cumsum(x) }")
    x = np.array([0.5, -1, 2, np.inf, 1, -2], np.float32)
    np.testing.assert_array_equal(model.predict(x), np.cumsum(x))
    assert np.isfinite(model.predict(x)[:3]).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_unstack_and_stack(axis):
    """The parts are NumPy's, and stacked again they are the whole."""
    names = ", ".join("abcde"[: X.shape[axis]])
    net = network(f"{names} = unstack(x, {axis})\noutput b\n"
                  f"output y = stack(unstack(x, axis={axis}), axis={axis})",
                  head="input x : f32[3, 5, 4]")
    found = run(net.function("infer"), {"x": X})
    np.testing.assert_array_equal(found["b"], np.take(X, 1, axis))
    np.testing.assert_array_equal(found["y"], X)


def test_unstack_one():
    """An axis of one element gives one part."""
    net = network("output y = unstack(x)[0] + cumsum(x, 0)[0]", head="input x : f32[1, 4]")
    found = run(net.function("infer"), {"x": X[:1, 0]})["y"]
    np.testing.assert_allclose(found, 2 * X[0, 0])
