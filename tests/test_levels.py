"""Code for every level of processor that this machine runs, and of plans made for another level:
models of the zoo, random graphs, and random nests, each against the interpreter; functions of one
value to the bit, at the two levels with fma.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from nncompiler.codegen.target import host, select
from nncompiler.driver import Compilation, read_source
from nncompiler.ir.graph import Function
from nncompiler.ir.kernel import For, Plan, Store
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.scalar import apply
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.manager import Pass, run_passes
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.passes.planning import plan_function
from tests import fuzz_schedules
from tests.differential import Compiled, differences
from tests.fuzz_graphs import sweep
from tests.fuzz_schedules import LEVELS
from tests.model_support import MODELS
from tests.nest_harness import at, axes, kernel, load, run

#: A function of a model and its sizes: partial sums, images by transforms, attention, a sequence
#: whose loops run to and fro.
CASES = {
    "lenet": ("grad", {"batch": 8}),
    "resnet20": ("train_step", {"batch": 5, "side": 8, "channels": 4, "blocks": 1}),
    "gpt": ("train_step", {"batch": 5, "time": 12, "features": 16, "heads": 2, "blocks": 1}),
    "char_lstm": ("infer", {"batch": 1, "time": 4, "units": 256}),
}
PAIRS = [*itertools.product(LEVELS, repeat=2)]
IDS = [f"{code}-planned-for-{plan}" for code, plan in PAIRS]


def skip_beyond(level: str) -> None:
    """Skip where this machine cannot run the code."""
    if LEVELS.index(level) > LEVELS.index(host().cpu):
        pytest.skip(f"this processor is of level {host().cpu}, the code of {level}")


class Planned(Compiled):
    """Functions with plans as the driver makes them, that were text in between."""

    def _plan(self, function: Function, pipeline: Sequence[Pass]) -> Plan:
        made_for = self.planned_for.machine
        plan = plan_function(run_passes(function, pipeline), self.layout, made_for)
        assert verify_plan(plan) == []
        return parse_plan(print_plan(plan))


@cache
def graph(name: str) -> Function:
    """The function of a model."""
    function, sizes = CASES[name]
    return Compilation(read_source(MODELS / f"{name}.nn"), sizes).graphs[function]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CASES)
def test_models(name: str, level: str) -> None:
    """Results at each level are those of the interpreter, with a plan for another one; with its
    own too, but that of the best level, which other tests have.
    """
    skip_beyond(level)
    other, function = LEVELS[LEVELS.index(level) - 1], graph(name)
    values = random_arguments(function, 5)
    for planned in dict.fromkeys((other, level if level != host().cpu else other)):
        compiled = Planned([function], target=select(level), planned_for=select(planned))
        assert differences(function, values, compiled.run(function.name, values)) == []


@pytest.mark.parametrize(("level", "planned"), PAIRS, ids=IDS)
def test_random_graphs(level: str, planned: str) -> None:
    """Graphs with plans for this level and for others."""
    skip_beyond(level)
    assert sweep(400, 8, OPTIMISE, gradients=False, cpu=level, planned_for=planned) == []


@pytest.mark.parametrize("kind", ["chosen", "varied", "wild"])
def test_random_schedules(kind: str) -> None:
    """What tiling chooses for one level is right at another; what else text can say is right too,
    or refused."""
    found = {seed: fuzz_schedules.outcome(seed, [kind]) for seed in range(300, 345)}
    assert [f"seed {s}: {d}" for s, (v, d) in found.items() if v == "problem"] == []
    assert sum(v == "right" for v, _ in found.values()) >= 12


@pytest.mark.parametrize("bits", [np.uint32, np.uint64])
@pytest.mark.parametrize("op", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"])
def test_functions_to_the_bit(op: str, bits: type[np.unsignedinteger]) -> None:
    """The formulas are the same wherever there is fma, whatever the width of vectors."""
    skip_beyond("x86-64-v4")
    random = np.random.default_rng(6)
    x = random.integers(0, np.iinfo(bits).max, 3000, bits, endpoint=True)
    x = x.view(np.float32 if bits == np.uint32 else np.float64)
    x[:1000] = random.standard_normal(1000) * 8
    x[:8] = 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-310, 1e-42, -1e-42
    found = []
    for level in ("x86-64-v3", "x86-64-v4"):
        y = np.zeros_like(x)
        body = Store("y", at("i"), apply(op, load("x", x, "i")))
        run(kernel(For(axes(i=len(x)), (body,)), vector=("i",)), select(level), x=x, y=y)
        found.append(np.where(np.isnan(y), np.nan, y).tobytes())
    assert found[0] == found[1]
