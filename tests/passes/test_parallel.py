"""What threads share, and barriers where they are needed and only there."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.kernel import Kernel, Loop, Plan, Step
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.ir.verify_workers import verify_workers
from nncompiler.passes import parallel
from tests.model_support import MODELS


def plan_of(name: str, batch: int, function: str = "train_step") -> Plan:
    options = Options(functions=(function,))
    source = read_source(str(MODELS / f"{name}.nn"))
    return Compilation(source, {"batch": batch}, options).plans[function]


def without(steps: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """The steps, the barrier before one kernel taken away."""
    return tuple(
        replace(s, body=without(s.body, name)) if isinstance(s, Loop)
        else replace(s, barrier=False) if s.name == name else s
        for s in steps
    )  # fmt: skip


@pytest.mark.parametrize(("name", "batch"), [("digits_mlp", 32), ("lenet", 16), ("char_lstm", 8)])
def test_every_barrier_is_needed(name: str, batch: int) -> None:
    """The verifier has nothing against a plan, and something against it without any barrier."""
    plan = plan_of(name, batch)
    assert verify_plan(plan) == []
    barriers = [k for k in plan.kernels() if k.barrier]
    assert len(barriers) > 3
    for kernel in barriers:
        found = verify_workers(replace(plan, steps=without(plan.steps, kernel.name)))
        assert any("expected a barrier" in d.message for d in found), kernel.name


def test_plan_says_what_is_shared() -> None:
    """Loops and barriers are in the text, which is read back."""
    plan = plan_of("digits_mlp", 32)
    text = print_plan(plan)
    assert "\n  barrier\n  kernel k1" in text and ", parallel j i\n" in text
    assert ", parts " in text
    assert parse_plan(text) == plan


def test_small_plans_are_left_alone() -> None:
    """`tiny` is not shared: no barriers, no further functions, no threads."""
    plan = plan_of("tiny", 4)
    assert not any(k.barrier or k.schedule.parallel for k in plan.kernels())
    before = set(threading.enumerate())
    model = nncompiler.compile(MODELS / "tiny.nn", batch=4, threads=4)
    assert model.manifest.parallel_fit == {} and not set(threading.enumerate()) - before


LOOP = """
plan @f: arena 0 B, bound 0 B, state 0 B {
  arguments x input, y output, z output
  buffer x: f32[9000] argument
  buffer y: f32[9000] argument
  buffer z: f32[9000] argument
  loop t < 4 {
    kernel k0
      for i < 9000 { y[i] = exp(x[i]) }
      schedule loops: vector i
    kernel k1
      for i < 9000 { z[i] = exp(y[i]) }
      schedule loops: vector i
  }
  kernel k2
    s = sum i < 9000 { z[i] }
    y[0] = s
}
"""


def barriers(plan: Plan) -> list[str]:
    return [k.name for k in plan.kernels() if k.barrier]


def test_barriers_of_a_loop() -> None:
    """The first kernel waits for the last of the step before: it writes what that one reads."""
    shared = parallel.share(parse_plan(LOOP))
    assert barriers(shared) == ["k0", "k1", "k2"] and verify_plan(shared) == []
    kernels = {k.name: k for k in shared.kernels()}
    assert kernels["k0"].schedule.parallel == kernels["k1"].schedule.parallel == ("i",)
    assert kernels["k2"].schedule.parallel == ()


ROUNDS = """
plan @f: arena 147456 B, bound 147456 B, state 0 B {
  arguments x input, y output, z output
  buffer x: f32[4,9000] argument
  buffer a: f32[4,9000] arena @0 live k0..k1
  buffer y: f32[4,9000] argument
  buffer z: f32[4,9000] argument
  loop t < 4 {
    kernel k0
      for i < 9000 { a[t,i] = exp(x[t,i]) }
      schedule loops: vector i
    kernel k1
      for i < 9000 { y[t,i] = exp(a[t,i]) }
      schedule loops: vector i
  }
  kernel k2
    for i < 9000, j < 4 { z[j,i] = exp(y[j,i]) }
    schedule loops: vector i
}
"""


def test_rounds_that_are_independent_are_shared() -> None:
    """All kernels of a round are one worker's; what reads the results waits for all rounds."""
    shared = parallel.share(parse_plan(ROUNDS))
    (loop,) = shared.loops()
    assert loop.parallel and [bool(k.schedule.parallel) for k in shared.kernels()] == [0, 0, 1]
    assert barriers(shared) == ["k2"] and verify_plan(shared) == []
    text = print_plan(shared)
    assert "loop t < 4 parallel {" in text and parse_plan(text) == shared
    assert parse_plan(text.replace("  loop", "  barrier\n  loop")).steps[0].barrier


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("exp(a[t,i])", "exp(a[3-t,i])"),  # of another round
        ("a[t,i] = exp(x[t,i])", "a[0,i] = exp(x[t,i])"),  # every round stores there
        ("y[t,i] = exp(a[t,i])", "y[2*t-t,i] = exp(a[t,i]) + y[max(t-1, 0),i]"),  # computed
    ],
)
def test_rounds_that_are_not(before: str, after: str) -> None:
    """The pass leaves them alone, and the verifier refuses them."""
    plan = parse_plan(ROUNDS.replace(before, after))
    assert not any(loop.parallel for loop in parallel.share(plan).loops())
    wrong = parse_plan(ROUNDS.replace(before, after).replace("t < 4 {", "t < 4 parallel {"))
    assert any("are not independent" in d.message for d in verify_workers(wrong))


