"""Recurrent layers, dropout, batch normalisation: interpreted against NumPy; worked LSTM rows."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.interp import run
from nncompiler.passes.training.autodiff import differentiate
from tests.lang.test_elaborate_scan import check_gradients, network, numpy_lstm, sigmoid

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 5, 2))
LENGTHS = np.array([5, 2, 3], np.int32)
HEAD = "input x : f32[3, 5, 2]\ninput lengths : i32[3]"


def numpy_rnn(x, Wx, Wh, b):
    """The hidden states of an Elman network."""
    h, rows = np.zeros((len(x), Wh.shape[0])), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ Wx + b + h @ Wh)
        rows.append(h)
    return np.stack(rows, axis=1)


def numpy_gru(x, Wx, Wh, b, bh):
    """The hidden states of a GRU whose reset gate acts behind the product."""
    h, rows = np.zeros((len(x), Wh.shape[0])), []
    for t in range(x.shape[1]):
        xr, xz, xn = np.split(x[:, t] @ Wx + b, 3, axis=-1)
        hr, hz, hn = np.split(h @ Wh, 3, axis=-1)
        z = sigmoid(xz + hz)
        h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * (hn + bh)) + z * h
        rows.append(h)
    return np.stack(rows, axis=1)


def masked(cell, x, lengths):
    """Each sample alone, as long as it is; its last state to the end."""
    rows = []
    for one, n in zip(x, lengths, strict=True):
        h = cell(one[None, :n])[0]
        rows.append(np.concatenate([h, np.repeat(h[-1:], x.shape[1] - n, axis=0)]))
    return np.stack(rows)


def masked_reverse(cell, x, lengths):
    """Each sample alone, from its last step to the first; zeros behind it."""
    rows = []
    for one, n in zip(x, lengths, strict=True):
        h = cell(one[None, :n][:, ::-1])[0][::-1]
        rows.append(np.concatenate([h, np.zeros((x.shape[1] - n, h.shape[1]))]))
    return np.stack(rows)


def drawn(net) -> dict[str, np.ndarray]:
    """Random values for every parameter."""
    rng = np.random.default_rng(2)
    return {n: rng.normal(size=t.shape) for n, t in net.parameters}


CELLS = {"rnn": numpy_rnn, "gru": numpy_gru, "lstm": numpy_lstm}


@pytest.mark.parametrize("kind", CELLS)
def test_layer(kind):
    """Forwards, backwards, with lengths, both: the states of NumPy's."""
    net = network(f"cell = {kind}(4)\nback = {kind}(4, reverse=true)\n"
                  "output a = cell(x)\noutput b = back(x)\n"
                  "output c = cell(x, lengths)\noutput d = back(x, lengths)", head=HEAD)
    w = drawn(net)
    names = [n.removeprefix("cell.") for n in w if n.startswith("cell.")]
    assert names == ["Wx", "Wh", "b", "bh"][:len(names)]

    def forward(x):
        return CELLS[kind](x, *(w[f"cell.{n}"] for n in names))

    def backward(x):
        return CELLS[kind](x, *(w[f"back.{n}"] for n in names))

    found = run(net.function("infer"), {"x": X, "lengths": LENGTHS, **w})
    np.testing.assert_allclose(found["a"], forward(X), rtol=1e-11)
    np.testing.assert_allclose(found["b"], backward(X[:, ::-1])[:, ::-1], rtol=1e-11)
    np.testing.assert_allclose(found["c"], masked(forward, X, LENGTHS), rtol=1e-11)
    np.testing.assert_allclose(found["d"], masked_reverse(backward, X, LENGTHS), rtol=1e-11)


@pytest.mark.parametrize("kind", CELLS)
def test_last_state(kind):
    """Behind the last step that counts for a sample; backwards, that is the first."""
    cell = ", c" if kind == "lstm" else ""
    net = network(f"cell = {kind}(4, last=true)\nback = {kind}(4, reverse=true, last=true)\n"
                  f"hs, h{cell} = cell(x, lengths)\nbs, b{cell and ', d'} = back(x, lengths)\n"
                  "output hs\noutput h\noutput bs\noutput b", head=HEAD)
    found = run(net.function("infer"), {"x": X, "lengths": LENGTHS, **drawn(net)})
    np.testing.assert_array_equal(found["h"], found["hs"][np.arange(3), LENGTHS - 1])
    np.testing.assert_array_equal(found["b"], found["bs"][:, 0])


