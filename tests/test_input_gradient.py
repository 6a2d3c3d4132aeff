"""Gradients with respect to inputs: the function `input_grad`, from Python and as C sees it."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options
from nncompiler.errors import Source, UserError
from nncompiler.ir.interp import run as interpret
from nncompiler.runtime.datasets import digits
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

Floats = npt.NDArray[np.float64]
FUNCTIONS = ("init", "loss", "infer", "input_grad")
MIXED = """
model mixed {
    input image : f32[batch, 2, 6, 6]
    input weight : f32[batch]
    input word : i32[batch]
    target t : f32[batch, 3]
    h = image |> conv2d(4, kernel=3) |> batch_norm() |> tanh |> avg_pool2d(2) |> flatten
    y = concat([h, word |> embedding(5, 4)]) |> dropout(0.5) |> dense(3)
    output y
    loss mean(weight * sum((y - t) ** 2, axis=1))
    metric error = mean(abs(y - t))
}
"""
PAIR = """
model pair {
    input x : f32[batch, 3]
    y = x |> dense(2)
    output y
    loss square = sum(y ** 2)
    loss cube = sum(y ** 3)
}
"""


def data_for_mixed(rows: int = 5) -> dict[str, npt.NDArray[np.generic]]:
    r = np.random.default_rng(4)
    return {
        "image": r.normal(size=(rows, 2, 6, 6)), "weight": r.normal(size=rows),
        "word": r.integers(0, 5, rows).astype(np.int32), "t": r.normal(size=(rows, 3)),
    }  # fmt: skip


def test_against_central_differences() -> None:
    """Every float input, in prediction: without dropout, with running statistics."""
    model = nncompiler.compile(MIXED, batch=5, dtype="f64", functions=FUNCTIONS)
    data = data_for_mixed()
    found = model.input_gradients(data)
    assert list(found) == ["image", "weight"]
    for name, gradient in found.items():
        assert gradient.shape == data[name].shape
        flat = np.array(data[name], np.float64).ravel()
        for element in np.random.default_rng(1).choice(flat.size, min(12, flat.size), False):
            values = []
            for sign in (1e-5, -1e-5):
                moved = flat.copy()
                moved[element] += sign
                values.append(model.loss({**data, name: moved.reshape(data[name].shape)}))
            slope = (values[0] - values[1]) / 2e-5  # type: ignore[operator]
            assert gradient.flat[element] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_compiled_and_interpreted(dtype: str) -> None:
    """The compiled gradient is that of the graph."""
    options = Options(dtype=dtype, functions=FUNCTIONS)
    c = Compilation(Source("<text>", MIXED), {"batch": 5}, options)
    model = nncompiler.compile(MIXED, batch=5, dtype=dtype, functions=FUNCTIONS)
    real = np.dtype({"f32": "float32", "f64": "float64"}[dtype])
    data = {n: v.astype(real) if v.dtype.kind == "f" else v for n, v in data_for_mixed().items()}
    expected = interpret(c.graphs["input_grad"], {**data, **model.state_dict()})
    scale = 2e-5 if dtype == "f32" else 1e-13
    for name, gradient in model.input_gradients(data).items():
        wanted = expected[f"grad.{name}"]
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=scale * np.abs(wanted).max())


def test_several_losses() -> None:
    """Each has a gradient of its own, by the name of the loss."""
    model = nncompiler.compile(PAIR, batch=4, dtype="f64", functions=FUNCTIONS)
    x = np.random.default_rng(2).normal(size=(4, 3))
    found = model.input_gradients({"x": x})
    w = {n: np.asarray(v, np.float64) for n, v in model.parameters.items()}
    y: Floats = x @ w["y.W"] + w["y.b"]
    np.testing.assert_allclose(found["square"]["x"], 2 * y @ w["y.W"].T, rtol=1e-12)
    np.testing.assert_allclose(found["cube"]["x"], 3 * y**2 @ w["y.W"].T, rtol=1e-12)


def test_adversarial_examples_raise_the_loss() -> None:
    """A step of 0.05 along the sign of the gradient (Goodfellow et al. 2015) at least doubles the
    loss of a trained classifier; one of random signs hardly moves it."""
    model = nncompiler.compile(
        MODELS / "digits_mlp.nn", batch=[64, 1], functions=(*FUNCTIONS, "train_step")
    )
    splits = digits()
    model.fit(splits.train, epochs=8, progress=False)
    name = model.manifest.inputs[0]
    rows = {n: np.asarray(v)[:64] for n, v in splits.test.items()}
    before = model.loss(rows)
    signs = np.sign(model.input_gradients(rows)[name])
    noise = np.random.default_rng(0).choice([-1.0, 1.0], signs.shape)
    attacked = model.loss({**rows, name: rows[name] + 0.05 * signs})
    shaken = model.loss({**rows, name: rows[name] + 0.05 * noise})
    assert isinstance(before, float) and isinstance(attacked, float)
    assert attacked > 2 * before and abs(shaken - before) < 0.2 * (attacked - before)  # type: ignore[operator]


def test_from_c() -> None:
    """The exported function: state, arena, inputs and targets, then losses and gradients."""
    model = nncompiler.compile(PAIR, batch=4, functions=FUNCTIONS)
    entry = model.bindings.any("input_grad")
    assert [a.name for a in entry.results] == ["square", "cube", "grad.square.x", "grad.cube.x"]
    x = np.ones((4, 3), np.float32)
    results = [np.zeros(a.shape, np.float32) for a in entry.results]
    arrays = [ctypes.c_void_p(a.ctypes.data) for a in (x, *results)]
    native = model.artifact.lookup("pair_input_grad_b4")
    assert native(*model.memory("input_grad"), *arrays) == 0
    found = model.input_gradients({"x": x})
    np.testing.assert_array_equal(results[2], found["square"]["x"])
    np.testing.assert_array_equal(results[3], found["cube"]["x"])


def test_only_where_it_is_asked_for() -> None:
    """It is left out by default, and the error says how to have it."""
    with pytest.raises(UserError) as caught:
        nncompiler.compile(PAIR, batch=4).input_gradients({"x": np.ones((4, 3))})
    assert caught.value.code == "NN0711" and "input_grad" in str(caught.value.help)


def test_needs_a_float_input() -> None:
    """A model whose loss reads integers only has no such function."""
    text = """
    model words {
        input word : i32[batch]
        target t : f32[batch, 2]
        y = word |> embedding(5, 2)
        output y
        loss mse(y, t)
    }
    """
    with pytest.raises(UserError) as caught:
        nncompiler.compile(text, batch=4, functions=FUNCTIONS)
    assert caught.value.code == "NN0924"
