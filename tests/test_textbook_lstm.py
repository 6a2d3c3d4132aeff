"""Section 5 of the worked examples: the gates of an LSTM and what flows back through them, and
backpropagation through time, all by compiled models."""

from __future__ import annotations

import numpy as np

import nncompiler
from nncompiler.runtime.model import Model
from tests.model_support import Array, cache_of_run, close, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

TRAIN = "train { optimizer = sgd(lr = 0.1) }"


def compiled(text: str, **sizes: int) -> Model:
    return nncompiler.compile(text + TRAIN, dtype="f64", sizes=sizes)


def test_forget_gate() -> None:
    """The gate of three cells from two hidden values and one input; what is left of the cells."""
    model = compiled("""
model gate {
    input before : f32[1, 2] input x : f32[1, 1] input cells : f32[1, 3]
    target one : f32[1]
    param W : f32[3, 3] = zeros() param b : f32[3] = zeros()
    z = concat([before, x]) @ W + b
    f = sigmoid(z)
    output z output f output kept = f * cells
    loss sum(f) * sum(one)
}
""")
    weights = np.array([[0, 1, 1, 1], [0, -1, -1, -1], [0, 0, 0, 0]], float)  # bias first
    model.load_state_dict({"b": weights[:, 0], "W": weights[:, 1:].T})
    inputs = {"before": np.ones((1, 2)), "x": np.full((1, 1), 4.0), "cells": np.ones((1, 3))}
    found = model.predict(inputs)
    close(found["z"][0], (6, -6, 0), 0)
    close(found["f"][0], (0.997527377, 0.002472623, 0.5), 1e-9)
    close(found["kept"][0], found["f"][0], 0)


BACKWARD = """
model backward {
    input into : f32[1, 4] input cells : f32[1, 2] input added : f32[1, 2] input zo : f32[1, 2]
    target above : f32[1, 2] target later : f32[1, 2] target next : f32[1, 2]
    param W : f32[4, 2] = zeros()
    param h0 : f32[1, 2] = zeros() param squashed0 : f32[1, 2] = zeros()
    param c0 : f32[1, 2] = zeros() param f0 : f32[1, 2] = zeros() param z0 : f32[1, 2] = zeros()
    f = sigmoid(into @ W + z0) + f0
    c = cells * f + added + c0
    squashed = tanh(c) + squashed0
    h = sigmoid(zo) * squashed + h0
    output h
    loss sum(h * above) + sum(h * later) + sum(c * next)
}
"""


def test_backward_through_the_gates() -> None:
    """Element by element as printed; a parameter that is 0 shows the gradient at its place."""
    model = compiled(BACKWARD)
    gate = np.array([0.575420058, 0.52098661])
    c = np.arctanh(np.sqrt(1 - np.array([0.999184559, 0.997048635])))
    f = 0.5 + np.sqrt(0.25 - np.array([0.248743973, 0.249694]))
    into, cells = np.array([1, 0.1, 0.8, 0.9]), np.array([0.3, 0.6])
    model.load_state_dict({
        name: np.zeros((1, 2)) for name in ("h0", "squashed0", "c0", "f0", "z0")
    } | {"W": np.outer((1, 0, 0, 0), np.log(f / (1 - f)))})  # fmt: skip
    found = model.gradients({
        "into": into[None], "cells": cells[None], "added": (c - cells * f)[None],
        "zo": np.log(gate / (1 - gate))[None],
        "above": np.array([[0.75, 0.25]]), "later": np.array([[0.15, 0.60]]),
        "next": np.array([[0.35, 0.50]]),
    })  # fmt: skip
    close(found["h0"][0], (0.90, 0.85), 1e-12)
    close(found["squashed0"][0], (0.517878052, 0.442839512), 1e-6)
    close(found["c0"][0] - (0.35, 0.50), (0.517455753, 0.441532531), 1e-6)
    close(found["c0"][0], (0.867455753, 0.941532531), 1e-6)
    close(found["f0"][0], (0.260236726, 0.564919518), 1e-6)
    close(found["z0"][0], (0.064732317, 0.141057014), 1e-6)
    close(found["W"].T, (
        (0.064732317, 0.006473232, 0.051785854, 0.058259085),
        (0.141057014, 0.014105701, 0.112845611, 0.126951313),
    ), 1e-6)  # fmt: skip


