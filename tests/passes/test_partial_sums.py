"""Sums over rows that begin in the kernel that has the rows: the same results, no
more memory."""

from __future__ import annotations

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Fold, For, Plan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import parse_function
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.arithmetic.partial_sums import begin_sums
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from tests.networks import layout_of, run_planned

NETWORK = """
model net(features = 64) {
    input x : f32[batch, time, features]
    target y : f32[batch, time, features]
    z = x |> dense(features) as first |> layer_norm() as norm |> dense(features) as second
    loss mean((z - y) ** 2)
}
train { optimizer = sgd(lr=0.1) batch = 8 }
"""


def step_of(batch: int, time: int, function: str = "train_step") -> Function:
    options = Options(dtype="f64", functions=(function,))
    sizes = {"batch": batch, "time": time}
    return Compilation(read_source(NETWORK), sizes, options).graphs[function]


def begun(f: Function) -> Plan:
    return begin_sums(schedule(run_passes(f, OPTIMISE), layout_of(f)))


def parts(plan: Plan) -> list[tuple[int, ...]]:
    """The shapes of all parts of sums."""
    return [b.type.shape for b in plan.buffers if ".parts" in b.name]


@pytest.mark.parametrize(("batch", "time"), [(8, 64), (9, 50), (64, 16)])
def test_sums_in_parts_are_what_the_graph_says(batch: int, time: int) -> None:
    """The gradients of the gain, the shift and the biases around a normalisation."""
    f = step_of(batch, time, "grad")
    plan = place(begun(f))
    assert verify_plan(plan) == []
    assert len(parts(plan)) >= 3 and set(parts(plan)) == {(batch, 64)}
    values = random_arguments(f, 3)
    found, expected = run_planned(f, plan, layout_of(f), values), run(f, values)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-9, atol=1e-10, err_msg=key)


def test_arrays_that_only_the_sums_need_die_early() -> None:
    """The last kernel that reads a large array makes the parts."""
    f = step_of(8, 64)
    before = place(schedule(run_passes(f, OPTIMISE), layout_of(f)))
    assert place(begun(f)).arena_bytes <= before.arena_bytes


@pytest.mark.parametrize(("batch", "time"), [(4, 128), (65, 16), (16, 4), (8, 8)])
def test_sums_stay_whole(batch: int, time: int) -> None:
    """Where workers would have too few parts, or there are too many to add up, with few terms
    each; and where all rows are in a near cache."""
    assert parts(begun(step_of(batch, time))) == []


def test_a_part_is_one_loop_beside_the_rows() -> None:
    """One step of the outermost loop: the rows, then a sum for each column."""
    plan = begun(step_of(8, 64))
    hosts = [k for k in plan.kernels() if any(".parts" in b for b in map(str, k.body))]
    loops = [s for k in hosts for s in k.body if isinstance(s, For) and len(s.body) > 1]
    inner = [s for loop in loops for s in loop.body if isinstance(s, For)]
    sums = [s for s in inner if isinstance(s.body[0], Fold) and len(s.axes) == 1]
    assert len(sums) >= len(parts(plan))


def test_any_number_of_workers_finds_the_same_bits() -> None:
    """Parts do not depend on who adds them up."""
    draw = np.random.default_rng(1)
    x, y = (draw.standard_normal((8, 64, 64)).astype(np.float32) for _ in range(2))
    found = []
    for threads in (1, 2, 3):
        model = nncompiler.compile(NETWORK, sizes={"batch": 8, "time": 64}, threads=threads)
        model.init(1)
        model.train_step(x=x, y=y)
        found.append(model.state_dict())
    for other in found[1:]:
        for key, array in found[0].items():
            assert array.tobytes() == other[key].tobytes(), key


def test_sums_of_one_name_have_parts_of_their_own() -> None:
    """Locals are named kernel by kernel, and all bare contractions call their sum the same."""
    f = parse_function(
        """graph @g {
      input %x: f32[16,64,128]
      input %y: f32[16,64,128]
      input %p: f32[16,64,128]
      input %q: f32[16,64,128]
      %u: f32[16,64,128] = mul %x, %y
      %w: f32[16,64,128] = mul %p, %q
      %1: f32[16,64,128] = exp %u
      %2: f32[16,64,128] = exp %w
      %a: f32[128] = contract %x, %y {k i j: i j k, i j k -> k}
      %b: f32[128] = contract %p, %q {k i j: i j k, i j k -> k}
      return s=%1, t=%2, a=%a, b=%b
    }"""
    )
    plan = place(begun(f))
    assert verify_plan(plan) == [] and parts(plan) == [(16, 128)] * 2
    values = random_arguments(f, 1)
    found, expected = run_planned(f, plan, layout_of(f), values), run(f, values)
    for key in "ab":
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=1e-3, err_msg=key)
