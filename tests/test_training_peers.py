"""Training step by step as PyTorch trains: against losses that `make peers` wrote, so that none
is needed here."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncompiler
from tests.model_support import cache_of_run, compile_cache
from tests.training_cases import CASES, FOLDER, Case, weight

__all__ = ["cache_of_run", "compile_cache"]

LIMITS = {"f32": 1e-4, "f64": 1e-9}
PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def losses(case: Case, dtype: str, steps: int, images: dict[str, Any] | None = None) -> np.ndarray:
    """The loss of each of the first steps."""
    model = nncompiler.compile(
        case.source, batch=case.batch, sizes=case.sizes, dtype=dtype,
        functions=("init", "train_step"))
    model.init(0)
    shapes = {name: view.shape for name, view in model.parameters.items()}
    model.load_state_dict(
        {**model.state_dict(), **{
            name: weight(name, shape).astype(dtype.replace("f", "float"))
            for name, shape in shapes.items()}})
    model.rate = case.rate
    found = []
    for batch in islice(case.batches(images), steps):
        found.append(float(model.train_step(**{
            name: a.astype(dtype.replace("f", "float")) if a.dtype.kind == "f" else a
            for name, a in batch.items()})))
    return np.array(found)


def errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The relative difference of each step."""
    return np.abs(found - wanted[: len(found)]) / wanted[: len(found)]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_trains_as_pytorch_does(case, dtype):
    """From the same weights and over the same batches, the losses are PyTorch's, which fall."""
    with np.load(case.file) as file:
        wanted = file[dtype]
    assert len(wanted) == case.steps
    found = losses(case, dtype, case.double if dtype == "f64" else case.single)
    assert np.max(errors(found, wanted)) <= LIMITS[dtype]
    assert wanted[-5:].mean() < wanted[:5].mean()


def test_files_are_those_of_the_cases():
    """Every file has its case, and the page a row of each."""
    assert sorted(p.stem for p in FOLDER.glob("*.npz")) == sorted(c.file.stem for c in CASES)
    assert all(f"| {c.name} | " in PAGE.read_text() for c in CASES)
