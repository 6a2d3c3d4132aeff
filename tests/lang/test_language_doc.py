"""The language reference: its examples elaborate, its tables are those of the compiler."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nncompiler.ir.verify import verify
from nncompiler.lang.elaborate import elaborate, free_sizes
from nncompiler.lang.elaborate.builtins import BUILTINS
from nncompiler.lang.elaborate.scope import stdlib_index
from nncompiler.lang.elaborate.train import OPTIMIZERS, SCHEDULES, SETTINGS
from nncompiler.lang.fmt import format_source
from nncompiler.lang.parse import parse

TEXT = (Path(__file__).parents[2] / "docs/language.md").read_text()
EXAMPLES = re.findall(r"```nn(?: sizes: ([^\n]*))?\n(.*?)```", TEXT, re.DOTALL)
FUNCTIONS = [*BUILTINS.values(), *OPTIMIZERS, *SCHEDULES]


@pytest.mark.parametrize("sizes, text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(sizes, text):
    """An example of the reference elaborates to functions that verify."""
    file = parse(text, "example.nn")
    given = {k: int(v) for k, v in (pair.split("=") for pair in sizes.split())}
    if "train {" not in text and "batch" in free_sizes(file):
        given["batch"] = 4
    assert not [d for f in elaborate(file, sizes=given).functions for d in verify(f)]


def test_examples_are_found():
    """The pattern above finds every block."""
    assert len(EXAMPLES) == TEXT.count("```nn") >= 10


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_function_is_listed(function):
    """The tables hold each builtin, optimizer and schedule as it is."""
    assert f"| `{function.signature}` | {function.doc} | `{function.example}` |\n" in TEXT


@pytest.mark.parametrize("function", BUILTINS.values(), ids=lambda f: f.name)
def test_example_of_function(function):
    """The example beside a builtin elaborates."""
    if function.family == "initialiser":
        body = f"param w : f32[3, 4] = {function.example}\noutput y = w * x"
    else:
        statement = function.example if " = " in function.example else f"a = {function.example}"
        if function.family == "random":
            statement = f"a = x\nif training {{ {statement} }}"
        body = f"k = i32(x[:, 0])\n{statement}\noutput a\noutput z = x"
    elaborate(parse(f"model m {{ input x : f32[3, 4]\n{body} }}", "example.nn"))


def test_nothing_else_is_listed():
    """Each row of the tables of functions is one of the compiler."""
    rows = re.findall(r"^\| `(\w+)\([^`]*\)` \| [^|]* \| `", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(f.name for f in FUNCTIONS)


@pytest.mark.parametrize("name", sorted([*stdlib_index(), *SETTINGS]))
def test_library_and_settings_are_listed(name):
    """The reference mentions each definition of the library and each setting of a train block."""
    assert re.search(rf"^\|.*`{name}[`(]", TEXT, re.MULTILINE)


ROOT = Path(__file__).parents[2]
ZOO = sorted([*(ROOT / "models").glob("*.nn"), *(ROOT / "nncompiler/stdlib").glob("*.nn")])


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_zoo_is_formatted(path):
    """Models and the standard library are as `nnc fmt` leaves them."""
    assert format_source(path.read_text(), path.name) == path.read_text()


@pytest.mark.parametrize("sizes, text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_is_formatted(sizes, text):
    """So are the examples."""
    assert format_source(text, "example.nn") == text
