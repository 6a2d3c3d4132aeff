"""Layers against PyTorch: against arrays that `make layers` wrote, so that none is needed here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nncompiler
from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate
from nncompiler.lang.fmt import format_source
from nncompiler.lang.parse import parse
from tests.layer_cases import CASES, FOLDER, Case
from tests.model_support import cache_of_run, compile_cache

__all__ = ["cache_of_run", "compile_cache"]

LIMITS = {"f32": 1e-5, "f64": 1e-9}
PAGE = Path(__file__).parents[1] / "docs" / "layers.md"
EXAMPLES = re.findall(r"```nn(?: sizes: ([^\n]*))?\n(.*?)```", PAGE.read_text(), re.DOTALL)


def compare(case: Case, dtype: str) -> dict[str, float]:
    """The error of the result `y` and of each gradient, over the largest value or 1."""
    model = nncompiler.compile(case.source, dtype=dtype, functions=("init", "infer", "grad"))
    with np.load(case.file) as file:
        wanted = {n: file[n] for n in file.files}
    floats = {
        n: a.astype(dtype.replace("f", "float"))
        for n, a in wanted.items()
        if a.dtype == np.float16
    }
    model.load_state_dict({n: floats[n] for n in case.parameters})
    integers = {n: wanted[n] for n in case.integers}
    found = {f"grad.{n}": g for n, g in model.gradients({"c": floats["c"], **integers}).items()}
    found["y"] = np.array(model.call("infer", integers).results["y"])
    assert {n for n in wanted if n.startswith("grad.")} == found.keys() - {"y"}
    return {n: error(a, wanted[n]) for n, a in found.items()}


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    scale = max(1.0, float(np.max(np.abs(wanted))))
    return float(np.max(np.abs(found.astype(np.float64) - wanted))) / scale


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_layer_is_that_of_pytorch(case, dtype):
    """The result and every gradient of a layer are PyTorch's."""
    assert max(compare(case, dtype).values()) <= LIMITS[dtype]


def test_arrays_are_those_of_the_cases():
    """The files hold what the cases say, and there are no others."""
    assert sorted(p.stem for p in FOLDER.glob("*.npz")) == sorted(c.name for c in CASES)
    for case in CASES:
        with np.load(case.file) as file:
            assert all(np.array_equal(file[n], a) for n, a in case.arrays().items()), case.name


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_layer_is_in_the_table(case):
    """The page of layers has a row of each."""
    assert f"| {case.name}: `{case.shown}` | " in PAGE.read_text()


@pytest.mark.parametrize("sizes, text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_of_the_page(sizes, text):
    """The examples of the page elaborate, and are as the formatter leaves them."""
    given = {k: int(v) for k, v in (pair.split("=") for pair in sizes.split())}
    network = elaborate(parse(text, "example.nn"), sizes={"batch": 2, **given})
    assert not [d for f in network.functions for d in verify(f)]
    assert format_source(text, "example.nn") == text


LIBRARY = Path(nncompiler.__file__).parent / "stdlib"
SOURCES = "".join(p.read_text() for p in sorted(LIBRARY.glob("*.nn")))
LAYERS = re.findall(r"^layer (\w+)", SOURCES, re.MULTILINE)


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_of_every_layer_are_told(name: str) -> None:
    """The first table of the page has a row for each layer of the library."""
    rows = re.findall(r"^\| (`.*?) \| `", PAGE.read_text(), re.MULTILINE)
    assert any(f"`{name}`" in row for row in rows)
