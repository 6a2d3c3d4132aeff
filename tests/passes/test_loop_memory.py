"""Memory of loops: temporaries of a step share bytes, and stacks take over from stacks."""

from __future__ import annotations

import math

import pytest

from nncompiler.ir.graph import Builder, Function
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan
from nncompiler.ir.lifetimes import lifetimes, roots_of
from nncompiler.ir.ops.scan import emit_scan
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.types import F32, TensorType
from nncompiler.ir.verify_plan import check_plan
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.lowering.hazards import may_overwrite_stepwise
from nncompiler.passes.training.autodiff import differentiate
from tests.differential import Compiled, differences
from tests.networks import MATMUL, run_planned

UNITS, TIME = 8, 5
#: One kernel per node, so that steps have temporaries.
UNFUSED = (Fuse(max_nodes=1),)


def deep(layers: int, reverse: bool = False) -> Function:
    """A scan whose step is a chain of `layers` products and tanh, h -> h W -> tanh -> ..."""
    body = Builder("body")
    z, h = (body.operand(n, TensorType(F32, (3, UNITS))) for n in ("z", "h"))
    w = body.operand("w", TensorType(F32, (UNITS, UNITS)))
    value = h
    for _ in range(layers):
        value = body.emit("tanh", body.emit("contract", value, w, spec=MATMUL))
    after = body.emit("add", value, z)
    step = body.finish([("h", after), ("y", after)])
    b = Builder("deep")
    xs = b.param("input", "xs", TensorType(F32, (TIME, 3, UNITS)))
    weight = b.param("param", "w", TensorType(F32, (UNITS, UNITS)))
    given = b.emit("mul", xs, b.const(0.5, F32))
    start = b.full(0.0, TensorType(F32, (3, UNITS)))
    last, ys = emit_scan(b, step, [(given, 0)], [start], [weight], [0], TIME, reverse)
    loss = b.emit("reduce_sum", b.emit("mul", ys, ys), axes=(0, 1, 2), keepdims=False)
    return b.finish([("loss", loss), ("last", last)])


def of_a_step(plan: Plan) -> list[Buffer]:
    """Arena buffers of which each step of a loop has a value of its own."""
    found = lifetimes(plan.steps, roots_of(plan.table()))
    return [b for b in plan.buffers if b.space == "arena" and found[b.name].home]


def test_temporaries_of_a_step_share_bytes() -> None:
    """A chain of ten temporaries needs room for two, not for ten."""
    plan = Compiled([deep(5)], UNFUSED).plans["deep"]
    own = of_a_step(plan)
    assert len(own) >= 9
    assert len({b.offset for b in own}) <= 2
    assert plan.arena_bytes <= 1.05 * plan.bound


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_shared_bytes_keep_their_values(reverse: bool, gradient: bool) -> None:
    """Machine code, and the plan interpreter iteration by iteration, agree with the graph."""
    f = deep(3, reverse)
    g = differentiate(f, "loss", f.params_of("param"), "deep") if gradient else f
    compiled = Compiled([g], UNFUSED)
    plan = compiled.plans["deep"]
    check_plan(plan)
    values = random_arguments(g, 3)
    assert differences(g, values, compiled.run("deep", values)) == []
    for order in ("forward", "backward"):
        found = run_planned(g, plan, compiled.layout, values, order)
        assert differences(g, values, found) == []


def test_what_every_step_reads_is_kept_through_the_loop() -> None:
    """A captured value and a stack live until the last kernel of their loop, a carry from its
    first."""
    plan = Compiled([deep(2)], UNFUSED).plans["deep"]
    count, found = 0, lifetimes(plan.steps, roots_of(plan.table()))
    for step in plan.steps:
        inside = 1 if isinstance(step, Kernel) else len(step.body)
        if isinstance(step, Loop):
            given = next(n for n, t in found.items() if t.first < count and t.last >= count
                         and plan.buffer(n).type.shape == (TIME, 3, UNITS))
            assert found[given].last == count + inside - 1
        count += inside


def test_a_stack_takes_over_from_the_stack_the_loop_reads() -> None:
    """y[t] = exp(x[t]) with x dead behind the loop: one stack of memory, not two."""
    body = Builder("body")
    x, h = (body.operand(n, TensorType(F32, (16,))) for n in ("x", "h"))
    y = body.emit("exp", x)
    after = body.emit("tanh", body.emit("add", h, y))
    step = body.finish([("h", after), ("y", y)])
    b = Builder("stacks")
    xs = b.param("input", "xs", TensorType(F32, (16, TIME)))
    given = b.emit("transpose", b.emit("sin", xs), perm=(1, 0))
    stored = b.emit("add", given, b.const(1.0, F32))
    start = b.full(0.0, TensorType(F32, (16,)))
    _, ys = emit_scan(b, step, [(stored, 0)], [start], [], [0], TIME)
    f = b.finish([("total", b.emit("reduce_max", ys, axes=(0, 1), keepdims=False))])
    compiled = Compiled([f])
    plan = compiled.plans["stacks"]
    stacks = [b for b in plan.buffers if b.space == "arena" and b.type.shape == (TIME, 16)]
    assert [b.in_place_of is not None for b in stacks].count(True) == 1
    assert len({b.offset for b in stacks}) == 1
    values = random_arguments(f, 1)
    assert differences(f, values, compiled.run("stacks", values)) == []
    assert plan.arena_bytes < 2 * math.prod((TIME, 16)) * 4 + 1024


READ_OWN = "for i < 4 { new[t,i] = old[t,i] }"
KERNELS = {
    "its own part": ([READ_OWN], True),
    "its own part, earlier": (
        ["for i < 4 { a[i] = old[t,i] }", "for i < 4 { new[t,i] = a[i] }"], True,
    ),
    "the next part": (["for i < 4 { new[t,i] = old[t+1,i] }"], False),
    "its own part, later": ([READ_OWN, "for i < 4 { a[i] = old[t,i] }"], False),
    "its own part in another order": (["for i < 4 { new[t,i] = old[t,3-i] }"], False),
    "what the step before stored": (["for i < 4 { a[i] = new[t,i] }", READ_OWN], False),
    "all parts": (["for i < 4, j < 3 { new[t,i] = old[t,i] + old[j,i] }"], False),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNELS)
def test_when_a_stack_may_be_taken_over(case: str) -> None:
    """A step may store over its own part of a stack once it has read it, and over no other."""
    kernels, expected = KERNELS[case]
    body = "\n".join(f"kernel k{n}\n {text}" for n, text in enumerate(kernels))
    plan = parse_plan(
        f"""plan @p: arena 0 B, bound 0 B, state 0 B {{
          buffer old: f32[4,4] arena
          buffer new: f32[4,4] arena
          buffer a: f32[4] arena
          loop t < 3 {{ {body} }}
        }}"""
    )
    (loop,) = plan.steps
    assert isinstance(loop, Loop)
    assert may_overwrite_stepwise(loop, "old", "new") is expected