def test_rounds_within_rounds() -> None:
    """Rounds that go by a loop around them, too, are not shared: the one around may be."""
    head, tail = ROUNDS.replace("[t,i]", "[2*s+t,i]").split("  kernel k2")
    text = head.replace("loop t < 4 {", "loop s < 2 { loop t < 2 {") + "  }\n  kernel k2" + tail
    shared = parallel.share(parse_plan(text))
    assert not any(loop.parallel for loop in shared.loops()) and verify_plan(shared) == []


def test_a_round_is_one_workers() -> None:
    """Nothing in a loop that is shared may be shared again."""
    again = ROUNDS.replace("vector i\n    kernel k1", "vector i, parallel i\n    kernel k1")
    wrong = parse_plan(again.replace("t < 4 {", "t < 4 parallel {"))
    assert any("one worker runs a round" in d.message for d in verify_workers(wrong))


def test_no_barrier_between_strangers() -> None:
    """Kernels that touch different buffers run at once; so do those that worker 0 runs alone."""
    apart = LOOP.replace("exp(y[i])", "exp(x[i])")
    assert barriers(parallel.share(parse_plan(apart))) == ["k0", "k2"]  # k0 after k0 of a step ago
    flat = apart.replace("loop t < 4 {", "").replace("  }\n  kernel k2", "  kernel k2")
    assert barriers(parallel.share(parse_plan(flat))) == ["k2"]


@pytest.mark.parametrize(("kernel", "axis", "message", "shared"), [
    ("for i < 9, j < 9 { y[i,j] = x[i,j] }", "j", "outermost loops", ("i", "j")),
    ("for i < 9 { s = sum j < 9 { x[i,j] }\n y[i,0] = s }", "j", "outermost loops", ("i",)),
    ("for i < 9 { y[i,0] = x[i,0] }\n y[0,1] = 1.0", "i", "do not allow", ()),
    ("ordered for i < 9 { y[i,0] = x[i,0] }", "i", "do not allow", ()),
    ("s = sum i < 9 { y[i,1] }\n for j < 9 { y[j,0] = s }", "j", "do not allow", ()),
])  # fmt: skip
def test_what_cannot_be_shared(
    kernel: str, axis: str, message: str, shared: tuple[str, ...]
) -> None:
    """Inner loops, reductions, ordered loops, and statements that get in each other's way."""
    plan = parse_plan(f"""
    plan @f: arena 0 B, bound 0 B, state 0 B {{
      arguments x input, y output
      buffer x: f32[9,9] argument
      buffer y: f32[9,9] argument
      kernel k0
        {kernel}
        schedule loops: parallel {axis}
    }}""")
    assert [message in d.message for d in verify_plan(plan)] == [True]
    assert [k.schedule.parallel for k in _plainly(plan).kernels()] == [shared]


@pytest.mark.parametrize(("schedule", "message"), [
    ("parallel i, parts 256", "at most 255 parts"), ("vector i, parts 8", "parts of what is not"),
])  # fmt: skip
def test_parts_that_cannot_be(schedule: str, message: str) -> None:
    """The number of parts has a limit, and belongs to what is shared."""
    plan = parse_plan(LOOP.replace("vector i\n    kernel k1", f"{schedule}\n    kernel k1"))
    assert any(message in d.message for d in verify_plan(plan))


def test_long_kernels_fall_into_parts() -> None:
    """Parts take no fewer cycles than is worth a call; none where each worker had but one."""
    def parts(count: int) -> int:
        plan = parallel.share(parse_plan(LOOP.replace("9000", str(count))))
        return next(plan.kernels()).schedule.parts

    assert (parts(2000), parts(16_000), parts(1_000_000)) == (0, 9, 64)


def _plainly(plan: Plan) -> Plan:
    """The plan as the pass would share it, however small."""
    steps = tuple(
        replace(s, schedule=replace(s.schedule, parallel=(), parts=0))
        if isinstance(s, Kernel) else s
        for s in plan.steps)
    return parallel.share(replace(plan, steps=steps), 0.0, 0.0)
