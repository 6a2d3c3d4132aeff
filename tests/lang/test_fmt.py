"""The formatter: one layout, the same tree, and twice is once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nncompiler.errors import UserError
from nncompiler.lang import tables
from nncompiler.lang.fmt import format_source
from nncompiler.lang.lex import lex, read
from nncompiler.lang.parse import parse

TESTS = Path(__file__).parents[1]
GOOD = sorted((TESTS / "filetests/lang/good").glob("*.nn"))
FILES = [*GOOD, *sorted((TESTS.parent / "models").glob("*.nn")),
         *sorted((TESTS.parent / "nncompiler/stdlib").glob("*.nn"))]


def check(text: str) -> str:
    """Format, and check what holds for every file."""
    formatted = format_source(text, "a.nn")
    assert parse(formatted, "a.nn") == parse(text, "a.nn")
    assert format_source(formatted, "a.nn") == formatted
    assert comments(formatted) == comments(text)
    assert all(line == line.rstrip() for line in formatted.split("\n"))
    assert "\n\n\n" not in formatted and "\t" not in formatted
    return formatted


def comments(text: str) -> list[str]:
    """The comments of a file in order."""
    return [comment.text for comment in lex(read(text, "a.nn")).comments]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_layout(path, golden):
    """A file with every form is laid out as expected."""
    golden(path.with_suffix(".formatted"), format_source(path.read_bytes(), path.name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file(path):
    """Formatting keeps tree and comments of every file in the project and is idempotent."""
    check(path.read_text())


@pytest.mark.parametrize("text, formatted", [
    ("", ""),
    ("# only", "# only\n"),
    ("fn f(x){return x}", "fn f(x) { return x }\n"),
    ("fn f(x){return x\n}", "fn f(x) {\n    return x\n}\n"),
    ("fn f(x)\n{ a=x return a}", "fn f(x) {\n    a = x\n    return a\n}\n"),
    ("fn f(x) {return -x- -x**-2}", "fn f(x) { return -x - -x ** -2 }\n"),
    ("fn f(x) {return (x+1,)[0]}", None),
    ("fn f(x) {return [x,]}", "fn f(x) { return [x] }\n"),
    ("fn f(x) {return f(axis = axis(1), over=-1)}",
     "fn f(x) { return f(axis=axis(1), over=-1) }\n"),
    ("fn f(x) {return scan z over(x) axis(1) {yield z}}",
     "fn f(x) {\n    return scan z over (x) axis (1) { yield z }\n}\n"),
    ("fn f(x) {return x}# c", "fn f(x) { return x }  # c\n"),
    ("fn f(x) {# c\n\n\n return x\n\n}\nfn g(x) {\nreturn x}\n# d\nfn h(x) {return x}",
     "fn f(x) {  # c\n\n    return x\n}\n\nfn g(x) {\n    return x\n}\n\n# d\n"
     "fn h(x) { return x }\n"),
    ("fn f(x) {if x {return 1}\nelse if 2*x {return 2}\nelse {}\nreturn 3}",
     "fn f(x) {\n    if x { return 1 } else if 2 * x { return 2 } else {}\n    return 3\n}\n"),
    ("fn f(x) {return x[ 1 : 3 , : , :: 2,...] }\r\n",
     "fn f(x) { return x[1:3, :, ::2, ...] }\n"),
])
def test_small(text, formatted):
    """One rule of the layout each."""
    if formatted is None:
        with pytest.raises(UserError):
            format_source(text, "a.nn")
    else:
        assert check(text) == formatted


def test_scrambled_layout():
    """Line breaks, comments and spaces wherever they may stand give the same tree."""
    rng = random.Random(7)
    for _ in range(10):
        source = read(rng.choice(GOOD).read_bytes(), "a.nn")
        text = ""
        for token in lex(source).tokens:
            gaps = [" ", "\n", "\n\n\n  ", "  # note\n", "\n# note\n\n"]
            tight = token.kind in {"CALL", "INDEX"}
            text += (" " if tight else rng.choice(gaps)) + token.text
        assert parse(text, "a.nn") == parse(source.text, "a.nn")
        check(text)


def test_mutated_files():
    """Whatever still parses after a mutation is formatted without changing its tree."""
    rng = random.Random(11)
    pieces = [*sorted(tables.tables().literals), "\n", "# c\n", "x", "(x)", "[0]", "-1", "{ }"]
    formatted = 0
    for _ in range(60):
        text = rng.choice(GOOD).read_text()
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(pieces) + text[at + rng.choice([0, 0, 1]) :]
        try:
            parse(text, "a.nn")
        except UserError:
            continue
        check(text)
        formatted += 1
    assert formatted > 10


def test_errors_are_those_of_the_parser():
    """A file that does not parse is not formatted."""
    with pytest.raises(UserError, match="NN0034"):
        format_source("x = 1", "a.nn")
