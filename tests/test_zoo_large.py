"""The larger models of the zoo as they are: sizes, and compiled code against the interpreter.

`test_models.py` has the same models at small sizes.
"""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import nncompiler
from nncompiler.driver import Compilation, Options, read_source
from tests.differential import differences
from tests.model_support import MODELS, cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

PARAMETERS = {"gpt": 826_112, "resnet20": 272_474}
CLASSES = {"gpt": 96, "resnet20": 10}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name: str) -> None:
    """ResNet-20 with projected shortcuts, and a transformer of four blocks, as they are known."""
    stages = Compilation(read_source(MODELS / f"{name}.nn"), {"batch": 2})
    found = {v.name: v.shape for v in stages.graphs["grad"].params_of("param")}
    assert sum(prod(shape) for shape in found.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_compiled_is_interpreted(name: str) -> None:
    """The loss and every gradient of a batch of two are those of the interpreter."""
    path = MODELS / f"{name}.nn"
    model = nncompiler.compile(path, batch=2, functions=("init", "grad"))
    model.init(3)
    stages = Compilation(read_source(path), {"batch": 2}, Options(functions=("grad",)))
    graph = stages.graphs["grad"]
    random = np.random.default_rng(4)
    data = {
        p.value.name: random.normal(size=p.value.shape).astype(np.float32)
        if p.value.dtype.is_float
        else random.integers(0, CLASSES[name], p.value.shape).astype(np.int32)
        for p in graph.params
        if p.kind in ("input", "target")
    }
    state = {n: np.array(view) for n, view in model.state.views.items()}
    found = model.call("grad", data).results
    assert differences(graph, {**state, **data}, found) == []
