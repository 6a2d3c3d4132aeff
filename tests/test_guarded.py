"""Code touches nothing beside what a caller must provide, nor beside the buffers of its plan."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from nncompiler.ir.verify_plan import verify_plan
from tests.differential import Compiled
from tests.fuzz_schedules import LEVELS
from tests.guarded import PAGE, REPOSITORY, alone, guarded, spread
from tests.random_graphs import random_function
from tests.test_levels import skip_beyond

SIDES = ("behind", "ahead")
#: Reads a byte so far from the beginning of five floats.
READ = """
import ctypes, sys
import numpy as np
from tests.guarded import guarded
array = guarded(np.ones(5, np.float32), bool({ahead}))
ctypes.string_at(array.ctypes.data + {at}, 1)
"""


@pytest.mark.parametrize(
    ("ahead", "at", "ends"),
    [(False, 0, False), (False, 19, False), (False, 20, True), (True, 0, False), (True, -1, True)],
)
def test_guards_end_a_process(ahead: bool, at: int, ends: bool) -> None:
    """One byte beside the array is enough."""
    command = [sys.executable, "-c", READ.format(ahead=ahead, at=at)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGSEGV if ends else 0), done.stderr


@pytest.mark.parametrize("shape", [(), (0, 3), (1000,), (7, 5)])
def test_copies_are_laid_out_alike(shape: tuple[int, ...]) -> None:
    """Whatever the order of axes in memory, and with gaps between rows."""
    whole = np.random.default_rng(0).random((*shape, 3))
    for array in (whole, whole.T, whole[..., :2], whole[..., 1]):
        for ahead in (False, True):
            found = guarded(array, ahead)
            assert found.strides == array.strides and np.array_equal(found, array)
            assert not ahead or found.ctypes.data % PAGE == 0


def test_spread_plans_are_plans() -> None:
    """Buffers of the arena lie on pages of their own, but those in place of others."""
    functions = [random_function(seed, prefix=f"s{seed}_") for seed in range(6)]
    compiled = Compiled(functions)
    found = 0
    for plan in compiled.plans.values():
        for ahead in (False, True):
            apart, between = spread(plan, ahead)
            assert verify_plan(apart) == []
            owners = [b for b in apart.buffers if b.space == "arena" and b.in_place_of is None]
            ends = [(b.offset or 0, (b.offset or 0) + b.nbytes - 1) for b in owners]
            pages = [n for low, high in ends for n in range(low // PAGE, high // PAGE + 1)]
            assert len(set(pages)) == len(pages)
            assert not {n * PAGE for n in pages} & {*between}
            found += len(owners)
    assert found > 20


@pytest.mark.parametrize("side", SIDES)
def test_graphs(side: str) -> None:
    """Arrays, state, and each buffer of the arena."""
    alone("tests.fuzz_graphs", "--first", 7_200_000, "--count", 8, "--guard", side)


@pytest.mark.parametrize("side", SIDES)
def test_nests(side: str) -> None:
    """Arrays in any order, with gaps between rows and without; schedules as they come."""
    alone("tests.fuzz_schedules", "--first", 8_000_000, "--count", 60, "--guard", side)


@pytest.mark.parametrize("level", LEVELS)
def test_models(level: str) -> None:
    """Training, native loops, frozen weights."""
    skip_beyond(level)
    alone("tests.guarded_models", "lenet", "rnn_sine", "--batch", 3, "--cpu", level)
