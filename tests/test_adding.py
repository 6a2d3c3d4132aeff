"""docs/adding.md, step by step: operator, builtin and pass are taken from the page and tried."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nncompiler
from nncompiler.ir.interp import run
from nncompiler.ir.op import REGISTRY, Operator
from nncompiler.ir.sampling import random_arguments
from nncompiler.ir.text import parse_function, print_function
from nncompiler.lang.elaborate.builtins import BUILTINS
from nncompiler.lang.elaborate.builtins_shape import SHAPE
from nncompiler.passes.hooks import CheckPasses, verify_after
from nncompiler.passes.manager import PASSES, parse_pipeline, run_passes
from tests import test_operators as checks
from tests.differential import Compiled, differences
from tests.ops_support import OPERATORS, build, function_of

PAGE = (Path(__file__).parent.parent / "docs" / "adding.md").read_text()
MODEL = """model mirrored {
    input  x : f32[batch, 5]
    target t : f32[batch, 3]
    y = dense(3)(tanh(flip(x * x, 1)))
    output y
    output ends = flip(y)
    loss mse(flip(y, axis=1), t)
}

train {
    optimizer = sgd(lr = 0.1)
    batch = 4
    epochs = 1
}
"""


def block(mark: str) -> str:
    """The code below a comment on the page, out of its list."""
    found = re.search(rf"<!-- {mark} -->\n\s*```\w+\n(.*?)^\s*```$", PAGE, re.M | re.S)
    assert found, f"docs/adding.md has no block '{mark}'"
    return textwrap.dedent(found[1])


def define(mark: str) -> ModuleType:
    """A module that holds the block; dataclasses look for it by its name."""
    module = ModuleType(f"docs_adding_{mark}")
    sys.modules[module.__name__] = module
    exec(compile(block(mark), f"docs/adding.md, {mark}", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def flip() -> Iterator[Operator]:
    """The operator of the page and its builtin, gone again afterwards."""
    try:
        define("operator")
        define("builtin")
        BUILTINS["flip"] = SHAPE[-1]
        yield REGISTRY["flip"]
    finally:
        REGISTRY.pop("flip", None)
        if BUILTINS.pop("flip", None):
            SHAPE.pop()


def test_operator_is_new(flip: Operator) -> None:
    """The page adds an operator that the compiler does not have."""
    assert "flip" not in {op.name for op in OPERATORS}


def test_operator_passes_the_registry_checks(flip: Operator) -> None:
    """Step 4: the tests that pick up every operator, on all its samples."""
    checks.test_has_samples(flip)
    for sample in flip.samples():
        checks.test_reference_fits_shape_rule(flip, sample)
        checks.test_lowering_equals_reference(flip, sample)
        checks.test_dims_line_up(flip, sample)
        checks.test_simplification_keeps_the_value(flip, sample)
        if sample.inputs[0].dtype.is_float:
            checks.test_gradient_equals_differences(flip, sample)


def test_operator_survives_text(flip: Operator) -> None:
    """The text format needs no change for it."""
    for sample in flip.samples():
        b, node = build("flip", sample)
        function = function_of(b, node.output)
        assert parse_function(print_function(function)) == function


def test_operator_compiles(flip: Operator) -> None:
    """Compiled = interpreted, alone and amid what it is fused with."""
    text = """graph @f {
      input %x: f32[6,17]
      %0: f32[6,17] = exp %x
      %1: f32[6,17] = flip %0 {axis=1}
      %2: f32[6,17] = mul %1, %x
      %3: f32[6] = reduce_sum %2 {axes=[1], keepdims=false}
      %4: f32[6] = flip %3 {axis=0}
      return a=%1, b=%4
    }"""
    function = parse_function(textwrap.dedent(text))
    values = random_arguments(function, 0)
    assert differences(function, values, Compiled([function]).run("f", values)) == []


def test_builtin_works_in_a_model(flip: Operator) -> None:
    """Step 5: the language knows it; the compiled gradient agrees with finite differences."""
    model = nncompiler.compile(MODEL, cache=False)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(4, 5)).astype("f4"), "t": rng.normal(size=(4, 3)).astype("f4")}
    found = model.predict({"x": data["x"]})
    np.testing.assert_array_equal(found["ends"], found["y"][::-1])
    gradient, step, weights = model.gradients(data)["y.W"], 1e-2, model.state_dict()
    direction = rng.normal(size=gradient.shape)
    losses = []
    for sign in (1, -1):
        model.load_state_dict({**weights, "y.W": weights["y.W"] + sign * step * direction})
        losses.append(float(model.loss(data)))  # type: ignore[arg-type]
    slope = (losses[0] - losses[1]) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3)


def test_pass_does_what_its_file_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 2 to 5: registered, run by its text, verified, compared with the interpreter."""
    module = define("pass")
    monkeypatch.setitem(PASSES, "renumber", module.Renumber)
    head, _, expected = block("filetest").partition("// EXPECT\n")
    pipeline = parse_pipeline(head.splitlines()[0].removeprefix("// RUN: "))
    before = parse_function(head)
    after = run_passes(before, pipeline, [verify_after, CheckPasses()])
    assert print_function(after).strip() == expected.strip()
    assert run_passes(after, pipeline) is after
    values = random_arguments(before, 0)
    np.testing.assert_array_equal(run(before, values)["y"], run(after, values)["y"])
