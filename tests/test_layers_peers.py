"""Layers against PyTorch: against arrays that `make peers` wrote, so that none is needed here."""

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
    """The error of the result `y`, of each gradient and of each new value of a state, over the
    largest value or 1."""
    with np.load(case.file) as file:
        wanted = {n: file[n] for n in file.files}
    given = {
        n: wanted[n].astype(dtype.replace("f", "float")) if wanted[n].dtype == np.float16
        else wanted[n] for n in case.arrays()
    }  # fmt: skip
    found = results(case, dtype, given)
    assert found.keys() == wanted.keys() - given.keys()
    return {n: error(a, wanted[n]) for n, a in found.items()}


def results(case: Case, dtype: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the compiled model makes of the arrays of a case."""
    wanted = {None: "infer grad", "training": "grad train_step", "prediction": "infer input_grad"}
    functions = ("init", *wanted[case.only].split())
    model = nncompiler.compile(case.source, dtype=dtype, functions=functions)
    held = model.state_dict().keys() & given.keys()
    model.load_state_dict({n: given[n] for n in held})
    data = {n: a for n, a in given.items() if n not in held}
    inputs = {n: a for n, a in data.items() if n != "c"}
    if case.only == "prediction":
        found = {f"grad.{n}": g for n, g in model.input_gradients(data).items()}
    else:
        found = {f"grad.{n}": g for n, g in model.gradients(data).items()}
    if case.only != "training":
        return found | {"y": np.array(model.call("infer", inputs).results["y"])}
    found["y"] = found.pop("grad.c")
    model.train_step(**data)
    return found | {f"new.{n}": model.state_dict()[n] for n in case.states}


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


def test_everything_in_the_library_is_compared() -> None:
    """Every layer has a case of its own, and every function one, or a part in one that does."""
    parts = re.split(r"^(?:layer|fn) (?=\w)", SOURCES, flags=re.MULTILINE)[1:]
    bodies = {re.match(r"\w+", part)[0]: set(re.findall(r"\w+", part)) for part in parts}  # type: ignore[index]
    reached = {w for c in CASES for w in re.findall(r"\w+", c.body) if w in bodies}
    assert not set(LAYERS) - reached
    while more := {w for n in reached for w in bodies[n] if w in bodies} - reached:
        reached |= more
    assert not bodies.keys() - reached
