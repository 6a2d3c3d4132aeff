"""States and random draws as elaborated: what is kept, what is drawn, in which functions."""

from __future__ import annotations

import numpy as np

from nncompiler.ir.interp import run
from nncompiler.ir.model import Network
from nncompiler.ir.types import F32, F64
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.parse import parse
from nncompiler.passes.training.optimizer import train_step

SEED = np.array([3, 0], np.uint32)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3))


def network(body: str, before: str = "", after: str = "", head: str = "input x : f64[4, 3]",
            ) -> Network:
    """A model with this body, in f64; its functions verify."""
    text = f"{before}\nmodel m {{ {head}\n{body}\n}}\n{after}"
    net = elaborate(parse(text, "test.nn"), dtype=F64)
    assert not [d for f in net.functions for d in verify(f)]
    return net


def initial(net: Network) -> dict[str, np.ndarray]:
    """What `init` gives."""
    return run(net.function("init"), {"seed": SEED})


CENTRED = """layer centred()(x : f32[batch, n]) {
    state centre : f32[n] = constant(1)
    state count : i32[] = 0
    if training {
        now = mean(x, axis=0)
        centre = 0.75 * centre + 0.25 * now
        count = count + 1
        return x - now
    }
    return (x - centre) * f32(count)
}
"""


def kinds(net: Network, function: str) -> dict[str, str]:
    """The parameters of a function by name, with their kinds."""
    return {p.value.name: p.kind for p in net.function(function).params}


def test_state_of_a_layer():
    """A state is read as it is in prediction; training gives its next value."""
    net = network("y = x |> centred()\noutput y\nloss sum(y ** 2)", CENTRED)
    assert [n for n, _ in net.states] == ["y.centre", "y.count"] and not net.parameters
    found = initial(net)
    assert found["y.centre"].tolist() == [1, 1, 1] and found["y.count"] == 0
    assert kinds(net, "infer") == {"x": "input", "y.centre": "state", "y.count": "state"}
    state = {"y.centre": np.array([1.0, 2, 3]), "y.count": np.array(2, np.int32)}
    predicted = run(net.function("infer"), {"x": X, **state})["y"]
    np.testing.assert_allclose(predicted, 2 * (X - [1, 2, 3]))
    trained = run(net.function("objective"), {"x": X, **state})
    assert list(trained) == ["loss", "update.y.centre", "update.y.count"]
    np.testing.assert_allclose(trained["loss"], np.sum((X - X.mean(0)) ** 2))
    np.testing.assert_allclose(trained["update.y.centre"], [0.75, 1.5, 2.25] + X.mean(0) / 4)
    assert trained["update.y.count"] == 3


def test_shared_layer_changes_its_state_twice():
    """The second application begins with what the first left; an attribute is the last value."""
    net = network("c = centred()\na = x |> c\nb = 2 * x |> c\noutput a\noutput b\n"
                  "output now = c.centre\nloss sum((a + b + c.centre) ** 2)", CENTRED)
    state = {"c.centre": np.zeros(3), "c.count": np.array(0, np.int32)}
    trained = run(net.function("objective"), {"x": X, **state})
    after = 0.75 * 0.25 * X.mean(0) + 0.25 * 2 * X.mean(0)
    np.testing.assert_allclose(trained["update.c.centre"], after)
    assert trained["update.c.count"] == 2
    whole = (X - X.mean(0)) * 3 + after
    np.testing.assert_allclose(trained["loss"], np.sum(whole**2))


BPTT = """
    state kept : f32[4] = zeros()
    param w : f32[] = constant(0.5)
    start = zeros(4)
    if training {
        start = kept
    }
    hs, h = scan z over x axis 1 carry h = start {
        h = tanh(z + w * h)
        yield h
    }
    if training {
        kept = h
    }
    output hs
    loss sum(hs ** 2)
"""