def test_bidirectional():
    """Two layers side by side, their parameters named by direction; gradients by differences."""
    net = network("both = bidirectional(gru, 2)\ny = both(x, lengths)\noutput y\n"
                  "loss sum(y ** 2)", head=HEAD)
    w = drawn(net)
    assert list(w)[:2] == ["both.forward.Wx", "both.forward.Wh"] and "both.backward.bh" in w
    forward, backward = ([w[f"both.{d}.{n}"] for n in ("Wx", "Wh", "b", "bh")]
                         for d in ("forward", "backward"))
    found = run(net.function("infer"), {"x": X, "lengths": LENGTHS, **w})["y"]
    wanted = [masked(lambda x: numpy_gru(x, *forward), X, LENGTHS),
              masked_reverse(lambda x: numpy_gru(x, *backward), X, LENGTHS)]
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=-1), rtol=1e-11)
    check_gradients(net, {"x": X, "lengths": LENGTHS, **w},
                    ["both.forward.bh", "both.backward.Wh"])


def test_forget_gate_of_the_text():
    """LSTM, the forget gate: z = (6, -6, 0), f = (0.997527377, 0.002472623, 0.5)."""
    net = network("param W : f32[4, 3] = zeros()\n"
                  "f = scan v over x axis 1 carry c = ones(1, 3) {\n"
                  "    c = sigmoid(v @ W) * c\n}\noutput f", head="input x : f32[1, 1, 4]")
    W = np.array([[0, 1, 1, 1], [0, -1, -1, -1], [0, 0, 0, 0.0]]).T
    found = run(net.function("infer"), {"x": np.array([[[1, 1, 1, 4.0]]]), "W": W})["f"]
    np.testing.assert_allclose(found[0], [0.997527377, 0.002472623, 0.5], atol=5e-10)


def test_gradient_of_the_text():
    """LSTM, backwards: the gradient of the forget gate's weights, digit by digit."""
    # The text rounds the second slope to 0.249694; these digits are those of its products.
    slope = np.array([0.248743973, 0.249694236])
    gate = 0.5 + np.sqrt(0.25 - slope)
    cell = np.arctanh(np.sqrt(1 - np.array([0.999184559, 0.997048635])))
    before = np.array([0.3, 0.6])
    names = ["before", "rest", "out", "above", "behind", "kept"]
    net = network("""
        param W : f32[4, 2] = zeros()
        h, c = scan v over x axis 1 carry c = before {
            c = sigmoid(v @ W) * c + rest
            yield out * tanh(c)
        }
        output h
        loss sum(h * (above + behind)) + sum(c * kept)
        """, head="input x : f32[1, 1, 4]\n" + "\n".join(
            f"input {n} : f32[1, 2]" for n in names))
    W = np.zeros((4, 2))
    W[0] = np.log(gate / (1 - gate))
    given = {"x": np.array([[[1, 0.1, 0.8, 0.9]]]), "W": W, "before": before[None],
             "rest": (cell - gate * before)[None], "out": np.array([[0.575420058, 0.52098661]]),
             "above": np.array([[0.75, 0.25]]), "behind": np.array([[0.15, 0.60]]),
             "kept": np.array([[0.35, 0.50]])}
    objective = net.function("objective")
    weights = [p.value for p in objective.params if p.value.name == "W"]
    found = run(differentiate(objective, "loss", weights), given)["grad.W"]
    wanted = [[0.064732317, 0.006473232, 0.051785854, 0.058259085],
              [0.141057014, 0.014105701, 0.112845611, 0.126951313]]
    np.testing.assert_allclose(found.T, wanted, atol=2e-9)


