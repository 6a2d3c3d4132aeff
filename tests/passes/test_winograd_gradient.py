"""Gradients of the weights of convolutions by transforms: the same as in the direct form, where
they are taken."""

from __future__ import annotations

import pytest

from nncompiler.ir.kernel import Plan
from nncompiler.passes.arithmetic import winograd_gradient
from nncompiler.passes.arithmetic.winograd_gradient import winograd_gradients
from nncompiler.passes.layout.images import choose_layouts
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.differential import row_major, untransformed
from tests.networks import layout_of
from tests.passes.test_winograd import check_plan, graphs


def planned(**sizes: object) -> Plan:
    """The gradients of a network of two convolutions, its batch last."""
    f = graphs(**sizes)["grad"]
    plan = choose_layouts(schedule(run_passes(f, OPTIMISE), layout_of(f)), row_major)
    return place(winograd_gradients(plan, untransformed))


def transforms(plan: Plan) -> int:
    return sum(b.name.endswith(".Z") for b in plan.buffers)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few channels there are."""
    monkeypatch.setattr(winograd_gradient, "_PRODUCTS", 0)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"pad": 0},
        {"n": 2, "c": 3, "o": 2, "h": 2, "w": 2},
        {"n": 9, "c": 3, "o": 2, "h": 4, "w": 10, "bias": "false"},
        {"n": 5, "h": 12, "w": 14, "pad": 0, "bias": "false"},
        {"n": 17, "c": 2, "o": 5, "h": 4, "w": 8},
        {"n": 3, "c": 9, "o": 2, "h": 16, "w": 12, "bias": "false"},
    ],
)
def test_plan_with_transforms_computes_what_the_graph_says(
    sizes: dict[str, object], always: None
) -> None:
    """Of both convolutions, in one step or several."""
    plan = planned(**sizes)
    assert transforms(plan) == 2
    check_plan(graphs(**sizes)["grad"], plan)


def test_sums_of_several_steps_are_added_up(always: None) -> None:
    """Of 8 x 4 tiles two steps of 16."""
    plan = planned(h=32, w=16)
    steps = {b.type.shape[0] for b in plan.buffers if b.name.endswith(".M")}
    assert steps == {2} and any(b.name.endswith(".S") for b in plan.buffers)
    check_plan(graphs(h=32, w=16)["grad"], plan)


@pytest.mark.parametrize("sizes", [{"h": 5}, {"w": 7, "pad": 0}])
def test_an_odd_number_of_rows_or_columns_stays(sizes: dict[str, object], always: None) -> None:
    """Tiles are two by two."""
    assert not transforms(planned(**sizes))


def test_few_channels_stay() -> None:
    """What is transformed goes to memory and back."""
    assert not transforms(planned(n=16, c=16, o=16))
    assert transforms(planned(n=16, c=32, o=32)) == 2


def test_what_takes_longer_stays(always: None) -> None:
    """Whatever the cost says."""
    f = graphs()["grad"]
    plan = choose_layouts(schedule(run_passes(f, OPTIMISE), layout_of(f)), row_major)
    assert winograd_gradients(plan, lambda kernel, buffers: 1.0) is plan
