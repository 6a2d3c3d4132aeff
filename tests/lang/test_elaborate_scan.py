"""`scan` as elaborated: interpreted against NumPy, and its gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.interp import run
from nncompiler.ir.types import F64
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.parse import parse
from nncompiler.passes.training.autodiff import differentiate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 3))


def network(body: str, before: str = "", head: str = "input x : f64[2, 5, 3]"):
    """A model with this body, in f64."""
    return elaborate(parse(f"{before}\nmodel m {{ {head}\n{body}\n}}", "test.nn"), dtype=F64)


def results(body: str, *, before: str = "", **arguments) -> dict[str, np.ndarray]:
    """The outputs of a model of `x`, its parameters given."""
    f = network(body, before).function("infer")
    assert not verify(f)
    return run(f, {"x": X, **arguments})


def cumulative(x: np.ndarray) -> np.ndarray:
    """The running sum of tanh along axis 1."""
    return np.cumsum(np.tanh(x), axis=1)


@pytest.mark.parametrize("text, wanted", [
    ("y = scan z over x axis 1 { yield tanh(z) }", np.tanh(X)),
    ("y = scan z over x axis 0 { yield tanh(z) }", np.tanh(X)),
    ("y = scan z over x axis -1 { yield tanh(z) }", np.tanh(X)),
    ("y, s = scan z over x axis 1 carry s = zeros(2, 3) { s = s + tanh(z) yield s }",
     cumulative(X)),
    ("y, s = scan z over x axis 1 carry s = zeros(2, 3) { yield s s = s + tanh(z) }",
     cumulative(X) - np.tanh(X)),
    ("y = scan z over x axis 1 carry s = zeros(2, 3) { s = s + tanh(z) }", cumulative(X)[:, -1]),
    ("y, n = scan z over x axis 1 carry n = 0 { n = n + 1 yield n * z }",
     X * np.arange(1, 6)[:, None]),
    ("y = scan p over [x, x[:, ::-1]] axis 1 { a, b = p yield a * b }", X * X[:, ::-1]),
    ("w = x[0, 0] y = scan z over x axis 1 { yield w * z }", X * X[0, 0]),
    ("y = scan z over x axis 1 { u = scan v over z axis 1 { yield v * z[:, 0] } yield u }",
     X * X[:, :, :1]),
    ("y, s = scan z over x[:, ::-1] axis 1 carry s = zeros(2, 3) { s = s + tanh(z) yield s }\n"
     "y = y[:, ::-1]", cumulative(X[:, ::-1])[:, ::-1]),
    ("y = scan z over x axis 1 { for i in 0..3 { if i > 0 { z = z * 2 } } yield z }", 4 * X),
])
def test_forms(text, wanted):
    """Stacks come first, then the carries after the last step."""
    found = results(f"{text}\noutput y\noutput rest = sum(x)")["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_single_step_and_a_single_axis():
    """Sequences of one step and vectors."""
    np.testing.assert_allclose(
        results("y, s = scan z over x[0, :, 0] axis 0 carry s = 0 { s = s + z yield s * 2 }\n"
                "output y")["y"], 2 * np.cumsum(X[0, :, 0]), rtol=1e-12)
    np.testing.assert_allclose(
        results("y = scan z over x[:, :1] axis 1 { yield z }\noutput y")["y"], X[:, :1])


LSTM = """layer lstm(units)(x : f32[batch, time, n]) {
    param Wx : f32[n, 4*units]     = glorot_uniform()
    param Wh : f32[units, 4*units] = glorot_uniform()
    param b  : f32[4*units]        = uniform(-1, 1)
    xs = x @ Wx + b
    hs, h, c = scan z over xs axis 1 carry h = zeros(batch, units), c = zeros(batch, units) {
        i, f, g, o = split(z + h @ Wh, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        yield h
    }
    return hs
}
"""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, Wx, Wh, b):
    """The hidden states of an LSTM, step by step."""
    h = c = np.zeros((x.shape[0], Wh.shape[0]))
    rows = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ Wx + b + h @ Wh, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        rows.append(h)
    return np.stack(rows, axis=1)


def check_gradients(net, arguments: dict[str, np.ndarray], wanted: list[str]) -> None:
    """Every element's gradient against a central difference."""
    objective = net.function("objective")
    values = [p.value for p in objective.params if p.value.name in wanted]
    gradients = run(differentiate(objective, "loss", values), arguments)
    for name in wanted:
        numeric = np.zeros_like(arguments[name])
        for at in np.ndindex(numeric.shape):
            ends = []
            for sign in (1, -1):
                moved = arguments[name].copy()
                moved[at] += sign * 1e-5
                ends.append(run(objective, {**arguments, name: moved})["loss"])
            numeric[at] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradients[f"grad.{name}"], numeric, rtol=1e-6, atol=1e-9)


def test_lstm():
    """The LSTM of the design: forward as in NumPy, every gradient as by differences."""
    net = network("y = x |> lstm(2) as lstm\noutput y\nloss sum(y ** 2)", LSTM)
    assert [n for n, _ in net.parameters] == ["lstm.Wx", "lstm.Wh", "lstm.b"]
    weights = run(net.function("init"), {"seed": np.array([1, 0], np.uint32)})
    found = run(net.function("infer"), {"x": X, **weights})["y"]
    values = [weights[f"lstm.{n}"] for n in ("Wx", "Wh", "b")]
    np.testing.assert_allclose(found, numpy_lstm(X, *values), rtol=1e-12)
    check_gradients(net, {"x": X, **weights}, [*weights, "x"])


def test_layers_in_the_body_are_made_once():
    """A layer made in a scan has its parameters once, under the usual names."""
    net = network("h = x[:, 0] |> dense(2)\n"
                  "enc = dense(2)\n"
                  "ys = scan z over x axis 1 {\n"
                  "    u = z |> dense(4) |> dense(2) as out\n"
                  "    v = z |> dense(2)\n"
                  "    yield u + v + (z |> enc)\n"
                  "}\noutput ys\noutput h\nloss sum(ys ** 2)")
    names = [n for n, _ in net.parameters if n.endswith("W")]
    assert names == ["h.W", "dense1.W", "out.W", "v.W", "enc.W"]
    weights = run(net.function("init"), {"seed": np.array([1, 0], np.uint32)})
    check_gradients(net, {"x": X, **weights}, ["v.W", "enc.b", "out.W"])


def test_every_operand_is_used_from_inside_only():
    """What is captured by an inner scan passes through the outer one."""
    net = network("param w : f32[3] = uniform(-1, 1)\n"
                  "y = scan z over x axis 1 { yield scan v over z axis 1 { yield v * sum(w) } }\n"
                  "output y\nloss sum(y ** 2)")
    weights = run(net.function("init"), {"seed": np.array([1, 0], np.uint32)})
    check_gradients(net, {"x": X, **weights}, ["w", "x"])
