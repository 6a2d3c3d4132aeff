"""Kernels that run round by round of the axes they have in common: which do, what becomes of their
arrays, and that the plan means the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options
from nncompiler.errors import Source
from nncompiler.ir.interp import run
from nncompiler.ir.interp_plan import run_plan
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.ir.verify_workers import verify_workers
from nncompiler.passes.memory.arena import place
from nncompiler.passes.memory.loop_fusion import fuse_loops
from nncompiler.passes.parallel import share
from tests.differential import free
from tests.networks import run_planned

PLAN = """
plan @f: arena 0 B, bound 0 B, state 0 B {
  arguments x input, y output, z output
  buffer x: f32[8,5,6,7] argument
  buffer a: f32[8,5,6,7] arena
  buffer b: f32[8,5,6,7] arena
  buffer y: f32[5,8,6] argument
  buffer z: f32[7] argument
  kernel k0
    for i < 8, j < 5, k < 6, l < 7 { a[i,j,k,l] = exp(x[i,j,k,l]) }
  kernel k1
    for i < 7 { z[i] = exp(x[0,0,0,i]) }
  kernel k2
    for n < 8, m < 5, k < 6 {
      s = sum l < 7 { a[n,m,k,l] }
      for l < 7 { b[n,m,k,l] = a[n,m,k,l] / s }
    }
  kernel k3
    for i < 5, j < 8, k < 6 {
      s = sum l < 7, r < 6 { b[j,i,r,l] * x[j,i,k,l] }
      y[i,j,k] = s
    }
}
"""
TRANSFORMER = """model sequence {
    input text : i32[batch, time]
    target following : i32[batch, time]
    logits = text |> embedding(64, 32) |> transformer_block(4, causal=true) |> dense(64) as head
    output logits
    loss cross_entropy(logits, following)
}
train { optimizer = sgd(lr=0.1) }
"""


def fused(text: str) -> Plan:
    """Rounds of 42 elements where possible."""
    return fuse_loops(parse_plan(text), free, large=1000, part=168)


def results(plan: Plan) -> list[np.ndarray]:
    """What a plan stores to its arguments."""
    rng = np.random.default_rng(3)
    shapes = {a.buffer: (a.role, plan.buffer(a.buffer).type.shape) for a in plan.arguments}
    arrays = {n: np.zeros(s, np.float32) for n, (_, s) in shapes.items()}
    for name, (role, shape) in shapes.items():
        if role == "input":
            arrays[name] = rng.standard_normal(shape).astype(np.float32)
    run_plan(plan, np.zeros(64, np.uint8), arrays, None)
    return list(arrays.values())


def test_kernels_run_round_by_round() -> None:
    """The fewer rounds outermost, what has none behind; arrays as large as rounds need."""
    plan = fused(PLAN)
    outer, behind = plan.steps
    assert isinstance(outer, Loop) and outer.extent == 5
    (inner,) = outer.body
    assert isinstance(inner, Loop) and inner.extent == 8 and len(inner.body) == 3
    assert isinstance(behind, Kernel) and "z[" in print_plan(plan).split("kernel k3")[1]
    assert "a" not in plan.table() and plan.buffer("b").type.shape == (5, 6, 7)
    before, after = place(parse_plan(PLAN)), place(plan)
    assert after.arena_bytes < before.arena_bytes and verify_plan(after) == []
    assert parse_plan(print_plan(after)) == after
    for one, other in zip(results(before), results(after), strict=True):
        np.testing.assert_array_equal(one, other)
    shared = share(after, 0.0, 0.0)
    assert next(iter(shared.loops())).parallel and verify_workers(shared) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a[n,m,k,l] / s", "a[7-n,m,k,l] / s"),  # of another round
        ("s = sum l < 7 { a[n,m,k,l] }", "s = sum l < 7, r < 8 { a[r,m,k,l] }"),  # of all
        ("for n < 8, m < 5, k < 6 {", "ordered for n < 8, m < 5, k < 6 {"),
    ],
)
def test_rounds_that_need_others(old: str, new: str) -> None:
    """The first two kernels are not in one loop; what they hand on has all its dimensions."""
    plan = fused(PLAN.replace(old, new))
    assert isinstance(plan.steps[0], Kernel)
    assert "a" not in plan.table() or plan.buffer("a").type.shape == (8, 5, 6, 7)
    for one, other in zip(results(place(parse_plan(PLAN.replace(old, new)))), results(place(plan)),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_what_comes_between_is_waited_for() -> None:
    """A kernel that cannot join stands between those that write and read the same."""
    text = PLAN.replace("z[i] = exp(x[0,0,0,i])", "z[i] = exp(a[0,0,0,i])")
    text = text.replace("a[n,m,k,l] / s", "a[n,m,k,l] / s + z[l]")
    plan = fused(text)
    assert isinstance(plan.steps[0], Kernel) and isinstance(plan.steps[1], Kernel)


def test_small_arrays_and_costly_rounds_stay_as_they_are() -> None:
    """Nothing is gained where arrays stay in a cache, or where rounds take longer."""

    def fixed(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        return 1.0

    plan = parse_plan(PLAN)
    assert fuse_loops(plan, free, large=10_000, part=168) is plan
    assert fuse_loops(plan, fixed, large=1000, part=168) is plan


def test_results_that_others_read_keep_their_dimensions() -> None:
    """What is local to a loop is not kept where they lie, for that is larger."""
    text = PLAN.replace("y output, z output", "y output, z output, b output")
    plan = fused(text.replace("buffer b: f32[8,5,6,7] arena", "buffer b: f32[8,5,6,7] argument"))
    assert plan.buffer("b").type.shape == (8, 5, 6, 7)
    assert plan.buffer("a").type.shape == (5, 6, 7)


def test_attention_by_heads() -> None:
    """Scores of 256 tokens are never there as a whole in inference; in training they are, but not
    their gradient. Both compute what the graph says."""
    options = Options(functions=("infer", "train_step"))
    sizes = {"batch": 4, "time": 256}
    c = Compilation(Source("sequence.nn", TRANSFORMER), sizes, options)
    whole = 4 * 4 * 256 * 256
    large = {
        name: sorted(b.type.size for b in plan.buffers if b.type.size >= whole)
        for name, plan in c.plans.items()
    }
    assert large == {"infer": [], "train_step": [whole]}
    assert len([x for x in c.plans["train_step"].loops() if x.parallel]) == 2
    assert all(verify_plan(p) == [] and verify_workers(p) == [] for p in c.plans.values())


def test_attention_computes_what_the_graph_says() -> None:
    """With rounds of a head each, in both functions."""
    options = Options(functions=("infer", "train_step"))
    c = Compilation(Source("sequence.nn", TRANSFORMER), {"batch": 2, "time": 8}, options)
    for name, plan in c.plans.items():
        bare = dataclasses.replace(plan, steps=tuple(map(unscheduled, plan.steps)))
        blank = tuple(dataclasses.replace(b, offset=None, live=None, in_place_of=None)
                      if b.space == "arena" else b for b in plan.buffers)  # fmt: skip
        bare = dataclasses.replace(bare, buffers=blank)
        rounds = place(fuse_loops(bare, free, large=512, part=256))
        assert verify_plan(rounds) == [] and any(rounds.loops())
        f = c.optimised[name]
        values = random_arguments(f, 7)
        found = run_planned(f, rounds, c.layout, values)
        for result, array in run(f, values).items():
            np.testing.assert_allclose(found[result], array, rtol=1e-3, atol=1e-4, err_msg=result)


def unscheduled(step: Kernel) -> Kernel:
    """A kernel as it is before schedules are chosen."""
    return Kernel(step.name, step.body, nodes=step.nodes, spans=step.spans)


def test_same_bits_for_any_number_of_threads(monkeypatch, tmp_path) -> None:
    """Rounds are shared out among workers."""
    monkeypatch.setenv("NNCOMPILER_CACHE", str(tmp_path))
    path = tmp_path / "sequence.nn"
    path.write_text(TRANSFORMER.replace("time]", "256]"))
    found = []
    for threads in (1, 2, 3):
        model = nncompiler.compile(path, batch=4, threads=threads, functions=("train_step",))
        model.init(3)
        text = np.arange(1024, dtype=np.int32).reshape(4, 256) % 64
        losses = [model.train_step(text=text, following=text) for _ in range(2)]
        found.append((losses, [v.tobytes() for v in model.state.views.values()]))
    assert found[0] == found[1] == found[2] and np.isfinite(found[0][0]).all()
