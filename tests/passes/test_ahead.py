"""What follows from parameters alone is moved ahead: same results, fewer places to meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.body import step_reads_and_writes
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.arithmetic.ahead import ahead
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.networks import layout_of, run_planned

MODELS = Path(__file__).resolve().parents[2] / "models"

NETWORK = """
model net {
    input x : f32[batch, 4]
    target y : f32[batch, 4]
    param a : f32[4, 4] = normal()
    param b : f32[4, 4] = normal()
    z = (x @ exp(a)) |> sort_of
    output out = z @ exp(b)
    output weights = tanh(a)
    loss mean((out - y) ** 2)
}
fn sort_of(z : f32[n, m]) { return z - mean(z, axis=0, keepdims=true) }
train { optimizer = sgd(lr=0.1) batch = 3 }
"""


@pytest.mark.parametrize("name", ["infer", "grad"])
def test_moved_kernels_compute_what_the_graph_says(name: str) -> None:
    """exp(b) is made before the means that the second product waits for, results in any order."""
    options = Options(dtype="f64", functions=(name,))
    f = Compilation(read_source(NETWORK), {}, options).graphs[name]
    plain = schedule(run_passes(f, OPTIMISE), layout_of(f))
    plan = place(ahead(plain))
    assert verify_plan(plan) == []
    assert [k.nodes for k in plan.kernels()] != [k.nodes for k in plain.kernels()]
    assert sorted(k.nodes for k in plan.kernels()) == sorted(k.nodes for k in plain.kernels())
    values = random_arguments(f, 3)
    found, expected = run_planned(f, plan, layout_of(f), values), run(f, values)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-9, atol=1e-10, err_msg=key)


def test_plans_that_write_parameters_stay() -> None:
    """A step of training changes what such kernels read."""
    f = Compilation(read_source(NETWORK), {}, Options(functions=("train_step",))).graphs
    plan = schedule(run_passes(f["train_step"], OPTIMISE), layout_of(f["train_step"]))
    assert ahead(plan) is plan


def test_draws_are_no_parameters() -> None:
    """What is made of random numbers is of the size of a batch: it stays where it is read."""
    drawn = NETWORK.replace("z = (x @ exp(a)) |> sort_of", """z = (x @ exp(a)) |> sort_of
    if training {
        z = z * exp(normal(0, 1, z) @ b)
    }""")
    assert drawn != NETWORK
    f = Compilation(read_source(drawn), {}, Options(functions=("grad",))).graphs["grad"]
    plan = schedule(run_passes(f, OPTIMISE), layout_of(f))
    kept = [k.nodes for k in plan.kernels()]
    moved = [k.nodes for k in ahead(plan).kernels()]
    (drawing,) = [k.nodes for k in plan.kernels() if "seed" in step_reads_and_writes(k)[0]]
    assert moved != kept and moved.index(drawing) >= kept.index(drawing)


def test_workers_meet_less_often_for_one_image() -> None:
    """ResNet-20 transforms the weights of a convolution while it runs the one before."""
    options = Options(cpu="x86-64-v3", functions=("infer",))
    plan = Compilation(read_source(MODELS / "resnet20.nn"), {"batch": 1}, options).plans["infer"]
    apart = 0
    for n, step in enumerate(plan.steps):
        made = [x for x in step_reads_and_writes(step)[1] if x.endswith(".U")]
        following = plan.steps[n + 1 :]
        apart += bool(made) and next(
            k for k, s in enumerate(following) if made[0] in step_reads_and_writes(s)[0]
        ) > 0
    assert apart == 16
    assert sum(s.barrier for s in plan.steps) <= 60
