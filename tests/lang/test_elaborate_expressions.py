"""What expressions and functions of the library mean: interpreted against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.interp import run
from nncompiler.ir.types import F32
from tests.lang.elaborated import X, model, value


@pytest.mark.parametrize("text, wanted", [
    ("2 * x - x / 4 + 1", 2 * X - X / 4 + 1),
    ("-x ** 2", -(X**2)),
    ("1 / 3 * x", X / 3),
    ("x @ transpose(x)", X @ X.T),
    ("x[0] @ x[1]", X[0] @ X[1]),
    ("max(0, x)", np.maximum(0, X)),
    ("min(x, 0.5)", np.minimum(X, 0.5)),
    ("max(x, axis = 1)", X.max(1)),
    ("sum(x, axis = [0, -1])", X.sum()),
    ("mean(x, axis = -1, keepdims = true)", X.mean(1, keepdims=True)),
    ("prod(x, axis = 0)", X.prod(0)),
    ("mean(x > 0)", (X > 0).mean()),
    ("where(x > 0 and not (x > 1), x, 0)", np.where((X > 0) & ~(X > 1), X, 0)),
    ("where(x < -1 or x >= 1.5, 1.0, 0.0)", np.where((X < -1) | (X >= 1.5), 1.0, 0.0)),
    ("argmax(x)", X.argmax(-1)),
    ("argmin(x, axis = 0)", X.argmin(0)),
    ("x[1:, ::2]", X[1:, ::2]),
    ("x[..., -1]", X[..., -1]),
    ("x[:, ::-1]", X[:, ::-1]),
    ("x[2, 1:3]", X[2, 1:3]),
    ("x[:, 3:0:-2]", X[:, 3:0:-2]),
    ("reshape(x, 2, -1)", X.reshape(2, -1)),
    ("reshape(x, [4, 3])", X.reshape(4, 3)),
    ("flatten(reshape(x, 3, 2, 2))", X),
    ("transpose(reshape(x, 3, 2, 2), 2, 0, 1)", X.reshape(3, 2, 2).transpose(2, 0, 1)),
    ("broadcast(x[0], 2, 4)", np.broadcast_to(X[0], (2, 4))),
    ("concat([x, 2 * x], axis = 0)", np.concatenate([X, 2 * X])),
    ("stack([x, x], axis = 1)", np.stack([X, X], 1)),
    ("stack([1, 2.5])", np.array([1, 2.5])),
    ("pad(x, [1, 0], [0, 2], value = 7)", np.pad(X, ((1, 0), (0, 2)), constant_values=7)),
    ("one_hot(argmax(x), 4)", np.eye(4)[X.argmax(-1)]),
    ("gather(x, stack([i32(2), i32(0)]))", X[[2, 0]]),
    ("f32(range(4)) + x", np.arange(4) + X),
    ("full(0.5, 3, 4) + zeros(4) + ones(1)", np.full((3, 4), 1.5)),
    ("i32(x)", np.trunc(X)),
    ("bool(x)", X != 0),
    ("size(x, 1) * 1.0 + x", 4 + X),
    ("x * (sqrt(16) - 2 ** 2) + pi", np.full((3, 4), np.pi)),
    ("exp(x) + log(abs(x)) + sin(x) * cos(x) - floor(x)",
     np.exp(X) + np.log(abs(X)) + np.sin(X) * np.cos(X) - np.floor(X)),
    ("rsqrt(x * x) + sign(x) + stop_gradient(x) + tanh(x)",
     1 / abs(X) + np.sign(X) + X + np.tanh(X)),
    ("pow(abs(x), 1.5)", abs(X) ** 1.5),
])
def test_expression(text, wanted):
    """An expression gives what NumPy gives."""
    found = value(text)
    assert found.shape == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def sigmoid(x):
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("text, wanted", [
    ("identity", X),
    ("step", (X >= 0) * 1.0),
    ("step(threshold = 0.5)", (X >= 0.5) * 1.0),
    ("sigmoid", sigmoid(X)),
    ("relu", np.maximum(X, 0)),
    ("leaky_relu(0.1)", np.where(X > 0, X, 0.1 * X)),
    ("softplus", np.log1p(np.exp(X))),
    ("elu", np.where(X > 0, X, np.exp(X) - 1)),
    ("silu", X * sigmoid(X)),
    ("softmax", np.exp(X) / np.exp(X).sum(-1, keepdims=True)),
    ("softmax(axis = 0)", np.exp(X) / np.exp(X).sum(0)),
    ("log_softmax", X - np.log(np.exp(X).sum(-1, keepdims=True))),
])
def test_activation(text, wanted):
    """An activation of the standard library gives its formula."""
    np.testing.assert_allclose(value(f"x |> {text}"), wanted, rtol=1e-12, atol=1e-12)


def test_gelu_is_the_exact_one():
    """gelu(1) is the normal distribution at 1."""
    found = value("gelu(x)", np.ones((3, 4)))
    np.testing.assert_allclose(found, 0.8413447460685429, rtol=1e-12)


@pytest.mark.parametrize("text, wanted", [
    ("mse(x, 2 * x)", (X**2).mean()),
    ("sum_of_squares(x, 2 * x)", (X**2).sum() / 2),
    ("mae(x, 2 * x)", abs(X).mean()),
    ("binary_cross_entropy(x, sigmoid(x))", (np.log1p(np.exp(X)) - X * sigmoid(X)).mean()),
    ("cross_entropy(x, stack([i32(1), i32(0), i32(3)]))",
     (np.log(np.exp(X).sum(-1)) - X[[0, 1, 2], [1, 0, 3]]).mean()),
])
def test_loss(text, wanted):
    """A loss of the standard library gives its formula."""
    np.testing.assert_allclose(value(text), wanted, rtol=1e-12)


@pytest.mark.parametrize("text", [
    "softplus(x)", "softmax(x)", "log_softmax(x)", "binary_cross_entropy(x, 0 * x)", "elu(x)",
    "cross_entropy(x, i32(x[:, 0]) * 0)", "sigmoid(x)", "silu(x)", "gelu(x)",
])
def test_stable_at_large_arguments(text):
    """Nothing overflows in f32 at arguments of a thousand."""
    net = model(f"output y = {text}", dtype=F32)
    x = np.array([[1000, -1000, 0, 88]] * 3, np.float32)
    assert np.isfinite(run(net.function("infer"), {"x": x})["y"]).all()


def test_fns_and_control():
    """fns have defaults and several results and are values; `if` and `for` are unrolled."""
    before = """
    fn twice(f, x) { return f(f(x)) }
    fn power(x, n) { if n == 0 { return 1.0 } return x * power(x, n - 1) }
    fn both(x, by = 2) { return x + by, x - by }
    fn total(x) { s = 0.0 * x for i in 0..size(x, 1) { s = s + x[:, i:i+1] } return s }
    fn half(x) { return x / 2 }
    """
    np.testing.assert_allclose(value("twice(half, x)", before=before), X / 4)
    np.testing.assert_allclose(value("power(x, 3)", before=before), X**3)
    np.testing.assert_allclose(value("total(x)", before=before),
                               np.broadcast_to(X.sum(1, keepdims=True), X.shape))
    net = model("a, b = both(x, by = 3)\noutput y = a * b", before=before)
    np.testing.assert_allclose(run(net.function("infer"), {"x": X})["y"], X**2 - 9)


def test_numbers_take_the_type_they_meet():
    """A whole number meets i32 as i32 and a float as a float; u8 is converted by hand."""
    head = "input x : i32[3]"
    np.testing.assert_array_equal(value("2 * x + 1", np.arange(3), head=head), [1, 3, 5])
    assert value("x == 1", np.arange(3), head=head).tolist() == [False, True, False]
    head = "input x : u8[3]"
    np.testing.assert_allclose(value("f32(x) / 255", np.array([0, 51, 255], np.uint8), head=head),
                               [0, 0.2, 1])
