"""Sequences made in the loop that reads them: which are, and that results stay what they were."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.errors import UserError
from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.index_bounds import index_bounds, whole
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F32, I32, TensorType
from nncompiler.ir.verify import verify
from nncompiler.passes.graph.sink import Sink


def scanned(b: Builder, x: Value, axis: int, reverse: bool = False) -> Function:
    """`h = tanh(h + x)` along `axis` of `x`, and the sum of all h."""
    steps = x.shape[axis]
    type = TensorType(F32, (*x.shape[:axis], *x.shape[axis + 1 :]))
    inner = Builder("body")
    step, h = inner.operand("step", type), inner.operand("h", type)
    after = inner.emit("tanh", inner.emit("add", step, h))
    body = inner.finish([("h", after), ("stack", after)])
    attrs = {"axes": (axis,), "carries": 1, "extent": steps, "out_axes": (0,), "reverse": reverse}
    zero = b.full(0.0, type)
    last, stack = b.emit_many("scan", (x, zero), attrs, body=body)
    return b.finish([("last", last), ("stack", stack)])


def sunk(f: Function) -> Function:
    found = Sink().run(f)
    assert verify(found) == []
    values = random_arguments(f, 1)
    before, after = run(f, values), run(found, values)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((3, 7), 1), ((3, 7), 0), ((1, 1), 1)])
def test_rows_of_a_table(shape: tuple[int, ...], axis: int, reverse: bool) -> None:
    """With a bias behind them: the loop takes indices, and captures the table."""
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, shape))
    table = b.param("param", "table", TensorType(F32, (9, 8)))
    bias = b.param("param", "bias", TensorType(F32, (8,)))
    rows = b.emit("add", b.emit("gather", table, text, axis=0), bias)
    f = scanned(b, rows, axis, reverse)
    found = sunk(f)
    assert "gather" not in [n.op for n in found.nodes]
    (loop,) = (n for n in found.nodes if n.op == "scan")
    assert {v.name for v in loop.inputs} > {"text", "table", "bias"}
    assert index_bounds(found)[text] == {whole(shape): 9}


@pytest.mark.parametrize("kind", ["read twice", "a result", "exp", "sequence", "other axis"])
def test_what_stays(kind: str) -> None:
    """Sequences that somebody else reads or that take as much to read or long to compute."""
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, (4, 6)))
    table = b.param("param", "table", TensorType(F32, (9, 8)))
    x = b.emit("gather", table, text, axis=0)
    axis, more = 1, []
    if kind == "exp":
        x = b.emit("exp", x)
    elif kind == "sequence":
        x = b.emit("mul", x, b.param("input", "y", x.type))
    elif kind == "other axis":
        axis = 2
    elif kind == "a result":
        more = [("x", x)]
    else:
        more = [("twice", b.emit("neg", x))]
    f = scanned(b, x, axis)
    f = Function(f.name, f.params, f.nodes, (*f.results, *more))
    assert sunk(f) is f


def test_two_sequences_of_one_loop() -> None:
    """Both are made in it, under names of their own."""
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, (6,)))
    table = b.param("param", "table", TensorType(F32, (9, 8)))
    x = b.emit("gather", table, text, axis=0)
    y = b.emit("gather", table, text, axis=0)
    type = TensorType(F32, (8,))
    inner = Builder("body")
    p, q, h = (inner.operand(n, type) for n in ("p", "text.step", "h"))
    after = inner.emit("add", inner.emit("mul", p, q), h)
    body = inner.finish([("h", after)])
    attrs = {"axes": (0, 0), "carries": 1, "extent": 6, "out_axes": (), "reverse": False}
    (last,) = b.emit_many("scan", (x, y, b.full(0.0, type)), attrs, body=body)
    assert "gather" not in [n.op for n in sunk(b.finish([("last", last)])).nodes]


MODEL = """
model words(vocabulary = 7) {
    input text : i32[batch, 9]
    target next : i32[batch]
    embed = embedding(vocabulary, 5)
    states, last = text |> embed |> gru(6, last=true)
    logits = last |> dense(vocabulary)
    output p = softmax(logits)
    loss cross_entropy(logits, next)
}

train { optimizer = sgd(lr=0.1) batch = 64 }
"""


def test_indices_are_checked_where_a_loop_uses_them(tmp_path) -> None:
    """A character that the table does not have is refused, not clamped."""
    path = tmp_path / "words.nn"
    path.write_text(MODEL)
    model = nncompiler.compile(path, batch=64)
    good = np.arange(64 * 9, dtype=np.int32).reshape(64, 9) % 7
    assert np.isfinite(model.predict(good)).all()
    for wrong in (-1, 7):
        bad = good.copy()
        bad[3, 4] = wrong
        with pytest.raises(UserError) as caught:
            model.predict(bad)
        assert caught.value.code == "NN0705"
