"""Panels of what a loop reads again and again: where they are made, and that the plan means the
same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.codegen.target import select
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import loads
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Kernel, Loop, Plan
from nncompiler.ir.nests import contraction
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F64
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.layout.panels import pack_panels
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import unpacked
from tests.networks import layout_of, run_planned
from tests.passes.test_scan import gradient_of, rnn

MODELS = Path(__file__).resolve().parents[2] / "models"


def packed(f: Function) -> Plan:
    """The plan of `f` with panels of 2 columns or more wherever there can be any."""
    return place(pack_panels(schedule(run_passes(f, OPTIMISE), layout_of(f)), unpacked, 16))


@pytest.mark.parametrize("units", [2, 6, 8, 48])
@pytest.mark.parametrize("reverse", [False, True])
def test_plan_with_panels_computes_what_the_graph_says(units: int, reverse: bool) -> None:
    """Forwards the columns of the recurrent weights, backwards their rows, become panels."""
    f = gradient_of(rnn(3, 4, 2, units, F64, reverse))
    plan = packed(f)
    assert [b.name for b in plan.buffers if "panels" in b.name] == ["Wh.panels", "Wh.panels2"]
    assert verify_plan(plan) == []
    values = random_arguments(f, 7)
    expected = run(f, values)
    found = run_planned(f, plan, layout_of(f), values)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


def test_odd_columns_stay() -> None:
    """Panels are all of one width, a multiple of a vector's."""
    assert not any("panels" in b.name for b in packed(rnn(3, 4, 2, 7)).buffers)


def steps_around(plan: Plan, name: str) -> tuple[list[Kernel], list[Kernel]]:
    """The kernels outside of loops that write a buffer's panels, and those in loops that read
    them."""
    outside = [s for s in plan.steps if isinstance(s, Kernel) and s.nodes == (name,)]
    inside = [k for s in plan.steps if isinstance(s, Loop) for k in s.body]
    reading = [k for k in inside if any(f"{name}.panels" in x.buffer for x in loads(k))]
    return outside, reading


def test_recurrent_weights_are_packed_in_front_of_the_loop() -> None:
    """In the training step of a large LSTM once for each direction, and read as they lie."""
    options = Options(cpu="x86-64-v3", functions=("train_step",))
    c = Compilation(read_source(MODELS / "char_lstm.nn"), {"batch": 32}, options)
    copies, reading = steps_around(c.plans["train_step"], "cell.Wh")
    assert len(copies) == len(reading) == 2
    assert all(k.schedule.strategy == "contract" and not k.schedule.pack for k in reading)


@pytest.mark.parametrize("time", [1, 64])
def test_a_copy_pays_over_many_steps_only(time: int) -> None:
    """One step takes the weights from where they are."""
    target = select("x86-64-v3")
    source = read_source(MODELS / "char_lstm.nn")
    options = Options(cpu=target.cpu, functions=("infer",))
    c = Compilation(source, {"batch": 1, "time": time}, options)
    copies, reading = steps_around(c.plans["infer"], "cell.Wh")
    assert len(copies) == len(reading) == (time > 1)


@pytest.mark.parametrize(("cpu", "copied"), [("x86-64-v3", True), ("x86-64-v4", False)])
def test_wide_rows_of_a_page_each_are_read_as_they_lie(cpu: str, copied: bool) -> None:
    """A tile of sixteen vectors of 64 bytes, four of each gate, takes a kilobyte of each page: no
    copy is better.
    """
    options = Options(cpu=cpu, functions=("infer",))
    c = Compilation(read_source(MODELS / "char_lstm.nn"), {"batch": 1}, options)
    copies, _ = steps_around(c.plans["infer"], "cell.Wh")
    product = next(
        k for s in c.plans["infer"].steps if isinstance(s, Loop) for k in s.body
        if isinstance(k, Kernel) and k.schedule.strategy == "contract"
    )  # fmt: skip
    assert len(contraction(product).products) == (1 if copied else 4)
    assert product.schedule.tile == (1, 64)
    assert product.schedule.alternate
    assert bool(copies) is copied
