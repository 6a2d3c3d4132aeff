"""Terms that are zero or that nobody asks for: what is found of them, and that they are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nncompiler
from nncompiler.ir.kernel import Fold, For, Kernel, Schedule, Store
from nncompiler.ir.scalar import Affine, Iota, Ref, apply, const
from nncompiler.ir.types import DTYPES, F32, I32
from tests.nest_harness import at, axes, kernel, load, run

MASKED = """
model masked {{
    input x : f32[batch, {m}, 9]
    input y : f32[batch, 9, {n}]
    input z : f32[batch, {n}, 11]
    input w : f32[batch, {m}, 10]
    seen = reshape(range({m}), {m}, 1) + {ahead} {op} range({n})
    p = {p}
    output q = p @ z
    output r = transpose(p) @ w
}}
"""
COMPARE = {">=": np.greater_equal, ">": np.greater, "<": np.less, "<=": np.less_equal}


@pytest.mark.parametrize(("m", "n"), [(5, 7), (37, 12), (50, 50)])
@pytest.mark.parametrize(("op", "ahead"), [(">=", 0), (">", 3), ("<", -2), ("<=", 40)])
def test_masked_products(m: int, n: int, op: str, ahead: int) -> None:
    """What a product with a mask leaves out is not missed, in whatever order it is read."""
    text = MASKED.format(m=m, n=n, op=op, ahead=ahead, p="where(seen, x @ y, 0)")
    model = nncompiler.compile(text, batch=2)
    rng = np.random.default_rng(m)
    shapes = {"x": (2, m, 9), "y": (2, 9, n), "z": (2, n, 11), "w": (2, m, 10)}
    data = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    seen = COMPARE[op](np.arange(m)[:, None] + ahead, np.arange(n))
    assert model.dump("plan", "infer").count(" within ") == (0 if seen.all() else 3)
    p = np.where(seen, data["x"] @ data["y"], 0)
    expected = {"q": p @ data["z"], "r": np.swapaxes(p, 1, 2) @ data["w"]}
    found = model.predict(data)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("p", "count"),
    [
        ("where(seen, x @ y, 0) / 3", 3),
        ("where(seen, x @ y, 0) * 0.5", 3),
        ("where(seen, x @ y, 1)", 1),
        ("where(seen, 0, x @ y)", 0),
        ("where(seen, x @ y, 0) + 1", 1),
        ("where(x @ y > 0, x @ y, 0)", 0),
        ("where(seen and x @ y > 0, x @ y, 0)", 2),
        ("x @ y", 0),
    ],
)
def test_what_is_known(p: str, count: int) -> None:
    """Zeros are known where a condition of places alone selects them, sums are not asked for
    where all uses of them are selected so; nothing else is left out.
    """
    text = MASKED.format(m=20, n=20, op=">=", ahead=0, p=p)
    assert nncompiler.compile(text, batch=2).dump("plan", "infer").count(" within ") == count


def test_causal_attention_leaves_out_what_lies_ahead() -> None:
    """Both products of attention and all four of its gradient; of the weights, their maximum,
    sum and two loops; of their gradient, a sum and a loop.
    """
    text = """
    model causal {
        input x : f32[batch, 13, 8]
        target t : f32[batch, 13, 8]
        y = x |> self_attention(2, causal=true)
        output y
        loss mean((y - t) ** 2)
    }
    """
    plan = nncompiler.compile(text, batch=2).dump("plan", function="grad")
    assert plan.count(" within ") == 12


ATTENTION = """
model attention {{
    input q : f32[batch, {m}, 8]
    input k : f32[batch, {n}, 8]
    input v : f32[batch, {n}, 5]
    target t : f32[batch, {m}, 5]
    y = attention(q |> dense(8) as a, k |> dense(8) as b, v |> dense(5) as c, causal=true)
    output y
    loss sum(y * t)
}}
"""


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("m", "n"),
    [(1, 1), (2, 2), (3, 3), (15, 15), (16, 16), (17, 17), (33, 33), (5, 37), (24, 16), (16, 24)],
)
def test_weights_of_what_lies_ahead_are_not_computed(m: int, n: int, dtype: str) -> None:
    """Attention and its gradient at awkward sizes are those of the formula; queries that may look
    nowhere, as there are where keys are fewer, give zero and pass back zero.
    """
    model = nncompiler.compile(ATTENTION.format(m=m, n=n), batch=2, dtype=dtype)
    model.init(1)
    real = np.float32 if dtype == "f32" else np.float64
    rng = np.random.default_rng(m)
    shapes = {"q": (2, m, 8), "k": (2, n, 8), "v": (2, n, 5), "t": (2, m, 5)}
    data = {name: rng.standard_normal(s).astype(real) for name, s in shapes.items()}
    w = {name: np.asarray(a, np.float64) for name, a in model.parameters.items()}
    q, k, v = (data[x] @ w[f"{y}.W"] + w[f"{y}.b"] for x, y in zip("qkv", "abc", strict=True))
    seen = np.arange(m)[:, None] + (n - m) >= np.arange(n)
    scores = np.where(seen, q @ np.swapaxes(k, 1, 2) / np.sqrt(8), -np.inf)
    e = np.where(seen, np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e30)), 0)
    p = e / np.maximum(e.sum(-1, keepdims=True), 1)
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == "f32" else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(model.predict({x: data[x] for x in "qkv"}), p @ v, **near)
    dp = data["t"] @ np.swapaxes(v, 1, 2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(8)
    expected = {
        "a.W": np.einsum("bmi,bmj->ij", data["q"], ds @ k),
        "b.W": np.einsum("bni,bnj->ij", data["k"], np.swapaxes(ds, 1, 2) @ q),
        "c.W": np.einsum("bni,bnj->ij", data["v"], np.swapaxes(p, 1, 2) @ data["t"]),
    }
    found = model.gradients(data)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, **near)


RECURRENCE = """
model recurrence {{
    input x : f32[batch, 6, 8]
    input start : f32[batch, 8]
    target t : f32[batch, 8]
    param w : f32[8, 8] = glorot_uniform()
    h = scan z over x axis 1 carry h = {start} {{
        h = tanh(z + h @ w)
    }}
    output y = h + start
    loss sum(y * t)
}}
"""


@pytest.mark.parametrize(
    ("start", "forward", "backward"),
    [
        ("zeros(batch, 8)", 1, 1),
        ("0 * ones(batch, 8)", 1, 1),
        ("ones(batch, 8)", 0, 1),
        ("start", 0, 1),
    ],
)
def test_recurrences_begin_with_zeros(start: str, forward: int, backward: int) -> None:
    """Zeros that a recurrence starts from are not multiplied, other values are; nobody asks for
    the gradient of a start that no parameter decides.
    """
    model = nncompiler.compile(RECURRENCE.format(start=start), batch=2)
    assert model.dump("plan", "infer").count("within t0-1 >= 0") == forward
    assert model.dump("plan", "grad").count("within t0-1 >= 0") == forward + backward
    model.init(1)
    rng = np.random.default_rng(0)
    x, h, t = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 8), (2, 8), (2, 8)))
    w = np.asarray(model.parameters["w"])
    first = {"start": h, "ones(batch, 8)": np.ones_like(h)}.get(start, np.zeros_like(h))
    states = [first]
    for z in np.swapaxes(x, 0, 1):
        states.append(np.tanh(z + states[-1] @ w))
    data = {"x": x, "start": h}
    np.testing.assert_allclose(model.predict(data), states[-1] + h, rtol=1e-5, atol=1e-5)
    dh, dw = t, np.zeros_like(w)
    for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
        dz = dh * (1 - after**2)
        dh, dw = dz @ w.T, dw + before.T @ dz
    np.testing.assert_allclose(model.gradients({**data, "t": t})["w"], dw, rtol=1e-4, atol=1e-4)


def test_products_with_the_first_state_are_not_computed() -> None:
    """They would give NaN with weights that are NaN."""
    text = RECURRENCE.format(start="zeros(batch, 8)").replace(", 6, 8", ", 1, 8")
    model = nncompiler.compile(text, batch=2)
    model.init(1)
    model.load_state_dict({"w": np.full((8, 8), np.nan, np.float32)})
    x, none = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 1, 8), np.zeros((2, 8))
    found = model.predict({"x": x, "start": none.astype(np.float32)})
    np.testing.assert_allclose(found, np.tanh(x[:, 0]), rtol=1e-6)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 33, 300])
@pytest.mark.parametrize("low", [False, True])
def test_loops_leave_out_what_is_zero(n: int, low: bool, real: type) -> None:
    """A loop stores zeros, and a fold adds and compares nothing, whole vectors away from the
    elements that count: what is there may be anything.
    """
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, n)).astype(real)
    y, z = np.ones((n, n), real), np.ones((2, n), real)
    off = (np.arange(n)[:, None] - np.arange(n)) * (-1 if low else 1)
    x[off < 0] = -9
    total, largest = np.where(off >= 0, x, 0).sum(1), x.max(1)
    if n < 300:  # a long sum is cut into blocks, which run whole
        x[(off < -16) & (np.arange(n) < n // 16 * 16)] = np.nan
    form = Affine((("i", -1), ("j", 1)) if low else (("i", 1), ("j", -1)))
    inside = apply("ge", Iota(form, I32), const(0, I32))
    value = apply("select", inside, load("x", x, "i", "j"), const(0, DTYPES[f"f{8 * x.itemsize}"]))
    body = (
        Fold(("a",), "sum", axes(j=n), (value,), within=(form,)),
        Fold(("b",), "max", axes(j=n), (load("x", x, "i", "j"),), within=(form + 1,)),
        Store("z", at(0, "i"), Ref("a", value.dtype)),
        Store("z", at(1, "i"), Ref("b", value.dtype)),
        For(axes(j=n), (Store("y", at("i", "j"), value),), within=(form,)),
    )
    run(kernel(For(axes(i=n), body), vector=("j",)), x=x, y=y, z=z)
    np.testing.assert_array_equal(y, np.where(off >= 0, x, 0))
    np.testing.assert_allclose(z, [total, largest], rtol=1e-4)


@pytest.mark.parametrize("n", [1, 8, 27, 48])
@pytest.mark.parametrize("tile", [(1, 8), (4, 16), (6, 16), (5, 8)])
@pytest.mark.parametrize("pack", [0, 16])
@pytest.mark.parametrize(("rows", "columns"), [("i", "k"), ("k", "i")])
def test_what_may_be_left_out_is_not_read(
    n: int, tile: tuple[int, int], pack: int, rows: str, columns: str
) -> None:
    """Terms so far off that no tile reaches from those that count to them may be anything, but
    where a tile fills panels as it reads.
    """
    rng = np.random.default_rng(n)
    p, v = (rng.standard_normal(s).astype(np.float32) for s in ((n, n), (n, 19)))
    place = np.arange(n)
    off = place[:, None] - place
    p[off < 0] = 0
    expected = p @ v
    p[off < -16] = 0 if pack else np.nan
    y = np.zeros((n, 19), np.float32)
    schedule = Schedule("contract", (columns,), rows, tile, (columns, rows, "j"), pack)
    run(replace(triangle(p, v), schedule=schedule), p=p, v=v, y=y)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def triangle(p: np.ndarray, v: np.ndarray) -> Kernel:
    """A product with what is zero above the diagonal."""
    term = apply("mul", load("p", p, "i", "j"), load("v", v, "j", "k"))
    within = (Affine((("i", 1), ("j", -1))),)
    fold = Fold(("acc",), "sum", axes(j=len(p)), (term,), within=within)
    store = Store("y", at("i", "k"), Ref("acc", F32))
    return kernel(For(axes(i=len(p), k=v.shape[1]), (fold, store)))
