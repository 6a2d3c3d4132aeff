"""Where names come from: the file's definitions, the standard library, the builtins.

A file of the standard library is parsed when one of its definitions is first used; which file that
is, a scan for ``fn NAME`` and ``layer NAME`` tells. A definition in the file comes before one of
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
    if (path := stdlib_index().get(name)) is not None:
        library = stdlib_module(path)
        return Definition(library.definitions[name], library)
    return None


def known(module: Module) -> list[str]:
    """Every name that `find` finds."""
    return [*module.definitions, *module.imported, *stdlib_index(), *BUILTINS, *CONSTANTS]


@cache
def stdlib_index() -> dict[str, Path]:
    """The file of the standard library that defines a name."""
    defined = re.compile(r"^(?:fn|layer)\s+(\w+)", re.MULTILINE)
    return {name: path for path in sorted(STDLIB.glob("*.nn"))
            for name in defined.findall(path.read_text("utf-8"))}


@cache
def stdlib_module(path: Path) -> Module:
    """A file of the standard library."""
    from nncompiler.lang.parse import parse

    file = parse(path.read_bytes(), f"stdlib/{path.name}")
    found = {i.name.text: i for i in file.items if isinstance(i, (s.Fn, s.Layer))}
    return Module(found, stdlib=True)
