"""Recomputation in the backward pass of loops: what is kept, what it saves, and equal results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.errors import UserError
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import parse_plan, print_plan
from nncompiler.ir.types import F32, F64, DType
from nncompiler.passes.manager import run_pass
from nncompiler.passes.training.recompute import Recompute
from nncompiler.report.accounts import analyse
from nncompiler.report.text import render
from tests.differential import Compiled, differences
from tests.passes.test_gradient import check_by_differences
from tests.passes.test_scan import gradient_of, nested, rnn

ROOT = Path(__file__).resolve().parents[2]
MODELS, PAGE = ROOT / "models", ROOT / "docs" / "memory.md"


def recomputed(f: Function) -> Function:
    return run_pass(Recompute(), f)


def network(case: str, dtype: DType) -> Function:
    match case:
        case "forwards":
            return rnn(3, 5, 4, 2, dtype)
        case "backwards":
            return rnn(3, 5, 4, 2, dtype, reverse=True)
        case _:
            return nested(dtype)


@pytest.mark.parametrize("case", ["forwards", "backwards", "nested"])
def test_gradients_are_the_same(case: str) -> None:
    """In f64 to the last digits, by central differences, and in machine code at f32."""
    f = network(case, F64)
    values = random_arguments(f, 3)
    kept, again = run(gradient_of(f), values), run(gradient_of(recomputed(f)), values)
    for name, array in kept.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-12, err_msg=name)
    weights = [v.name for v in f.params_of("param")]
    check_by_differences(recomputed(f), "loss", values, weights)
    g = gradient_of(recomputed(network(case, F32)))
    values = random_arguments(g, 3)
    assert differences(g, values, Compiled([g]).run(g.name, values)) == []


SETTING = "    recompute = true\n"


def char_lstm(setting: str) -> Compilation:
    """The model with a line more in its train block."""
    text = (MODELS / "char_lstm.nn").read_text().rstrip().removesuffix("}") + setting + "}\n"
    options = Options(cpu="x86-64-v3", functions=("train_step",))
    return Compilation(read_source(text), {}, options)


def test_training_the_character_model_needs_less_memory() -> None:
    """The arena falls by at least a quarter, and plan and report say why."""
    kept, again = (char_lstm(s) for s in ("", SETTING))
    before, after = kept.plans["train_step"], again.plans["train_step"]
    assert after.arena_bytes < 0.75 * before.arena_bytes
    assert after.arena_bytes <= 1.05 * after.bound
    assert [loop.recompute for loop in after.loops()] == [False, True]
    assert not any(loop.recompute for loop in before.loops())
    gates = [
        sum(b.space == "arena" and b.type.shape == (64, 32, 256) for b in p.buffers)
        for p in (before, after)
    ]
    assert gates == [5, 0]
    text = print_plan(after)
    assert "loop t0 < 64 reverse recompute {" in text
    assert parse_plan(text) == after
    costs = [analyse(c) for c in (kept, again)]
    assert ["recomputing loops" in render(c) for c in costs] == [False, True]
    rows = {
        "arena of `train_step`, bytes": (before.arena_bytes, after.arena_bytes),
        "live-byte bound, bytes": (before.bound, after.bound),
        "multiply-adds of `train_step`": [c.functions[0].work.multiply_adds for c in costs],
    }
    page = "".join(f"| {name} | {a:,} | {b:,} |\n" for name, (a, b) in rows.items())
    assert page in PAGE.read_text(encoding="utf-8"), f"docs/memory.md should say\n{page}"


def test_the_setting_is_true_or_false() -> None:
    """Any other value is refused where it stands."""
    with pytest.raises(UserError, match="expected `true` or `false` for `recompute`"):
        assert char_lstm("    recompute = 2\n").network
