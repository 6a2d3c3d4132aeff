"""Kernels that take slices of a row of products and make them themselves: which do, and that the
plan means the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import statements
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Buffer, Fold, Kernel, Loop, Plan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.arithmetic.slices import SHARED, take_slices
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.memory.arena import place
from tests.networks import run_planned

MODELS = Path(__file__).resolve().parents[2] / "models"


def even(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """All kernels take as long, so that one is better than two."""
    return SHARED


def compiled(name: str, cpu: str = "x86-64-v4", **sizes: int) -> Compilation:
    options = Options(cpu=cpu, functions=("infer",))
    return Compilation(read_source(MODELS / f"{name}.nn"), {"batch": 1, **sizes}, options)


def sums_in_loops(plan: Plan) -> list[int]:
    """How many sums each kernel in a loop has."""
    inside = [k for s in plan.steps if isinstance(s, Loop) for k in s.body]
    return [
        sum(isinstance(s, Fold) for s in statements(k.body))
        for k in inside if isinstance(k, Kernel)
    ]  # fmt: skip


def small() -> tuple[Compilation, Plan]:
    """The plan for an LSTM of 8 units, as it is scheduled."""
    c = compiled("char_lstm", units=8, time=5, dim=3, vocabulary=7)
    return c, schedule(c.optimised["infer"], c.layout)


def test_plan_computes_what_the_graph_says() -> None:
    """Four gates are slices of one product: one kernel with four sums, and no array between."""
    c, apart = small()
    joined = take_slices(apart, even)
    assert sums_in_loops(apart) == [1, 0] and sums_in_loops(joined) == [4]
    assert len(joined.buffers) == len(apart.buffers) - 1
    plan = place(joined)
    assert verify_plan(plan) == []
    assert parse_plan(print_plan(plan)) == plan
    f = c.optimised["infer"]
    values = random_arguments(f, 3)
    expected = run(f, values)
    for order in (None, "reverse"):
        found = run_planned(f, plan, c.layout, values, order)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("text", "other"), [
    ("i+16]", "i+15]"),  # no slice
    ("[t0+1,0,i]", "[t0,0,i]"),  # what sums of other places read
])  # fmt: skip
def test_what_cannot_be_one_kernel(text: str, other: str) -> None:
    """Loads across the bounds of slices, and a state that is written where it is read."""
    whole = print_plan(place(small()[1]))
    assert text in whole
    wrong = parse_plan(whole.replace(text, other))
    assert take_slices(wrong, even) is wrong


def test_worth_it_where_it_saves_time() -> None:
    """No kernel is made that takes as long as the two, or of one too short to be shared."""
    _, plan = small()
    longer = {1: SHARED, 0: 100.0, 4: SHARED + 100}

    def dear(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        return longer[sum(isinstance(s, Fold) for s in statements(kernel.body))]

    assert take_slices(plan, dear) is plan
    assert take_slices(plan, lambda k, b: SHARED - 1) is plan


@pytest.mark.parametrize(("cpu", "batch", "units", "sums"), [
    ("x86-64-v4", 1, 256, [4]), ("x86-64-v3", 1, 256, [1, 0]),
    ("x86-64-v4", 1, 32, [1, 0]), ("x86-64-v4", 2, 256, [1, 0]),
])  # fmt: skip
def test_one_row_of_long_products(cpu: str, batch: int, units: int, sums: list[int]) -> None:
    """With registers for four gates of four vectors, where workers share the products."""
    plan = compiled("char_lstm", cpu, batch=batch, units=units, time=64).plans["infer"]
    assert sums_in_loops(plan) == sums
    assert verify_plan(plan) == []
    if sums == [4]:
        (loop,) = (s for s in plan.steps if isinstance(s, Loop))
        (kernel,) = loop.body
        assert isinstance(kernel, Kernel)
        assert kernel.schedule.tile == (1, 64) and kernel.schedule.alternate and kernel.barrier
