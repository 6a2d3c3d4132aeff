"""Loops that run backwards in every second round: which do, and that they do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nncompiler.codegen.kernel import emit_kernel
from nncompiler.codegen.target import host
from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.kernel import Fold, For, Plan, Schedule, Store
from nncompiler.ir.scalar import Ref, apply
from nncompiler.ir.text import print_plan
from nncompiler.ir.text.plan import parse_plan
from nncompiler.ir.types import F32
from nncompiler.ir.verify_plan import verify_plan
from tests.nest_harness import Compiled, at, axes, buffer, kernel, load

MODELS = Path(__file__).resolve().parents[2] / "models"


def plan_of(batch: int, units: int) -> Plan:
    options = Options(cpu="x86-64-v3", functions=("infer",))
    sizes = {"batch": batch, "units": units, "time": 8}
    return Compilation(read_source(MODELS / "char_lstm.nn"), sizes, options).plans["infer"]


@pytest.mark.parametrize(("batch", "units", "alternate"), [
    (1, 256, {"t0"}), (2, 256, {"t0"}), (1, 32, set()), (8, 256, set()),
])  # fmt: skip
def test_long_reading_for_few_rows(batch: int, units: int, alternate: set[str]) -> None:
    """Recurrent weights of 1 MiB are read to and fro for one row or two; small ones are near in
    any case, and many rows take longer than reading.
    """
    plan = plan_of(batch, units)
    assert {k.schedule.alternate for k in plan.kernels()} - {None} == alternate
    text = print_plan(plan)
    assert bool(re.search(r", alternate t0, backwards [jk]\n", text)) == bool(alternate)
    assert parse_plan(text) == plan and verify_plan(plan) == []


@pytest.mark.parametrize(("schedule", "message"), [
    (r"\1, alternate t1", "'t1', which is no counter"),
    (r"\1, alternate j", "'j', which is no counter"),
    ("alternate t0", "no contraction with parallel loops"),
    (r"\1, backwards j", "in no rounds that alternate"),
    (r"\1, alternate t0, backwards i1", "'i1' backwards, which is not the only loop"),
    (r"pack 64, \1, alternate t0, backwards j", "'j' backwards, which is not the only loop"),
])  # fmt: skip
def test_what_cannot_alternate(schedule: str, message: str) -> None:
    """Only shared loops do, by a counter around them that the kernel knows."""
    text = print_plan(plan_of(1, 256))
    wrong = re.sub(r"(parallel [\w ]+, parts \d+), alternate t0, backwards j", schedule, text)
    assert any(message in d.message for d in verify_plan(parse_plan(wrong)))


@pytest.mark.parametrize(("parts", "last"), [((0, 4), (3, 0)), ((1, 3), (2, 1)), ((2, 4), (3, 2))])
def test_odd_rounds_run_backwards(parts: tuple[int, int], last: tuple[int, int]) -> None:
    """All steps write to one place, so what stays there is of the last one, of those of a part."""
    h, w = np.ones((2, 3), np.float32), np.empty((4, 3, 8), np.float32)
    w[:] = np.arange(4, dtype=np.float32)[:, None, None]
    schedule = Schedule("contract", ("j",), None, (1, 8), tuple("ijk"), alternate="t")
    for t in range(2):
        np.testing.assert_array_equal(product(schedule, t, parts, h, w), 3 * last[t])


@pytest.mark.parametrize("unroll", [1, 2])
def test_sums_run_backwards(unroll: int) -> None:
    """What is added to something large is lost, and is not if it comes last."""
    h = np.array([[1, 1e8, -1e8, 0]] * 2, np.float32)
    schedule = Schedule("contract", ("j",), None, (1, 8), tuple("ijk"), unroll=unroll)
    for backwards, sums in ((None, (0, 0)), ("k", (0, 1))):
        fro = replace(schedule, alternate="t", backwards=backwards)
        for t in range(2):
            found = product(fro, t, (0, 4), h, np.ones((4, 4, 8), np.float32))
            np.testing.assert_array_equal(found, sums[t])


def product(
    schedule: Schedule, t: int, parts: tuple[int, int], h: np.ndarray, w: np.ndarray
) -> np.ndarray:
    """Row t of h by each of the matrices in w, all stored at one place, by a share of them."""
    term = apply("mul", load("h", h, "t", "k"), load("w", w, "i", "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=h.shape[1]), (term,))
    nest = kernel(For(axes(i=4, j=8), (fold, Store("c", at("j"), Ref("acc", F32)))))
    nest = replace(nest, schedule=replace(schedule, parallel=("i",)))
    found = np.zeros(8, np.float32)
    arrays = {"h": h, "w": w, "c": found}
    table = {name: buffer(name, array) for name, array in arrays.items()}
    code = emit_kernel(nest, table, host(), "kernel")
    code = replace(code, counters=(*code.counters, "range", "parts"))
    some = {"t": t, "range": parts[0] | parts[1] << 32, "parts": 4}
    Compiled.of_code(code, host(), some)(**arrays)
    return found
