"""Fusion, scheduling, writes in place and memory, judged by the plan interpreter at real
offsets."""

from __future__ import annotations

import numpy as np
import pytest

from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.graph import Builder, Function
from nncompiler.ir.interp import run
from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import Network
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import parse_plan, print_plan
from nncompiler.ir.train import OptimizerSpec
from nncompiler.ir.types import F32, TensorType
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.fusion.fuse import Fuse
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.manager import run_passes
from nncompiler.passes.memory.arena import place
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.passes.training import optimizer
from tests.differential import state_of
from tests.networks import MATMUL, layout_of, mlp, run_planned
from tests.random_graphs import random_function

ADAM = OptimizerSpec("adam", (("lr", 0.01), ("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8)))


def plan_of(f: Function, network: Network | None = None, fused: bool = True) -> Plan:
    passes = OPTIMISE if fused else (Fuse(max_nodes=1),)
    return place(schedule(run_passes(f, passes), layout_of(f, network)))


def agrees(f: Function, network: Network | None = None, fused: bool = True) -> Plan:
    """The plan of `f` computes what `f` does."""
    plan = plan_of(f, network, fused)
    values = random_arguments(f, 7)
    expected = run(f, values)
    found = run_planned(f, plan, layout_of(f, network), values)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-6, err_msg=name)
    return plan


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("which", ["grad", "train_step", "apply"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": ADAM}, {"clip_norm": 0.5, "l2": 0.01}, {"clip_value": 0.1, "l1": 0.1}],
)
def test_training_plan_computes_what_the_graph_says(
    which: str, settings: dict, fused: bool
) -> None:
    """Every training function, several optimizers, fused and unfused: plan = graph."""
    network = mlp(**settings)
    agrees(getattr(optimizer, which)(network), network, fused)


def test_training_step_of_a_perceptron_is_thirteen_kernels() -> None:
    """3 forward, 1 loss with its gradient, 2 input gradients, 6 updates, the step counter."""
    network = mlp()
    plan = plan_of(optimizer.train_step(network), network)
    assert len(list(plan.kernels())) == 13


def test_weight_gradient_is_never_stored() -> None:
    """Momentum and update run as the epilogue of dW: no arena buffer has a weight's shape."""
    network = mlp(batch=5, sizes=(7, 6, 4, 3))
    plan = plan_of(optimizer.train_step(network), network)
    weights = {t.shape for n, t in network.parameters if n.endswith("W")}
    assert not [b.name for b in plan.buffers if b.space == "arena" and b.type.shape in weights]


def test_input_gradient_reads_the_weight_before_the_update_writes_it() -> None:
    """The hazard of updating in place: every kernel that reads W runs before the one that writes
    it."""
    network = mlp()
    plan = plan_of(optimizer.train_step(network), network)
    for name, _ in network.parameters:
        steps = [reads_and_writes(k) for k in plan.kernels()]
        (writer,) = [n for n, (_, w) in enumerate(steps) if name in w]
        assert all(n <= writer for n, (r, _) in enumerate(steps) if name in r)


def update_function(kind: str) -> Function:
    """Functions that write a parameter in ways that need care."""
    b = Builder("f")
    w = b.param("param", "w", TensorType(F32, (4, 4)))
    x = b.param("input", "x", TensorType(F32, (4, 4)))
    product = b.emit("contract", x, w, spec=MATMUL)
    match kind:
        case "new value is a product that reads the old":
            return b.finish([("update.w", product)])
        case "new value is the old transposed":
            return b.finish([("update.w", b.emit("transpose", w, perm=(1, 0)))])
        case "old value is read after the new one":
            new = b.emit("add", w, x)
            return b.finish([("y", b.emit("sub", new, w)), ("update.w", new)])
        case "new value is also a result":
            new = b.emit("add", w, x)
            return b.finish([("y", new), ("update.w", new)])
        case "new value is an input":
            return b.finish([("update.w", x), ("y", product)])
        case "row statistics of the old value":
            norm = b.emit("reduce_sum", b.emit("mul", w, w), axes=(1,), keepdims=True)
            return b.finish(
                [("update.w", b.emit("div", w, b.emit("add", norm, b.const(1.0, F32))))]
            )
        case "a part of the old value is read after the new one":
            part = b.emit("slice", w, start=(0, 0), stop=(4, 1), step=(1, 1))
            new = b.emit("add", w, b.emit("mul", x, part))
            total = b.emit("reduce_sum", new, axes=(0,), keepdims=True)
            return b.finish([("update.w", new), ("y", b.emit("mul", total, part))])
        case "two parameters swap":
            v = b.param("param", "v", TensorType(F32, (4, 4)))
            one = b.const(1.0, F32)
            return b.finish(
                [("update.w", b.emit("mul", v, one)), ("update.v", b.emit("add", w, one))]
            )
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        "new value is a product that reads the old", "new value is the old transposed",
        "old value is read after the new one", "new value is also a result",
        "new value is an input", "row statistics of the old value", "two parameters swap",
        "a part of the old value is read after the new one",
    ],
)  # fmt: skip
def test_update_hazards(kind: str, fused: bool) -> None:
    """Whatever the order of reads and writes, results are those of the pure graph."""
    agrees(update_function(kind), fused=fused)


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_arena_meets_the_bound(batch: int) -> None:
    """The arena of a perceptron is within 5 % of the live-byte bound."""
    network = mlp(batch, (33, 16, 15, 3), ADAM)
    for make in (optimizer.grad, optimizer.train_step):
        plan = plan_of(make(network), network)
        assert plan.arena_bytes <= 1.05 * plan.bound


def test_softmax_loss_and_gradient_are_one_kernel() -> None:
    """Cross-entropy forward and backward fuse; one exp per element is kept, not computed again."""
    network = mlp(64, (20, 10))
    f = optimizer.grad(network)
    plan = plan_of(f, network)
    kernels = list(plan.kernels())
    assert len(kernels) == 4
    loss = next(k for k in kernels if "loss" in reads_and_writes(k)[1])
    assert repr(loss.body).count("'exp'") == 1


def test_results_that_are_views_parameters_or_twice_the_same() -> None:
    """Results nobody computes in place are copied; views of computed values too."""
    b = Builder("f")
    x = b.param("input", "x", TensorType(F32, (4, 6)))
    y = b.emit("exp", x)
    flat = b.emit("reshape", y, shape=(3, 8))
    f = b.finish(
        [("same", x), ("y", y), ("again", y), ("flat", flat), ("x.out", b.emit("neg", flat))]
    )
    agrees(f)
    agrees(f, fused=False)


def test_a_product_of_single_elements_is_no_sum() -> None:
    """A convolution of one channel by windows of one element has no axis to be summed along; what
    is behind the edge of an image is guarded all the same."""
    b = Builder("f")
    x = b.param("input", "x", TensorType(F32, (2, 1, 5)))
    w = b.param("param", "w", TensorType(F32, (3, 1, 1)))
    y = b.emit("contract", x, w, spec="n o h=7 c r: n c h+r-1, o c r -> n o h")
    plan = agrees(b.finish([("y", b.emit("add", y, b.emit("exp", y)))]))
    assert verify_plan(plan) == [] and "sum" not in print_plan(plan)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_plans_of_random_graphs_are_sound(first: int) -> None:
    """And their text is read back."""
    for seed in range(first, first + 20):
        f = random_function(seed)
        plan = place(schedule(run_passes(f, OPTIMISE), state_of([f], F32)))
        assert verify_plan(plan) == [], seed
        text = print_plan(plan)
        assert print_plan(parse_plan(text)) == text, seed
