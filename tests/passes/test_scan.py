"""`scan` from operator to machine code: values, gradients, loops of any length, nesting."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.codegen.emit import build
from nncompiler.codegen.target import host
from nncompiler.ir.graph import Builder, Function, Value
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Loop
from nncompiler.ir.model import EntryPoint, Program
from nncompiler.ir.ops.scan import emit_scan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F32, F64, I32, DType, TensorType
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.passes.training.autodiff import differentiate
from tests.differential import Compiled, differences
from tests.networks import MATMUL, run_planned
from tests.passes.test_gradient import check_by_differences


def cell(batch: int, units: int, dtype: DType) -> Function:
    """One step of an Elman network: h = tanh(z + h W + b), yielded."""
    b = Builder("body")
    z, h = (b.operand(n, TensorType(dtype, (batch, units))) for n in ("z", "h"))
    w, bias = (
        b.operand("W", TensorType(dtype, (units, units))),
        b.operand("bias", TensorType(dtype, (units,))),
    )
    total = b.emit("add", b.emit("add", z, b.emit("contract", h, w, spec=MATMUL)), bias)
    after = b.emit("tanh", total)
    return b.finish([("h", after), ("y", after)])


def rnn(
    batch: int, time: int, features: int, units: int, dtype: DType = F32, reverse: bool = False
) -> Function:
    """An Elman network over the middle axis; the loss looks at every output and at the last
    state."""
    b = Builder(f"rnn{time}")
    x = b.param("input", "x", TensorType(dtype, (batch, time, features)))
    wx = b.param("param", "Wx", TensorType(dtype, (features, units)))
    wh = b.param("param", "Wh", TensorType(dtype, (units, units)))
    bias = b.param("param", "b", TensorType(dtype, (units,)))
    xs = b.emit("contract", x, wx, spec="i t j k: i t k, k j -> i t j")
    start = b.full(0.0, TensorType(dtype, (batch, units)))
    last, ys = emit_scan(
        b, cell(batch, units, dtype), [(xs, 1)], [start], [wh, bias], [1], time, reverse
    )
    squares = b.emit("reduce_sum", b.emit("mul", ys, ys), axes=(0, 1, 2), keepdims=False)
    loss = b.emit("add", squares, b.emit("reduce_sum", last, axes=(0, 1), keepdims=False))
    return b.finish([("loss", loss), ("ys", ys), ("last", last)])


def gradient_of(f: Function) -> Function:
    return differentiate(f, "loss", f.params_of("param"), f.name)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_matches_central_differences(reverse: bool) -> None:
    """Backpropagation through time is the gradient of the loop, in either direction."""
    f = rnn(2, 4, 3, 2, F64, reverse)
    check_by_differences(f, "loss", random_arguments(f, 5), ["Wx", "Wh", "b"])


def test_gradient_is_that_of_the_unrolled_graph() -> None:
    """The textbook's definition: n steps of the loop, written out one after another."""
    f = rnn(2, 3, 3, 2, F64)
    values = random_arguments(f, 2)
    b = Builder("unrolled")
    named = {p.value.name: b.param(p.kind, p.value.name, p.value.type) for p in f.params}
    xs = b.emit("contract", named["x"], named["Wx"], spec="i t j k: i t k, k j -> i t j")
    h: Value = b.full(0.0, TensorType(F64, (2, 2)))
    loss: Value = b.const(0.0, F64)
    for t in range(3):
        z = b.emit("slice", xs, start=(0, t, 0), stop=(2, t + 1, 2), step=(1, 1, 1))
        total = b.emit(
            "add",
            b.emit("reshape", z, shape=(2, 2)),
            b.emit("contract", h, named["Wh"], spec=MATMUL),
        )
        h = b.emit("tanh", b.emit("add", total, named["b"]))
        loss = b.emit(
            "add", loss, b.emit("reduce_sum", b.emit("mul", h, h), axes=(0, 1), keepdims=False)
        )
    loss = b.emit("add", loss, b.emit("reduce_sum", h, axes=(0, 1), keepdims=False))
    unrolled = gradient_of(b.finish([("loss", loss)]))
    expected, found = run(unrolled, values), run(gradient_of(f), values)
    for name in ("loss", "grad.Wx", "grad.Wh", "grad.b"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "reverse"),
    [
        ((3, 5, 4, 2), False),
        ((17, 9, 33, 31), True),
        ((1, 1, 1, 1), False),
        ((2, 300, 3, 16), False),
    ],
)
def test_compiled_equals_interpreted(sizes: tuple[int, int, int, int], reverse: bool) -> None:
    """Forward and gradient in machine code; in the plan interpreter, iteration by iteration,
    too."""
    g = gradient_of(rnn(*sizes, reverse=reverse))
    compiled = Compiled([g])
    values = {k: 0.3 * v for k, v in random_arguments(g, 1).items()}
    assert differences(g, values, compiled.run(g.name, values)) == []
    if sizes[1] < 10 and sizes[0] < 10:
        for order in ("forward", "backward"):
            found = run_planned(g, compiled.plans[g.name], compiled.layout, values, order)
            assert differences(g, values, found) == []