#: Eight steps of an LSTM as a loop, and written out; the same names of parameters.
HEAD = """
    input x : f32[batch, 8, 3] target t : f32[batch, 8, 4]
"""
LOOP = f"""
model loop {{ {HEAD}
    cell = lstm(4)
    hs = cell(x)
    output hs
    loss mse(hs[:, start:], t[:, start:])
}}
"""
WRITTEN_OUT = f"""
model written(cut = 0) {{ {HEAD}
    cell = gates(4)
    h = zeros(batch, 4)
    c = zeros(batch, 4)
    states = []
    for step in 0..8 {{
        if step == cut {{
            h = stop_gradient(h)
            c = stop_gradient(c)
        }}
        h, c = cell(x[:, step], h, c)
        states = states + [h]
    }}
    hs = stack(states, 1)
    output hs
    loss mse(hs[:, start:], t[:, start:])
}}
layer gates(units)(x : f32[batch, n], h, c) {{
    param Wx : f32[n, 4 * units] = glorot_uniform()
    param Wh : f32[units, 4 * units] = glorot_uniform()
    param b : f32[4 * units] = zeros()
    i, f, g, o = split(x @ Wx + h @ Wh + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c
}}
"""
#: Four steps; what they end with is what the next four begin with.
CARRIED = """
model carried {
    input x : f32[batch, 4, 3] target t : f32[batch, 4, 4]
    state h_end : f32[batch, 4] = zeros() state c_end : f32[batch, 4] = zeros()
    h0 = zeros(batch, 4)
    c0 = zeros(batch, 4)
    if training {
        h0 = h_end
        c0 = c_end
    }
    cell = steps(4)
    hs, h, c = cell(x, h0, c0)
    if training {
        h_end = h
        c_end = c
    }
    output hs
    loss mse(hs, t)
}
layer steps(units)(x : f32[batch, time, n], h0, c0) {
    param Wx : f32[n, 4 * units] = glorot_uniform()
    param Wh : f32[units, 4 * units] = glorot_uniform()
    param b : f32[4 * units] = zeros()
    hs, h, c = scan z over x @ Wx + b axis 1 carry h = h0, c = c0 {
        i, f, g, o = split(z + h @ Wh, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        yield h
    }
    return hs, h, c
}
"""


def data() -> dict[str, Array]:
    draw = np.random.default_rng(3)
    return {"x": draw.normal(size=(5, 8, 3)), "t": draw.normal(size=(5, 8, 4))}


def weights() -> dict[str, Array]:
    """Large enough that gates open and close."""
    draw = np.random.default_rng(4)
    sizes = {"cell.Wx": (3, 16), "cell.Wh": (4, 16), "cell.b": (16,)}
    return {name: draw.normal(size=size) for name, size in sizes.items()}


def of(text: str, start: int = 0, cut: int = 0) -> Model:
    """The model with these weights: its loss begins at a step, its gradient is cut at one."""
    text = text.replace("start", str(start)).replace("cut = 0", f"cut = {cut}")
    model = compiled(text, batch=5)
    model.load_state_dict(weights(), strict=False)
    return model


def test_through_time_is_through_the_unrolled_graph() -> None:
    """Outputs, loss and every gradient of the loop are those of the eight-fold graph."""
    loop, written = of(LOOP), of(WRITTEN_OUT)
    x = {"x": data()["x"]}
    np.testing.assert_allclose(loop.predict(x), written.predict(x), rtol=1e-12, atol=1e-14)
    found, expected = loop.gradients(data()), written.gradients(data())
    assert set(found) == {"cell.Wx", "cell.Wh", "cell.b"} == set(expected)
    for name in found:
        assert np.abs(expected[name]).max() > 1e-3
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-14)


def test_truncated_the_state_is_carried_and_the_gradient_is_not() -> None:
    """After four steps the next four begin with the state they ended with: values are those of
    eight steps, gradients those of eight with a cut in the middle."""
    first, second = ({name: a[:, part].copy() for name, a in data().items()}
                     for part in (slice(0, 4), slice(4, 8)))  # fmt: skip
    carried, whole, cut = of(CARRIED), of(WRITTEN_OUT, start=4), of(WRITTEN_OUT, start=4, cut=4)
    carried.rate = 0.0
    carried.train_step(**first)
    states = whole.predict({"x": data()["x"]})
    np.testing.assert_allclose(carried.state_dict()["h_end"], states[:, 3], rtol=1e-12)
    found, expected = carried.gradients(second), cut.gradients(data())
    through = whole.gradients(data())
    for name in ("cell.Wx", "cell.Wh", "cell.b"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-11, atol=1e-14)
        assert np.abs(found[name] - through[name]).max() > 1e-3
    np.testing.assert_allclose(carried.train_step(**second), cut.loss(data()), rtol=1e-12)
