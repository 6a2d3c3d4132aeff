"""Sequences that a loop goes along: step by step in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import loads, stores
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Buffer, Loop, Plan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.scalar import Affine
from nncompiler.ir.types import F64
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.layout.stacks import stack_steps
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.networks import layout_of, run_planned
from tests.passes.test_scan import gradient_of, rnn

MODELS = Path(__file__).resolve().parents[2] / "models"


def sequences(plan: Plan) -> list[tuple[Buffer, int]]:
    """Arena buffers that loops go along, and the axis they do so."""
    found = dict[str, int]()
    for loop in plan.steps:
        if isinstance(loop, Loop):
            for k in loop.body:
                for x in (*loads(k), *stores(k)):
                    for d, i in enumerate(x.index):
                        if isinstance(i, Affine) and loop.counter in i.axes:
                            found[x.buffer] = d
    return [(b, found[b.name]) for b in plan.buffers if b.name in found and b.space == "arena"]


@pytest.mark.parametrize("reverse", [False, True])
def test_plan_with_stacks_computes_what_the_graph_says(reverse: bool) -> None:
    """The same values, forwards and backwards, at other places."""
    f = gradient_of(rnn(3, 4, 2, 5, F64, reverse))
    before = schedule(run_passes(f, OPTIMISE), layout_of(f))
    plan = place(stack_steps(before))
    assert plan.buffers != place(before).buffers
    assert verify_plan(plan) == []
    values = random_arguments(f, 7)
    found = run_planned(f, plan, layout_of(f), values)
    for name, array in run(f, values).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


def test_every_sequence_of_a_language_model_lies_step_by_step() -> None:
    """In the training step of an LSTM a step's rows lie in one piece, batch or no batch first."""
    options = Options(functions=("train_step",))
    plan = Compilation(read_source(MODELS / "char_lstm.nn"), {"batch": 4}, options).plans[
        "train_step"
    ]
    found = sequences(plan)
    assert any(axis > 0 for _, axis in found)
    assert all(b.layout[axis] == max(b.layout) for b, axis in found)
