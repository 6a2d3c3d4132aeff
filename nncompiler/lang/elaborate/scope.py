"""Where names come from: the file's definitions, the standard library, the builtins.

A definition of the standard library is parsed when it is first used; where it is, a scan for
``fn NAME`` and ``layer NAME`` tells. A definition in the file comes before one of
the same name in the library; builtins cannot be redefined.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from nncompiler.errors import Note, UserError
from nncompiler.lang import syntax as s
from nncompiler.lang.elaborate.builtins import BUILTINS
from nncompiler.lang.elaborate.values import Definition, Module, V

STDLIB = Path(__file__).resolve().parents[2] / "stdlib"
RESERVED = {"training", "pi"}
CONSTANTS: dict[str, V] = {"pi": 3.141592653589793}


def check_definition(item: s.Fn | s.Layer, known: dict[str, s.Fn | s.Layer]) -> None:
    """Refuse names that are taken."""
    name = item.name.text
    if name in known:
        raise UserError("NN0102", f"`{name}` is defined twice", item.name.span,
                        notes=[Note("first here", known[name].name.span)])
    check_bindable(item.name)
    inputs = item.inputs if isinstance(item, s.Layer) else ()
    for p in (*item.parameters, *inputs):
        check_bindable(p.name)
    settings = {p.name.text: p for p in item.parameters}
    for p in inputs:
        if p.name.text in settings:
            raise UserError("NN0102", f"`{p.name.text}` is in both argument lists", p.name.span,
                            notes=[Note("first here", settings[p.name.text].name.span)])


def check_bindable(name: s.Ident) -> None:
    """Refuse to give a builtin's name to something else."""
    text = name.text
    if text in BUILTINS or text in RESERVED:
        what = f"the function `{BUILTINS[text].signature}`" if text in BUILTINS \
            else "a word with a meaning of its own"
        raise UserError("NN0103", f"`{text}` is built in and cannot be bound", name.span,
                        notes=[Note(f"`{text}` is {what}")],
                        help=f"choose another name, such as `{text}_1`")


def find(module: Module, name: str) -> V | None:
    """The definition, constant or builtin called `name`."""
    if name in module.definitions:
        return Definition(module.definitions[name], module)
    if name in module.imported:
        return module.imported[name]
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name in BUILTINS:
        return BUILTINS[name]
    return stdlib_definition(name) if name in stdlib_index() else None


def known(module: Module) -> list[str]:
    """Every name that `find` finds."""
    return [*module.definitions, *module.imported, *stdlib_index(), *BUILTINS, *CONSTANTS]


@cache
def stdlib_index() -> dict[str, tuple[str, str]]:
    """For a name, the file of the standard library that defines it, and the text of that, with
    what is in front of it as empty lines."""
    defined = re.compile(r"^(?:fn|layer)\s+(\w+).*?^}", re.MULTILINE | re.DOTALL)
    found = {}
    for path in sorted(STDLIB.glob("*.nn")):
        text = path.read_text("utf-8")
        for match in defined.finditer(text):
            above = "\n" * text.count("\n", 0, match.start())
            found[match[1]] = f"stdlib/{path.name}", above + match[0]
    return found


@cache
def stdlib_definition(name: str) -> Definition:
    """A definition of the standard library."""
    from nncompiler.lang.parse import parse

    file, text = stdlib_index()[name]
    (item,) = parse(text, file).items
    assert isinstance(item, (s.Fn, s.Layer))
    return Definition(item, Module({name: item}, stdlib=True))
