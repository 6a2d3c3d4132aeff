"""Batch normalisation folded into the weights for inference: equal results, fewer operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompiler.driver import Compilation, Options, read_source
from nncompiler.ir.graph import Function
from nncompiler.ir.interp import run
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.types import F64
from nncompiler.passes.graph.dce import DeadCode
from nncompiler.passes.graph.fold_affine import FoldAffine
from nncompiler.passes.manager import run_passes
from nncompiler.passes.pipelines import OPTIMISE

MODELS = Path(__file__).resolve().parents[2] / "models"
SIMPLE = OPTIMISE[:2]


def infer(name: str) -> Function:
    c = Compilation(read_source(MODELS / f"{name}.nn"), {"batch": 4}, Options())
    return run_passes(c.network.function("infer"), SIMPLE)


@pytest.mark.parametrize("name", ["resnet20", "dcgan"])
def test_results_are_equal(name: str) -> None:
    """In f64 up to its rounding, in f32 to 1e-5, with statistics that are no trivial ones."""
    f = infer(name)
    folded = FoldAffine().run(f)
    assert folded is not f
    values = random_arguments(f, 2)
    for v in f.params_of("state"):
        values[v.name] = np.abs(values[v.name]) + 0.5
    exact, wide, narrow = run(f, values, F64), run(folded, values, F64), run(folded, values)
    for result, array in exact.items():
        top = np.max(np.abs(array))
        assert np.max(np.abs(wide[result] - array)) <= 1e-12 * top
        assert np.max(np.abs(narrow[result] - array)) <= 1e-5 * top


def test_nothing_is_scaled_behind_a_convolution() -> None:
    """Of ResNet-20's normalisations each leaves one addition on whole images, and no product."""
    def large(f: Function, op: str) -> int:
        return sum(n.op == op and n.output.type.rank == 4 and n.output.shape[0] == 4
                   and n.output.shape[2] > 8 for n in f.nodes)

    before = infer("resnet20")
    after = run_passes(before, (FoldAffine(), DeadCode()))
    assert large(before, "mul") > 20
    assert large(after, "mul") == 0
    assert large(after, "sub") == 0


def test_training_is_left_alone() -> None:
    """Functions with gradients or updates are given back as they are."""
    c = Compilation(read_source(MODELS / "resnet20.nn"), {"batch": 2}, Options())
    for name in ("grad", "train_step"):
        assert FoldAffine().run(c.graphs[name]) is c.graphs[name]