def test_carried_state():
    """Truncated backpropagation through time: the value is carried to the next batch."""
    net = network(BPTT, after="train { optimizer = sgd(lr=0.1) }")
    assert kinds(net, "infer") == {"x": "input", "w": "param"}
    step = train_step(net)
    assert not verify(step)
    header = {"step": np.array(0, np.int32), "rate": np.array(0.1)}
    kept = RNG.normal(size=4)
    found = run(step, {"x": X, "w": np.array(0.5), "kept": kept, **header})
    h, slope, gradient = kept, np.zeros(4), 0.0
    for t in range(3):
        after = np.tanh(X[:, t] + 0.5 * h)
        slope = (1 - after**2) * (h + 0.5 * slope)
        h, gradient = after, gradient + np.sum(2 * after * slope)
    np.testing.assert_allclose(found["update.kept"], h)
    np.testing.assert_allclose(found["update.w"], 0.5 - 0.1 * gradient)


# Random draws -----------------------------------------------------------------------------------


def drawn(expression: str, draws: int = 0, dtype=F64, rows: int = 10_000) -> np.ndarray:
    """What a draw gives in training."""
    text = (f"model m {{ input x : f32[{rows}]\nparam w : f32[] = 1\ny = w * x\n"
            f"if training {{ y = y + {expression} }}\noutput y\n"
            "state kept : f32[%d] = zeros()\nz = y\nif training { kept = y }\n"
            "loss sum(y + kept) }" % rows)
    net = elaborate(parse(text, "draw.nn"), dtype=dtype)
    assert {"seed": "header", "draws": "header"}.items() <= kinds(net, "objective").items()
    assert not {"seed", "draws"} & kinds(net, "infer").keys() & kinds(net, "loss").keys()
    given = {"x": np.zeros(rows), "w": np.array(1.0), "kept": np.zeros(rows), "seed": SEED,
             "draws": np.array(draws, np.uint32)}
    return run(net.function("objective"), given)["update.kept"]


def test_distributions():
    """Moments of the three distributions, within five standard errors of 10 000 draws."""
    u = drawn("uniform(-1, 3, 10_000)")
    assert -1 <= u.min() < -0.99 and 2.99 < u.max() <= 3
    assert abs(u.mean() - 1) < 0.06 and abs(u.var() - 16 / 12) < 0.06
    n = drawn("normal(2, 0.5, x)")
    assert abs(n.mean() - 2) < 0.025 and abs(n.std() - 0.5) < 0.018
    assert abs(np.mean((n - 2) ** 4) / 0.5**4 - 3) < 0.5
    b = drawn("bernoulli(0.3, x)")
    assert set(b) == {0, 1} and abs(b.mean() - 0.3) < 0.023
    each = drawn("bernoulli(x + range(10_000) / 10_000)".replace("range(10_000)",
                                                                 "f32(range(10_000))"))
    assert set(each) == {0, 1} and each[0] == 0 and abs(each.mean() - 0.5) < 0.023
    assert abs(each[:5000].mean() - 0.25) < 0.03


def test_certain_draws():
    """Probabilities 0 and 1 leave nothing to chance."""
    assert not drawn("bernoulli(0, x)").any() and drawn("bernoulli(1, x)").all()
    assert not drawn("bernoulli(x)").any() and drawn("bernoulli(x + 1)").all()


def test_draws_differ():
    """By step and by place, and agree between f32 and f64."""
    first = drawn("bernoulli(0.5, x)")
    np.testing.assert_array_equal(first, drawn("bernoulli(0.5, x)"))
    np.testing.assert_array_equal(first, drawn("bernoulli(0.5, x)", dtype=F32))
    for other in (drawn("bernoulli(0.5, x)", draws=1), drawn("x + 0 * bernoulli(1, x)"
                  " + bernoulli(0.5, x)")):
        assert abs(np.mean(first == other) - 0.5) < 0.03


def test_draw_in_a_scan():
    """Each step of a scan has its own numbers, in nested scans too."""
    net = network("y = x\nstate kept : f32[4, 3, 2] = zeros()\nif training {\n"
                  "    u = scan row over x axis 0 {\n"
                  "        yield scan z over row axis 0 { yield uniform(z, z + 1, 2) }\n"
                  "    }\n    kept = u\n}\noutput y\nloss sum(y + sum(kept))".replace(
                      "uniform(z, z + 1, 2)", "z + uniform(0, 1, 2)"))
    given = {"x": 0 * X, "kept": np.zeros((4, 3, 2)), "seed": SEED,
             "draws": np.array(0, np.uint32)}
    found = run(net.function("objective"), given)["update.kept"]
    assert len(np.unique(found)) == found.size
