"""Some hundreds of random graphs: compiled = interpreted, gradients = differences, every pass off
in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from nncompiler.ir.kernel import Plan
from nncompiler.ir.types import F32
from nncompiler.passes.arithmetic.known_zeros import leave_out_zeros
from nncompiler.passes.arithmetic.partial_sums import begin_sums
from nncompiler.passes.arithmetic.slices import SHARED, take_slices
from nncompiler.passes.arithmetic.winograd import winograd
from nncompiler.passes.arithmetic.winograd_gradient import winograd_gradients
from nncompiler.passes.graph.narrow import Narrow
from nncompiler.passes.layout.images import choose_layouts
from nncompiler.passes.layout.panels import pack_panels
from nncompiler.passes.layout.stacks import stack_steps
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import NEAR, row_major, state_of, unpacked, untransformed
from tests.fuzz_graphs import sweep, without
from tests.random_graphs import random_function


@pytest.mark.parametrize("first", [0, 50, 100, 150])
def test_compiled_equals_interpreted(first: int) -> None:
    """Fifty graphs through the whole pipeline, their gradients checked by differences."""
    assert sweep(first, 50, OPTIMISE, gradients=True) == []


def test_a_state_that_is_read_under_another_shape_is_not_written_over() -> None:
    """A regression: one kernel wrote a state row by row and read what it had been by columns."""
    assert sweep(883170, 1, OPTIMISE, gradients=False) == []


def test_sums_without_axes_are_no_rows() -> None:
    """A regression: without simplification, sums over no axis stand beside short loops."""
    assert sweep(3000081, 1, without("simplify"), gradients=False) == []


def test_sums_of_constants_may_be_rounded() -> None:
    """A regression: the judge took 72 times 1/264, which one order of addition gives exactly, for
    what every order gives."""
    assert sweep(2101635, 1, OPTIMISE, gradients=False, as_planned=True) == []


@pytest.mark.parametrize("name", [p.name for p in OPTIMISE])
def test_every_pass_can_be_left_out(name: str) -> None:
    """A pass changes how fast results come, not what they are."""
    assert sweep(1000, 25, without(name), gradients=False) == []


def test_graphs_carry_states() -> None:
    """A third of the graphs do, and some of those exchange two states in a call."""
    graphs = [random_function(seed) for seed in range(400)]
    carrying = [f for f in graphs if f.params_of("state")]
    assert 80 <= len(carrying) <= 200
    for f in carrying:
        assert {f"update.{s.name}" for s in f.params_of("state")} <= {n for n, _ in f.results}
    assert any(v in f.params_of("state") for f in carrying for n, v in f.results if "update." in n)


def test_plans_as_those_of_models() -> None:
    """What is done where it pays, on three threads."""
    assert sweep(0, 50, OPTIMISE, gradients=False, threads=3, as_planned=True) == []


def test_graphs_have_windows() -> None:
    """A fifth of the graphs; of their convolutions some are transformed with the batch last, some
    with the channels last."""
    lanes = []
    for f in map(random_function, range(100)):
        if any("window" in p.name for p in f.params_of("param")):
            plan = schedule(run_passes(f, OPTIMISE), state_of([f], F32))
            plan = winograd(choose_layouts(plan, row_major), untransformed)
            made = [b.type.shape for b in plan.buffers if b.name.endswith(".M")]
            lanes += [x.index(36 if 36 in x[1:] else 16, 1) for x in made]
    assert lanes.count(1) >= 5
    assert lanes.count(2) >= 5


#: Passes that change few graphs, each as far from choosing as `Compiled` has it.
RARE: dict[str, Callable[[Plan], Plan]] = {
    "slices": lambda plan: take_slices(plan, lambda kernel, buffers: SHARED),
    "partial sums": lambda plan: begin_sums(plan, near=NEAR),
    "gradients": lambda plan: winograd_gradients(plan, untransformed),
    "zeros": leave_out_zeros,
    "panels": lambda plan: pack_panels(plan, unpacked, 8),
}


def test_graphs_have_what_rare_passes_change() -> None:
    """Each of them changes several graphs of two hundred."""
    found = Counter[str]()
    for f in map(random_function, range(200)):
        if {"filters0", "gates", "query", "dense0"} & {p.name for p in f.params_of("param")}:
            found["narrow"] += Narrow().run(f) is not f
            plan = stack_steps(schedule(run_passes(f, OPTIMISE), state_of([f], F32)))
            plan = choose_layouts(plan, row_major)
            found.update(name for name, rare in RARE.items() if rare(plan) is not plan)
    assert all(found[name] >= 2 for name in ("narrow", *RARE)), found
