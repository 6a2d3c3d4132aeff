"""What a file means: graphs interpreted against NumPy, parameter names, sizes, settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.errors import UserError
from nncompiler.ir.interp import run
from nncompiler.ir.model import Network
from nncompiler.ir.train import Objective, OptimizerSpec, ScheduleSpec
from nncompiler.ir.types import F32, F64
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate, free_sizes
from nncompiler.lang.elaborate.init import fans
from nncompiler.lang.parse import parse
from nncompiler.passes.training import optimizer

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").glob("*.nn"))
SEED = np.array([7, 0], np.uint32)


def network(text: str, *, dtype=F64, **sizes: int) -> Network:
    """Elaborate a file."""
    return elaborate(parse(text, "test.nn"), sizes=sizes, dtype=dtype)


def model(body: str, *, before: str = "", head: str = "input x : f32[3, 4]", **options) -> Network:
    """Elaborate a model with this body."""
    return network(f"{before}\nmodel m {{ {head}\n{body}\n}}", **options)


def value(expression: str, x: np.ndarray | None = None, *, before: str = "",
          head: str = "input x : f32[3, 4]") -> np.ndarray:
    """What an expression of `x` gives in f64."""
    if x is None:
        x = np.linspace(-2, 2, 12).reshape(3, 4)
    found = model(f"output y = {expression}\noutput rest = sum(f32(x))", before=before, head=head)
    f = found.function("infer")
    assert not verify(f)
    return run(f, {"x": x})["y"]


def weights(net: Network) -> dict[str, np.ndarray]:
    """What `init` draws."""
    return run(net.function("init"), {"seed": SEED})


def names(net: Network) -> list[str]:
    """The names of the parameters."""
    return [name for name, _ in net.parameters]


X = np.linspace(-2, 2, 12).reshape(3, 4)


# Models -----------------------------------------------------------------------------------------


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


# Expressions ------------------------------------------------------------------------------------


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


# Layers and names -------------------------------------------------------------------------------


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


# Sizes ------------------------------------------------------------------------------------------


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


# Initialisers -----------------------------------------------------------------------------------


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


# Training ---------------------------------------------------------------------------------------


def trained(settings: str, losses: str = "loss mse(y, t)"):
    """The `TrainSpec` of a train block."""
    return network(f"""
    model m {{
        input  x : f32[batch, 4]
        target t : f32[batch, 1]
        y = x |> dense(1)
        output y
        {losses}
    }}
    train {{ {settings} }}""", batch=2).train


@pytest.mark.parametrize("text, kind, settings", [
    ("sgd(0.1)", "sgd", {"lr": 0.1}),
    ("sgd(lr = 0.1, momentum = 0.9)", "momentum", {"lr": 0.1, "momentum": 0.9}),
    ("sgd(0.1, 0.9, nesterov = true)", "nesterov", {"lr": 0.1, "momentum": 0.9}),
    ("adagrad()", "adagrad", {"lr": 0.01, "eps": 1e-10}),
    ("rmsprop(rho = 0.9)", "rmsprop", {"lr": 0.01, "rho": 0.9, "eps": 1e-8}),
    ("adam()", "adam", {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
    ("adamw(1e-2)", "adamw",
     {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}),
])
def test_optimizer(text, kind, settings):
    """An optimizer has all its settings."""
    assert trained(f"optimizer = {text}").optimizer == OptimizerSpec(kind, tuple(settings.items()))


@pytest.mark.parametrize("text, kind, settings", [
    ("constant()", "constant", {}),
    ("constant(warmup = 10)", "constant", {"warmup": 10}),
    ("step(every = 30)", "step", {"every": 30, "gamma": 0.1}),
    ("exponential(every = 5, gamma = 0.9, warmup = 2)", "exponential",
     {"every": 5, "gamma": 0.9, "warmup": 2}),
    ("cosine(total = 100, floor = 0.1)", "cosine", {"total": 100, "floor": 0.1}),
])
def test_schedule(text, kind, settings):
    """A schedule has all its settings."""
    found = trained(f"optimizer = sgd(1) schedule = {text}").schedule
    assert found == ScheduleSpec(kind, tuple(settings.items()))


def test_other_settings():
    """Batch, epochs, penalties and clipping; computed numbers are allowed."""
    found = trained("optimizer = sgd(1e-1) batch = 2 * 8 epochs = 3 l1 = 1e-5 l2 = 1e-4\n"
                    "clip_norm = 5 clip_value = 0.5")
    assert (found.batch, found.epochs, found.l1, found.l2) == (16, 3, 1e-5, 1e-4)
    assert (found.clip_norm, found.clip_value) == (5, 0.5)


def test_several_losses():
    """`minimize` gives each loss its parameters, in file order."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        gen = x |> dense(1)
        gen2 = x |> dense(1)
        param s : f32[] = ones()
        output y = gen * s + gen2
        loss a = mean(gen)
        loss b = mean(gen2 * s)
    }
    train {
        optimizer = adam()
        minimize b over s
        minimize a over gen
    }""", batch=2)
    assert net.losses == ("a", "b")
    assert net.train.objectives == (Objective("b", "s"), Objective("a", "gen"))


def test_losses_over_one_name_alone():
    """A name covers what hangs from it by a dot or a bracket, not names that go on otherwise."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        param s : f32[4] = ones()
        param scale : f32[4] = ones()
        h = x * s * scale
        for i in 0..2 {
            h = h |> dense(4) as block
        }
        output h
        loss a = mean(h)
        loss b = mean(h ** 2)
    }
    train {
        optimizer = adam()
        minimize a over s
        minimize b over block
        minimize a over block[1]
    }""", batch=2)
    covered = [[n for n, _ in net.parameters if o.covers(n)] for o in net.train.objectives]
    first, second = ["block[0].W", "block[0].b"], ["block[1].W", "block[1].b"]
    assert covered == [["s"], first + second, second]
    results = dict(optimizer.train_step(net).results)
    changed = {n.removeprefix("update.") for n in results if not n.startswith("update.opt.")}
    assert changed == {"a", "b", "step", "s", *first, *second}


def test_batch_of_a_train_block_without_one():
    """A train block without `batch` has steps of 32 rows, as the reference says."""
    net = network("""
    model m {
        input x : f32[batch, 4]
        output y = x |> dense(1)
        loss mean(y)
    }
    train { optimizer = adam() }""")
    assert dict(net.sizes) == {"batch": 32} and net.train.batch == 32


def test_no_train_block():
    """Without a train block there is no training."""
    assert model("output y = x").train is None


def test_error_in_library_points_at_the_call():
    """An error inside the standard library shows the user's line first."""
    with pytest.raises(UserError) as caught:
        model("output y = x |> dense(3, bias = false) |> cross_entropy(1, 2)")
    assert caught.value.span.file == "test.nn"
