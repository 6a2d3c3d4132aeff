"""Scans, states and draws through the whole compiler: training is that of the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import Limitation
from nncompiler.ir.interp import run
from nncompiler.ir.types import F64
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.parse import parse
from nncompiler.passes.training.optimizer import train_step

RNG = np.random.default_rng(0)
MIXED = """
model mixed {
    input x : f32[batch, 5, 3]
    input lengths : i32[batch]
    target t : f32[batch, 5, 4]
    state steps : i32[] = 0
    if training {
        steps = steps + 1
    }
    both = bidirectional(gru, 4)
    h = both(x, lengths) |> lstm(6) |> batch_norm(-1) |> dropout(0.3) |> dense(4)
    if training {
        h = h + 0.1 * normal(0, 1, h) + 0.01 * f32(steps)
    }
    g = scan z over h axis 1 carry s = zeros(batch, 4) {
        if training {
            z = z * bernoulli(0.5, z)
        }
        s = 0.5 * s + z
    }
    output h
    loss mse(h, t) + mean(g ** 2)
}
"""
NESTED = """
model nested {
    input x : f32[batch, 5, 3]
    target t : f32[batch, 5, 3]
    state kept : f32[batch, 3] = constant(0.5)
    start = zeros(batch, 3)
    if training {
        start = kept
    }
    hs, h, c = scan z over x axis 1 carry h = start, c = zeros(batch, 3) {
        u = z |> dense(3)
        q, last = scan v over u axis 1 carry a = h[:, 0] {
            a = a + v
            yield a * h[:, 0]
        }
        h = tanh(u + h) + 0.1 * q
        c = c + h
        yield h
    }
    if training {
        kept = 0.5 * h + 0.1 * c
    }
    output hs
    output c
    loss mse(hs, t)
}
"""
TRAIN = "\ntrain {\n    optimizer = adam(lr=0.01)\n    batch = 4\n}\n"


@pytest.mark.parametrize("text", [MIXED, NESTED], ids=["mixed", "nested"])
def test_training_is_that_of_the_interpreter(text, tmp_path):
    """The initial state and three steps: losses, parameters, states, counters."""
    path = tmp_path / "model.nn"
    path.write_text(text + TRAIN)
    compiled = nncompiler.compile(path, dtype="f64")
    net = elaborate(parse(text + TRAIN, "model.nn"), dtype=F64)
    seed = np.array([0, 0], np.uint32)
    state = run(net.function("init"), {"seed": seed})
    for name, value in compiled.state_dict().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
    step = train_step(net)
    types = {p.value.name: p.value.type for p in step.params}
    state |= {n: np.zeros(t.shape) for n, t in types.items() if n.startswith("opt.")}
    state |= {"step": np.int32(0), "draws": np.uint32(0), "seed": seed, "rate": np.array(0.01)}
    data = {n: RNG.normal(size=t.shape) for n, t in (*net.inputs, *net.targets)}
    if "lengths" in data:
        data["lengths"] = RNG.integers(1, 6, 4).astype(np.int32)
    for _ in range(3):
        found = run(step, {n: v for n, v in (state | data).items() if n in types})
        np.testing.assert_allclose(compiled.train_step(**data), found["loss"], rtol=1e-12)
        state |= {n.removeprefix("update."): v for n, v in found.items() if n != "loss"}
    for name, value in compiled.state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=1e-9, atol=1e-14, err_msg=name)
    inputs = {n: data[n] for n, _ in net.inputs}
    infer = net.function("infer")
    wanted = run(infer, {p.value.name: (state | data)[p.value.name] for p in infer.params})
    predicted = compiled.predict(inputs)
    for name, value in (predicted if isinstance(predicted, dict) else {"h": predicted}).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-9, atol=1e-12)


def test_equal_initial_values_are_written_to_each(tmp_path):
    """Parameters and states that begin alike have a kernel each."""
    path = tmp_path / "ones.nn"
    path.write_text("model ones {\n    input x : f32[2, 3]\n    param a : f32[3] = ones()\n"
                    "    param b : f32[3] = ones()\n    state c : f32[3] = ones()\n"
                    "    output y = x * a + b + c\n}\n")
    model = nncompiler.compile(path)
    assert all((v == 1).all() for v in model.state_dict().values())
    np.testing.assert_array_equal(model.predict(np.ones((2, 3))), np.full((2, 3), 3))


def test_state_of_the_size_of_the_batch(tmp_path):
    """Such a model runs with one batch size; two in one artifact, or other rows, are refused."""
    path = tmp_path / "nested.nn"
    path.write_text(NESTED + TRAIN)
    with pytest.raises(Limitation) as caught:
        nncompiler.compile(path, batch=[4, 8])
    assert caught.value.code == "NN0926"
    model = nncompiler.compile(path)
    data = {"x": RNG.normal(size=(8, 5, 3)), "t": RNG.normal(size=(8, 5, 3))}
    assert model.predict(data["x"])["hs"].shape == (8, 5, 3)
    with pytest.raises(Limitation) as caught:
        model.predict(data["x"][:6])
    assert caught.value.code == "NN0692"
