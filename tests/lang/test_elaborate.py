"""What a file means: parameter names, layers, sizes, and models interpreted against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.ir.interp import run
from nncompiler.ir.types import F32, F64
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate, free_sizes
from nncompiler.lang.parse import parse
from tests.lang.elaborated import ROOT, X, model, names, network, value, weights

MODELS = sorted((ROOT / "models").glob("*.nn"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_model_elaborates(path, dtype):
    """Every model gives functions that verify, with the parameters of its network."""
    net = elaborate(parse(path.read_bytes(), path.name), sizes={"batch": 3}, dtype=dtype)
    assert net.name == path.stem and dict(net.sizes) == {"batch": 3}
    for f in net.functions:
        assert not verify(f), f.name
    drawn = [(n, v.type) for n, v in net.function("init").results]
    assert drawn == [*net.parameters, *net.states]
    assert [n for n, _ in net.function("infer").results] == [n for n, _ in net.outputs]
    assert [n for n, _ in net.function("loss").results] == [*net.losses, *net.metrics]
    changed = [n for n, _ in net.function("objective").results if n.startswith("update.")]
    assert [n for n, _ in net.function("objective").results] == [*net.losses, *changed]
    assert {n.removeprefix("update.") for n in changed} <= {n for n, _ in net.states}
    lines = len(path.read_text().splitlines())
    spans = [n.span for f in net.functions for n in f.nodes]
    spans += [span for _, span in net.parameter_spans]
    assert all(s and s.file == path.name and s.line <= lines for s in spans)


ROWS = np.array([[0.04, 0.81], [0.84, 0.58], [0.50, 0.07], [0.53, 1.00]])
WANTED = np.array([[0.94], [0.13], [0.57], [0.36]])
POWERPLANT = {
    "h1.W": np.array([[-0.20, 0.09, 0.11], [0.11, -0.13, -0.02]]),
    "h1.b": np.array([0.10, -0.19, 0.04]),
    "h2.W": np.array([[-0.04, 0.20], [0.10, 0.14], [0.06, -0.09]]),
    "h2.b": np.array([0.15, 0.12]),
    "y.W": np.array([[0.12], [-0.50]]),
    "y.b": np.array([0.10]),
}


@pytest.mark.parametrize("name, predictions, loss", [
    ("powerplant", [0.4715, 0.4718, 0.4717, 0.4716], 0.1792),
    ("powerplant_relu", [0.0405, 0.0643, 0.0621, 0.0512], 0.5834),
])
def test_powerplant_predictions(name, predictions, loss):
    """The worked example: predictions, loss and the weighted sums of the second row."""
    text = (ROOT / f"models/{name}.nn").read_bytes()
    net = elaborate(parse(text, name), sizes={"batch": 4}, dtype=F64)
    assert {n: t.shape for n, t in net.parameters} == {n: w.shape for n, w in POWERPLANT.items()}
    found = run(net.function("infer"), {"x": ROWS, **POWERPLANT})
    np.testing.assert_allclose(found["prediction"][:, 0], predictions, atol=1e-4)
    losses = run(net.function("loss"), {"x": ROWS, "t": WANTED, **POWERPLANT})
    np.testing.assert_allclose(losses["loss"], loss, atol=1e-4)
    if name == "powerplant":
        z = np.concatenate([found[k][1] for k in ("z1", "z2", "z3")])
        wanted = [-0.0042, -0.1898, 0.1208, 0.207122, 0.235460, -0.113108]
        np.testing.assert_allclose(z, wanted, atol=1e-4)


def test_scalar_graphs():
    """The three graphs have their values at their initial points."""
    text = (ROOT / "models/scalar_graphs.nn").read_bytes()
    net = elaborate(parse(text, "s"), sizes={"batch": 1}, dtype=F64)
    found = run(net.function("infer"), {"scale": np.ones(1), **weights(net)})
    np.testing.assert_allclose([found[k][0] for k in "fel"], [-12, 6, 11.652], atol=5e-4)


def test_logic_gates():
    """Threshold units compute the gates."""
    text = (ROOT / "models/logic_gates.nn").read_bytes()
    net = elaborate(parse(text, "g"), dtype=F64)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = run(net.function("infer"), {"x": x, **weights(net)})
    wanted = {"and_gate": [0, 0, 0, 1], "or_gate": [0, 1, 1, 1], "not_gate": [1, 1, 0, 0],
              "xor_gate": [0, 1, 1, 0]}
    for name, column in wanted.items():
        assert found[name][:, 0].tolist() == column
    np.testing.assert_allclose(found["logistic_and"][:, 0], [0, 0, 0, 1], atol=1e-4)


@pytest.mark.parametrize("body, wanted", [
    ("h = x |> dense(3) |> relu\noutput y = h |> dense(1)", ["h.W", "h.b", "y.W", "y.b"]),
    ("enc = dense(3)\noutput y = x |> enc", ["enc.W", "enc.b"]),
    ("enc = dense(4, bias = false)\noutput y = x |> enc |> enc", ["enc.W"]),
    ("h = x |> dense(3, bias=false) |> dense(2, bias=false)\noutput h",
     ["dense1.W", "dense2.W"]),
    ("h = x |> dense(3, bias=false)\nh = h |> dense(2, bias=false)\noutput h",
     ["dense1.W", "dense2.W"]),
    ("x = x |> dense(3, bias=false)\noutput y = x", ["dense1.W"]),
    ("h = x |> dense(3, bias=false) as head |> dense(2, bias=false)\noutput h",
     ["head.W", "dense1.W"]),
    ("h = dense(3, bias=false)(x) as first\noutput h", ["first.W"]),
    ("h = dense(3, bias=false) as first\noutput y = x |> h", ["first.W"]),
    ("if 1 > 2 { h = x |> dense(3, bias=false) } else { h = x |> dense(2, bias=false) }\noutput h",
     ["h.W"]),
    ("h = x |> mlp([5, 2])\noutput h",
     ["h.dense[0].W", "h.dense[0].b", "h.dense[1].W", "h.dense[1].b"]),
    ("for i in 0..2 { b = dense(4, bias=false)\nx = x |> b }\noutput y = x", ["b[0].W", "b[1].W"]),
    ("h = x |> prelu() |> dense(1, bias=false)\noutput h", ["prelu1.a", "dense1.W"]),
    ("param W : f32[4, 2] = zeros()\noutput y = x @ W", ["W"]),
])
def test_parameter_names(body, wanted):
    """Parameters are named as the language reference says."""
    assert names(model(body)) == wanted


NESTED = """
layer attn(d)(x : f32[..., n]) {
    q = dense(d, bias = false)
    k = x |> dense(d, bias = false)
    return (x |> q) * k
}
layer block()(x : f32[..., n]) {
    r = x |> attn(n)
    return x + r |> dense(n) as out
}
"""


def test_nested_names_and_sharing():
    """Inner instances append to the name; a shared outer instance shares them."""
    wanted = ["b.r.q.W", "b.r.k.W", "b.out.W", "b.out.b"]
    assert sorted(names(model("b = block()\noutput y = x |> b", before=NESTED))) == sorted(wanted)
    shared = model("b = block()\noutput y = x |> b |> b", before=NESTED)
    assert sorted(names(shared)) == sorted(wanted)
    contracts = [n for n in shared.function("infer").nodes if n.op == "contract"]
    assert len(contracts) == 6


def test_parameter_of_an_instance():
    """`enc.W` is the parameter itself: a tied decoder."""
    net = model("enc = dense(2, bias = false)\nh = x |> enc\noutput y = h @ transpose(enc.W)")
    w = np.arange(8.0).reshape(4, 2)
    found = run(net.function("infer"), {"x": X, "enc.W": w})["y"]
    np.testing.assert_allclose(found, X @ w @ w.T)


def test_layer_header_names_sizes():
    """Free sizes of a header are known in the body and fresh at each call."""
    before = "layer scaled()(x : f32[..., n]) { param s : f32[n] = ones() return n * (s * x) }"
    net = model("a = x |> scaled()\nb = transpose(x) |> scaled()\noutput a\noutput b",
                before=before)
    assert {n: t.shape for n, t in net.parameters} == {"a.s": (4,), "b.s": (3,)}
    found = run(net.function("infer"), {"x": X, **weights(net)})
    np.testing.assert_allclose(found["a"], 4 * X)
    np.testing.assert_allclose(found["b"], 3 * X.T)


def test_user_definitions_come_before_the_library():
    """A layer called `dense` in the file is the one that is used; the library keeps its own."""
    before = "layer dense(k)(x) { param g : f32[] = ones() return k * g * x }"
    assert names(model("h = x |> dense(2)\noutput h", before=before)) == ["h.g"]
    assert "h.dense[0].W" in names(model("h = x |> mlp([2])\noutput h", before=before))


def test_training_is_a_compile_time_flag():
    """`training` is true in the objective and false in the loss."""
    net = model("param w : f32[4] = ones()\ny = x * w\nif training { y = 10 * y }\n"
                "output y\nloss e = mean(y)\nmetric twice = 2 * e")
    arguments = {"x": X + 3, "w": np.ones(4)}
    loss = run(net.function("loss"), arguments)
    assert list(loss) == ["e", "twice"] and loss["twice"] == 2 * loss["e"]
    objective = run(net.function("objective"), arguments)
    np.testing.assert_allclose(objective["e"], 10 * loss["e"])
    np.testing.assert_allclose(run(net.function("infer"), arguments)["y"], X + 3)


def test_functions_take_what_they_read():
    """`infer` has no targets and only its parameters, in the order of declaration."""
    net = network("""
    model m {
        input  x : f32[batch, 4]
        target t : f32[batch, 1]
        y = x |> dense(1)
        other = x |> dense(1)
        output y
        loss mse(y + other, t)
    }""", batch=2)
    assert [(p.kind, p.value.name) for p in net.function("infer").params] == [
        ("input", "x"), ("param", "y.W"), ("param", "y.b")]
    assert [p.value.name for p in net.function("objective").params] == [
        "x", "t", "y.W", "y.b", "other.W", "other.b"]


def test_free_sizes():
    """Free sizes are what types of inputs and targets leave open."""
    file = parse("""
    model m(classes = 10) {
        n = 3
        input  x : f32[batch, 2 * time, n, classes]
        target t : f32[batch, k]
        param w : f32[] = ones()
        output y = sum(x)
        loss w * sum(t)
    }
    train { optimizer = adam() batch = 5 }""", "m.nn")
    assert free_sizes(file) == ("batch", "time", "k")
    net = elaborate(file, sizes={"time": 2, "k": 7})
    assert net.sizes == (("batch", 5), ("time", 2), ("k", 7))
    assert net.inputs[0][1].shape == (5, 4, 3, 10)
    larger = elaborate(file, sizes={"time": 2, "k": 7, "batch": 9, "classes": 2})
    assert larger.inputs[0][1].shape == (9, 4, 3, 2)


def test_deep_but_legal_nesting():
    """Sixty calls and a hundred brackets are no problem; the recursion limit is put back."""
    import sys

    before = sys.getrecursionlimit()
    deep = "fn f(x, n) { if n == 0 { return x } return 1 + f(x, n - 1) }"
    np.testing.assert_allclose(value("f(x, 60)", before=deep), X + 60)
    value("-" * 90 + "(x)")
    assert sys.getrecursionlimit() == before


def test_error_in_library_points_at_the_call():
    """An error inside the standard library shows the user's line first."""
    with pytest.raises(UserError) as caught:
        model("output y = x |> dense(3, bias = false) |> cross_entropy(1, 2)")
    assert caught.value.span.file == "test.nn"
