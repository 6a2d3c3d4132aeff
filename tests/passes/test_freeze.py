"""Parameters as constants: what the compiler computes, and that results stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.codegen.target import host
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.driver.constants import lay_constants, lay_parameters
from nncompiler.ir.graph import Builder, Function
from nncompiler.ir.interp import run
from nncompiler.ir.interp_plan import run_plan
from nncompiler.ir.model import HEADER_BYTES
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F32, I32, TensorType
from nncompiler.ir.verify import verify
from nncompiler.ir.verify_plan import verify_plan
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.freeze import freeze
from nncompiler.passes.manager import run_passes
from nncompiler.passes.pipelines import OPTIMISE
from nncompiler.passes.planning import plan_frozen
from nncompiler.record import replace
from tests.differential import differences
from tests.networks import run_planned
from tests.random_graphs import random_function

MODELS = Path(__file__).resolve().parents[2] / "models"


def ops(f: Function) -> list[str]:
    return [n.op for n in f.nodes]


def frozen(f: Function, seed: int = 0) -> Function:
    """`f` with all its parameters frozen, after a comparison with it."""
    values = random_arguments(f, seed)
    own = {p.value.name for p in f.params if p.kind in ("param", "state")}
    found, constants = freeze(f, {n: values[n] for n in own})
    assert verify(found) == []
    read = {p.value.name for p in found.params if p.kind in ("param", "state")}
    assert read == constants.keys()
    before, after = run(f, values), run(found, {**values, **constants})
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    return found


def test_what_follows_from_parameters_is_computed() -> None:
    """A scale by running statistics; what the input enters stays."""
    b = Builder("f")
    x = b.param("input", "x", TensorType(F32, (4, 8)))
    variance = b.param("state", "variance", TensorType(F32, (8,)))
    gain = b.param("param", "gain", TensorType(F32, (8,)))
    scale = b.emit("mul", gain, b.emit("exp", variance))
    f = b.finish([("y", b.emit("mul", x, scale))])
    found = frozen(f)
    assert ops(found) == ["mul"]
    assert [p.value.name for p in found.params] == ["x", scale.name]


@pytest.mark.parametrize("texts", [1, 5, 40])
def test_rows_of_a_table_are_multiplied_once(texts: int) -> None:
    """However few rows are asked for."""
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, (texts,)))
    table = b.param("param", "table", TensorType(F32, (9, 3)))
    weights = b.param("param", "weights", TensorType(F32, (3, 5)))
    rows = b.emit("gather", table, text, axis=0)
    y = b.emit("contract", rows, weights, spec="i j k: i k, k j -> i j")
    assert ops(frozen(b.finish([("y", y)]))) == ["gather"]


def test_a_table_that_would_be_large_stays() -> None:
    """Times wide weights it would take much more memory than all parameters do."""
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, (4,)))
    table = b.param("param", "table", TensorType(F32, (99, 3)))
    weights = b.param("param", "weights", TensorType(F32, (3, 50)))
    rows = b.emit("gather", table, text, axis=0)
    y = b.emit("contract", rows, weights, spec="i j k: i k, k j -> i j")
    assert ops(frozen(b.finish([("y", y)]))) == ["gather", "contract"]


def test_a_table_of_inputs_is_none() -> None:
    b = Builder("f")
    text = b.param("input", "text", TensorType(I32, (2,)))
    table = b.param("input", "table", TensorType(F32, (9, 3)))
    weights = b.param("param", "weights", TensorType(F32, (3, 5)))
    rows = b.emit("gather", table, text, axis=0)
    y = b.emit("contract", rows, weights, spec="i j k: i k, k j -> i j")
    assert ops(frozen(b.finish([("y", y)]))) == ["gather", "contract"]


def test_what_grows_or_only_moves_stays() -> None:
    """A broadcast bias would take more memory than it saves time; a transpose is free later."""
    b = Builder("f")
    x = b.param("input", "x", TensorType(F32, (64, 8)))
    bias = b.param("param", "bias", TensorType(F32, (8,)))
    w = b.param("param", "w", TensorType(F32, (8, 64)))
    wide = b.emit("broadcast", b.emit("neg", bias), shape=(64, 8))
    turned = b.emit("transpose", w, perm=(1, 0))
    f = b.finish([("y", b.emit("add", b.emit("add", x, wide), turned))])
    found = frozen(f)
    assert ops(found) == ["broadcast", "transpose", "add", "add"]
    assert [p.value.shape for p in found.params] == [(64, 8), (8, 64), (8,)]


def test_results_of_parameters_alone() -> None:
    b = Builder("f")
    w = b.param("param", "w", TensorType(F32, (3,)))
    one = b.const(1.0, F32)
    results = [("same", w), ("more", b.emit("add", w, one)), ("one", one)]
    found = frozen(b.finish(results))
    assert ops(found) == ["constant"]


@pytest.mark.parametrize("seed", range(7_000, 7_060))
def test_random_graphs(seed: int) -> None:
    frozen(random_function(seed), seed)


@pytest.mark.parametrize("first", [0, 20, 40])
def test_plans_of_random_graphs(first: int) -> None:
    """What parameters make is in the state, results of them alone too; nothing writes there."""
    for seed in range(first, first + 20):
        f = random_function(seed)
        kept = tuple((n, v) for n, v in f.results if not n.startswith("update."))
        f = DeadCode().run(replace(f, results=kept))
        values = random_arguments(f, seed)
        own = {v.name: values[v.name] for v in f.params_of("param", "state")}
        found, constants = freeze(f, own)
        found = run_passes(found, OPTIMISE)
        machine = host().machine
        planned = plan_frozen(found, lay_parameters(found, F32), machine, values=constants)
        made = lay_constants(F32, [planned])
        (plan,) = made.plans
        assert verify_plan(plan) == [], seed
        state = np.zeros(made.layout.bytes, np.uint8)
        state[HEADER_BYTES:] = np.frombuffer(made.image, np.uint8)
        before, arrays = state.copy(), {}
        for a in plan.arguments:
            shape, dtype = plan.buffer(a.buffer).type.shape, plan.buffer(a.buffer).type.dtype
            given = np.zeros(shape) if a.role == "output" else values[a.buffer]
            arrays[a.buffer] = np.array(given, dtype.numpy)
        run_plan(plan, state, arrays)
        results = {n: arrays.get(f"{n}.out", arrays.get(n)).reshape(v.shape) for n, v in kept}
        assert differences(f, values, results) == [], seed
        assert (state == before).all(), seed


@pytest.mark.parametrize(("name", "sizes", "fewer"), [
    ("lenet", {"batch": 1}, 0), ("resnet20", {"batch": 1}, 30), ("resnet20", {"batch": 2}, 30),
    ("char_lstm", {"batch": 1, "time": 5}, 0), ("gpt", {"batch": 1}, 0), ("mlp", {"batch": 3}, 0),
])  # fmt: skip
def test_plans(name: str, sizes: dict[str, int], fewer: int) -> None:
    """Kernels of constants alone are gone, and what is left computes the same as a plan."""
    source = read_source(MODELS / f"{name}.nn")
    plain = Compilation(source, sizes, Options(functions=("infer",)))
    f = plain.graphs["infer"]
    values = random_arguments(f, 1)
    entries = (*plain.layout.of_kind("param"), *plain.layout.of_kind("state"))
    weights = {e.name: values.get(e.name, np.zeros(e.type.shape, e.type.dtype.numpy))
               for e in entries}  # fmt: skip
    c = Compilation(source, sizes, Options(frozen=weights))
    plan = c.plans["infer"]
    assert verify_plan(plan) == []
    assert len(list(plain.plans["infer"].kernels())) - len(list(plan.kernels())) >= fewer
    state = np.zeros(c.constants.layout.bytes, np.uint8)
    state[HEADER_BYTES:] = np.frombuffer(c.constants.image, np.uint8)
    expected = run_planned(f, plain.plans["infer"], plain.layout, values)
    arrays = {a.buffer: values[a.buffer] for a in plan.arguments if a.role != "output"}
    arrays |= {n: np.zeros_like(array) for n, array in expected.items()}
    run_plan(plan, state, arrays)
    for n, array in expected.items():
        np.testing.assert_allclose(arrays[n], array, rtol=2e-4, atol=2e-5, err_msg=n)