def test_through_time_is_the_unrolled_graph():
    """The gradient through a scan is that of the same steps written out."""
    head = "param w : f32[2, 2] = uniform(-1, 1)\nh = x[:, 0]\n"
    body = "h = tanh(x[:, k] + h @ w)\n"
    loop = network(head + "h = scan z over x axis 1 carry h = h { h = tanh(z + h @ w) }\n"
                   "output y = h\nloss sum(h ** 2)", head=HEAD.split("\n")[0])
    flat = network(head + "".join(body.replace("k", str(k)) for k in range(5)) +
                   "output y = h\nloss sum(h ** 2)", head=HEAD.split("\n")[0])
    found = []
    for net in (loop, flat):
        f = net.function("objective")
        wanted = [p.value for p in f.params]
        found.append(run(differentiate(f, "loss", wanted), {"x": X, **drawn(net)}))
    for name in ("grad.w", "grad.x"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-11)


# Regularisation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axis, shape", [(1, (4, 3)), (1, (4, 3, 2, 2)), (-1, (4, 2, 3)),
                                         (0, (3, 4))])
def test_batch_norm(axis, shape):
    """Training takes the batch's statistics and averages them; prediction takes the averages."""
    sizes = ", ".join(map(str, shape))
    net = network(f"y = x |> batch_norm({axis})\noutput y\nloss sum(y ** 3)",
                  head=f"input x : f32[{sizes}]")
    assert [n for n, _ in net.states] == ["y.running_mean", "y.running_var"]
    x = RNG.normal(2, 3, size=shape)
    w = drawn(net)
    state = {"y.running_mean": RNG.normal(size=3), "y.running_var": RNG.uniform(1, 2, size=3)}
    others = tuple(a for a in range(len(shape)) if a != axis % len(shape))
    across = [1] * len(shape)
    across[axis] = 3

    def normalised(mean, var):
        y = (x - mean.reshape(across)) / np.sqrt(var.reshape(across) + 1e-5)
        return y * w["y.gain"].reshape(across) + w["y.shift"].reshape(across)

    found = run(net.function("infer"), {"x": x, **w, **state})["y"]
    wanted = normalised(state["y.running_mean"], state["y.running_var"])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    trained = run(net.function("objective"), {"x": x, **w, **state})
    mean, var = x.mean(others), x.var(others)
    np.testing.assert_allclose(trained["loss"], np.sum(normalised(mean, var) ** 3), rtol=1e-10)
    np.testing.assert_allclose(trained["update.y.running_mean"],
                               0.9 * state["y.running_mean"] + 0.1 * mean, rtol=1e-12)
    np.testing.assert_allclose(trained["update.y.running_var"], 0.9 * state["y.running_var"]
                               + 0.1 * x.var(others, ddof=1), rtol=1e-12)
    check_gradients(net, {"x": x, **w, **state}, ["y.gain", "y.shift", "x"])


@pytest.mark.parametrize("form, steps_alike", [("dropout", False), ("dropout_sequence", True)])
def test_dropout(form, steps_alike):
    """Zeros at the rate, the mean kept; the gradient has the same mask; prediction has none."""
    net = network(f"param w : f32[] = 1\ny = w * x |> {form}(0.25)\noutput y\nloss sum(y * x)",
                  head="input x : f32[40, 50, 30]")
    x = np.ones((40, 50, 30))
    given = {"x": x, "w": np.array(1.0), "seed": np.array([5, 0], np.uint32),
             "draws": np.array(3, np.uint32)}
    np.testing.assert_array_equal(run(net.function("infer"), given)["y"], x)
    objective = net.function("objective")
    wanted = [p.value for p in objective.params if p.value.name in ("x", "w")]
    found = run(differentiate(objective, "loss", wanted), given)
    mask = found["grad.x"] / 2
    np.testing.assert_allclose(np.unique(mask), [0, 4 / 3])
    np.testing.assert_allclose(found["loss"], mask.sum())
    np.testing.assert_allclose(found["grad.w"], mask.sum())
    assert abs(np.mean(mask == 0) - 0.25) < (0.05 if steps_alike else 0.01)
    assert bool((mask == mask[:, :1]).all()) == steps_alike