def test_weight_gradient_is_one_contraction_behind_the_loop() -> None:
    """No step adds to dWh: its operands are stacked and multiplied once, over time and batch
    together."""
    g = gradient_of(rnn(2, 4, 3, 2))
    last = dict(g.results)
    maker = g.definitions()[last["grad.Wh"]]
    assert maker.op == "contract" and "t0" in str(maker.attr("spec"))


@pytest.mark.parametrize("batch, inputs, hidden", [(8, 8, 8), (8, 16, 16), (32, 32, 64)])
def test_length_changes_neither_kernels_nor_code_size(
    batch: int, inputs: int, hidden: int
) -> None:
    """A loop stays a loop: 16 and 1024 steps have equal kernels and files of equal size within a
    page of 4 KiB and 1 %: sums behind the loop are tiled by their size.
    """
    sizes, counts = [], []
    for time in (16, 1024):
        g = gradient_of(rnn(batch, time, inputs, hidden))
        c = Compiled([g], fused=False)
        program = Program("fuzz", F32, c.layout, (EntryPoint(g.name, "", c.plans[g.name]),))
        sizes.append(len(build(program, host()).so))
        counts.append(len(list(c.plans[g.name].kernels())))
        assert sum(isinstance(s, Loop) for s in c.plans[g.name].steps) == 2
    assert counts[0] == counts[1]
    assert abs(sizes[0] - sizes[1]) <= 4096 + 0.01 * sizes[0]


def nested(dtype: DType = F32) -> Function:
    """A scan over rows, each step of which scans over the row's elements."""
    inner = Builder("body")
    x, s, w = (inner.operand(n, TensorType(dtype, (3,))) for n in ("x", "s", "w"))
    after = inner.emit("tanh", inner.emit("add", inner.emit("mul", s, w), x))
    inner_body = inner.finish([("s", after), ("y", after)])
    outer = Builder("body")
    row, h = (
        outer.operand("row", TensorType(dtype, (4, 3))),
        outer.operand("h", TensorType(dtype, (3,))),
    )
    v = outer.operand("w", TensorType(dtype, (3,)))
    last, ys = emit_scan(outer, inner_body, [(row, 0)], [h], [v], [0], 4)
    outer_body = outer.finish([("h", last), ("y", ys)])
    b = Builder("nested")
    xs = b.param("input", "xs", TensorType(dtype, (5, 4, 3)))
    w0 = b.param("param", "w", TensorType(dtype, (3,)))
    _, stack = emit_scan(
        b, outer_body, [(xs, 0)], [b.full(0.0, TensorType(dtype, (3,)))], [w0], [0], 5
    )
    loss = b.emit("reduce_sum", b.emit("mul", stack, stack), axes=(0, 1, 2), keepdims=False)
    return b.finish([("loss", loss), ("stack", stack)])


def test_nested_scans() -> None:
    """A loop in a loop: gradient by differences, then compiled, forward and gradient."""
    check_by_differences(nested(F64), "loss", random_arguments(nested(F64), 4), ["w"])
    g = gradient_of(nested())
    values = random_arguments(g, 4)
    assert differences(g, values, Compiled([g]).run(g.name, values)) == []


def lookups(dtype: DType = F32) -> Function:
    """Each step adds the rows of a table that its symbols name: h = tanh(h + table[k])."""
    body = Builder("body")
    k, h = body.operand("k", TensorType(I32, (3,))), body.operand("h", TensorType(dtype, (3, 5)))
    table = body.operand("table", TensorType(dtype, (4, 5)))
    row = body.emit("gather", table, k, axis=0)
    after = body.emit("tanh", body.emit("add", h, row))
    step = body.finish([("h", after), ("y", after)])
    b = Builder("lookups")
    text = b.param("input", "text", TensorType(I32, (3, 7)))
    weight = b.param("param", "table", TensorType(dtype, (4, 5)))
    start = b.full(0.0, TensorType(dtype, (3, 5)))
    _, ys = emit_scan(b, step, [(text, 1)], [start], [weight], [1], 7)
    loss = b.emit("reduce_sum", b.emit("mul", ys, ys), axes=(0, 1, 2), keepdims=False)
    return b.finish([("loss", loss)])


def test_table_looked_up_in_every_step() -> None:
    """The table's gradient is one scatter behind the loop; by differences and in machine code."""
    check_by_differences(lookups(F64), "loss", random_arguments(lookups(F64), 4), ["table"])
    g = gradient_of(lookups())
    assert g.definitions()[g.result("grad.table")].op == "scatter_add"
    values = random_arguments(g, 4)
    assert differences(g, values, Compiled([g]).run(g.name, values)) == []


def test_every_pass_can_be_left_out() -> None:
    """Unfused and unsimplified loops compute the same."""
    g = gradient_of(rnn(3, 5, 4, 2))
    values = random_arguments(g, 6)
    for name in [p.name for p in OPTIMISE if p.name != "fuse"]:
        compiled = Compiled([g], [p for p in OPTIMISE if p.name != name])
        assert differences(g, values, compiled.run(g.name, values)) == []
