"""Masks of dropout: drawn again in the backward pass, never stored; one per sequence, too."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.analysis import generated
from nncompiler.ir.body import loads
from nncompiler.ir.graph import Function, Value
from nncompiler.ir.interp import run
from nncompiler.passes.training.optimizer import train_step

HEAD = "model m() {\n    input x : f32[batch, 7, 6]\n    target t : f32[batch, 7, 5]\n"
TAIL = """    output y
    loss mse(y, t)
}
train {
    optimizer = sgd(lr=0.1)
    batch = 4
}
"""
BODIES = {
    "dense": "    y = x |> dense(9) |> relu |> dropout(0.3) |> dense(5)\n",
    "twice": "    y = x |> dropout(0.2) |> dense(9) |> tanh |> dropout(0.5) |> dense(5)\n",
    "lstm, a mask per sequence":
        "    y = x |> dropout_sequence(0.3) |> lstm(8) |> dropout_sequence(0.4) |> dense(5)\n",
}


def model(body: str) -> str:
    return HEAD + BODIES[body] + TAIL


def bodies(f: Function) -> list[Function]:
    """The function, and every group and loop body in it."""
    return [f, *(g for n in f.nodes if n.body is not None for g in bodies(n.body))]


def stored_masks(c: Compilation) -> list[Value]:
    """What memory holds that follows from draws alone."""
    found = []
    for part in bodies(c.optimised["train_step"]):
        drawn = {v for n in part.nodes if n.op == "philox" for v in n.outputs}
        again = generated(part.nodes)
        found += [v for _, v in part.results if v in again and _follows(part, v, drawn)]
    return found


@pytest.mark.parametrize("body", BODIES)
def test_masks_are_not_stored(body: str) -> None:
    """No buffer holds a mask; where both passes need it, each draws it from seed and counter. The
    mask of a sequence, which is as small as one of its steps, is drawn once."""
    c = Compilation(read_source(model(body)), {}, Options(functions=("train_step",)))
    masks = [v.shape for v in stored_masks(c)]
    if body == "lstm, a mask per sequence":
        assert masks == [(4, 1, 6), (4, 1, 8)]
    else:
        assert masks == []
        drawing = [k.name for k in c.plans["train_step"].kernels()
                   if any(x.buffer == "seed" for x in loads(k))]
        assert len(drawing) == {"dense": 2, "twice": 3}[body]


def _follows(part: Function, value: object, drawn: set) -> bool:
    """Whether a value follows from a draw."""
    known = set(drawn)
    for n in part.nodes:
        if any(v in known for v in n.inputs):
            known.update(n.outputs)
    return value in known


@pytest.mark.parametrize("body", BODIES)
def test_both_passes_draw_the_same_mask(body: str) -> None:
    """Three training steps in machine code are those of the graph."""
    compiled = nncompiler.compile(model(body), dtype="f64")
    net = Compilation(read_source(model(body)), {}, Options(dtype="f64")).network
    step = train_step(net)
    names = {p.value.name for p in step.params}
    rng = np.random.default_rng(1)
    data = {n: rng.normal(size=t.shape) for n, t in (*net.inputs, *net.targets)}
    state = dict(run(net.function("init"), {"seed": np.array([0, 0], np.uint32)}))
    state |= {"step": np.int32(0), "draws": np.uint32(0), "rate": np.array(0.1)}
    state["seed"] = np.array([0, 0], np.uint32)
    for _ in range(3):
        found = run(step, {n: v for n, v in (state | data).items() if n in names})
        np.testing.assert_allclose(compiled.train_step(**data), found["loss"], rtol=1e-12)
        state |= {n.removeprefix("update."): v for n, v in found.items() if n != "loss"}
    for name, value in compiled.state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=1e-9, atol=1e-14, err_msg=name)
