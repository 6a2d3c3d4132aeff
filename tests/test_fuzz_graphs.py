"""Some hundreds of random graphs: compiled = interpreted, gradients = differences, every pass off
in turn."""

from __future__ import annotations

import pytest

from nncompiler.passes.pipelines import OPTIMISE
from tests.fuzz_graphs import sweep, without
from tests.random_graphs import random_function


@pytest.mark.parametrize("first", [0, 50, 100, 150])
def test_compiled_equals_interpreted(first: int) -> None:
    """Fifty graphs through the whole pipeline, their gradients checked by differences."""
    assert sweep(first, 50, OPTIMISE, gradients=True) == []


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
