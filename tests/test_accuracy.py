"""`models/digits_mlp.nn` on the bundled digits: how well it does on images it has never seen.

The hyper-parameters were chosen on the rows that are not test rows. The 355 test rows are looked
at once for each seed, after training. PyTorch reaches 96.9 to 97.2 % with this network.
"""

from __future__ import annotations

import time

import pytest

import nncompiler
from nncompiler.runtime import datasets
from nncompiler.runtime.model import Model
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

SEEDS = range(5)
EACH, MEAN = 0.963, 0.967
SECONDS = 30.0  # for one training; some 50 times what it takes


@pytest.fixture(scope="module")
def model(cache_of_run: object) -> Model:
    """The compiled model, as its file says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCOMPILER_CACHE", str(cache_of_run))
        return nncompiler.compile(MODELS / "digits_mlp.nn")


def test_network_is_the_one_agreed_on(model: Model) -> None:
    """64-128-64-10, trained with Adam: accuracy may not be bought with a larger network."""
    shapes = {name: value.shape for name, value in model.parameters.items()}
    assert list(shapes.values()) == [(64, 128), (128,), (128, 64), (64,), (64, 10), (10,)]
    assert model.manifest.train["optimizer"] == "adam"


def test_accuracy_on_test_digits(model: Model) -> None:
    """Every one of five seeds gets 96.3 % right, and their mean is at least 96.7 %."""
    data = datasets.digits()
    assert len(data.test["digit"]) == 355
    found = []
    for seed in SEEDS:
        model.init(seed)
        start = time.perf_counter()
        model.fit(data.train, seed=seed, progress=False)
        assert time.perf_counter() - start < SECONDS
        found.append(model.evaluate(data.test)["accuracy"])
    assert min(found) >= EACH, found
    assert sum(found) / len(found) >= MEAN, found
