"""The verifier of graphs, and how problems are shown: below the printed line they belong to.

The shape rules are the operators' own, run again; the two cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nncompiler.errors import NNError, UserError, nearest
from nncompiler.ir.graph import PARAM_KINDS, Function, Node, Value
from nncompiler.ir.op import REGISTRY, lookup
from nncompiler.ir.text.graph import function_lines
from nncompiler.ir.text.scan import NAME, Lines
from nncompiler.ir.types import MAX_ELEMENTS, TensorType
from nncompiler.record import dataclass

#: Texts longer than this are cut to the surroundings of the problems.
_WHOLE = 80
_AROUND = 2


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostic:
    """A problem, and the part of the graph or plan (a node, a statement, ...) that has it."""

    message: str
    anchor: object


def verify(function: Function) -> list[Diagnostic]:
    """Every problem of a function; an empty list when it is well-formed."""
    found: list[Diagnostic] = []
    _function(function, found)
    return found


def check(function: Function) -> None:
    """`UserError` NN0320 with the text and its problems unless the function is well-formed."""
    if found := verify(function):
        report("NN0320", f"graph '@{function.name}'", function_lines(function), found)


def annotate(function: Function) -> str:
    """The text of a function with ``// error:`` below every line that has a problem."""
    return render(function_lines(function), verify(function))


# --- showing -------------------------------------------------------------------------------------


def report(code: str, what: str, lines: Lines, found: list[Diagnostic]) -> None:
    """Raise what was found."""
    count = f"{len(found)} problem{'s' * (len(found) != 1)}"
    text = render(lines, found, cut=True).rstrip("\n")
    raise UserError(code, f"{what} is not well-formed ({count}):\n{text}")


def render(lines: Lines, diagnostics: Iterable[Diagnostic], cut: bool = False) -> str:
    """The lines with each problem below the one it belongs to (the first where there is none)."""
    below: dict[int, list[str]] = {}
    first: dict[int, int] = {}
    for number, (_, anchor) in enumerate(lines.found):
        if anchor is not None:
            first.setdefault(id(anchor), number)
    for d in diagnostics:
        below.setdefault(first.get(id(d.anchor), 0), []).append(d.message)
    shown = set(range(len(lines.found)))
    if cut and len(shown) > _WHOLE:
        shown &= {n + k for n in below for k in range(-_AROUND, _AROUND + 1)}
    text, last = [], -1
    for number in sorted(shown):
        if number != last + 1:
            text.append("  ...")
        last = number
        line = lines.found[number][0]
        indent = line[: len(line) - len(line.lstrip())]
        text.append(line)
        text += [f"{indent}// error: {message}" for message in below.get(number, ())]
    return "\n".join(text) + "\n"


# --- graphs --------------------------------------------------------------------------------------


def type_problem(type: TensorType) -> str | None:
    """Why a type is not one the compiler can hold, if so."""
    if any(isinstance(n, bool) or not isinstance(n, int) for n in type.shape):
        return f"expected sizes that are Python integers, but found {type.shape!r}"
    if any(n < 0 for n in type.shape):
        return f"expected sizes of at least 0, but found {type}"
    if type.size > MAX_ELEMENTS:
        return f"expected at most {MAX_ELEMENTS} elements, but {type} has {type.size}"
    return None


def _function(function: Function, found: list[Diagnostic]) -> None:
    defined: dict[str, Value] = {}
    for param in function.params:
        if param.kind not in PARAM_KINDS:
            found.append(Diagnostic(f"no kind of parameter is called '{param.kind}'", param))
        _define(param.value, param, defined, found)
    for node in function.nodes:
        _node(node, function, defined, found)
        for value in node.outputs:
            _define(value, node, defined, found)
    names: set[str] = set()
    for name, value in function.results:
        if name in names:
            found.append(Diagnostic(f"result '{name}' is given twice", function))
        names.add(name)
        if message := _use(value, function, defined):
            found.append(Diagnostic(message, function))


def _define(
    value: Value, anchor: object, defined: dict[str, Value], found: list[Diagnostic]
) -> None:
    if not re.fullmatch(NAME, value.name):
        found.append(Diagnostic(f"'{value.name}' is not a name", anchor))
    if value.name in defined:
        found.append(Diagnostic(f"value {value} is defined twice", anchor))
    if message := type_problem(value.type):
        found.append(Diagnostic(message, anchor))
    defined.setdefault(value.name, value)


def _use(value: Value, function: Function, defined: dict[str, Value]) -> str | None:
    known = defined.get(value.name)
    if known is None:
        later = any(v.name == value.name for n in function.nodes for v in n.outputs)
        return f"value {value} is " + ("used before it is defined" if later else "not defined")
    if known.type != value.type:
        return f"value {value} is used as {value.type}, but it is defined as {known.type}"
    return None


def _node(
    node: Node, function: Function, defined: dict[str, Value], found: list[Diagnostic]
) -> None:
    messages = [m for v in dict.fromkeys(node.inputs) if (m := _use(v, function, defined))]
    keys = [k for k, _ in node.attrs]
    if keys != sorted(set(keys)):
        messages.append("expected attributes sorted by name, each once")
    if node.body is not None:
        _function(node.body, found)
    # a shape rule may trust its operands, so it is not asked about bad ones
    messages = messages or _shape_rule(node)
    found += [Diagnostic(m, node) for m in messages]


def _shape_rule(node: Node) -> list[str]:
    try:
        operator = lookup(node.op)
    except UserError as error:
        close = nearest(node.op, REGISTRY)
        return [error.message + (f"; did you mean '{close}'?" if close else "")]
    if (operator.kind == "region") != (node.body is not None):
        return [f"'{node.op}' " + ("takes no body" if node.body else "needs a body")]
    try:
        types = operator.infer(node)
    except NNError as error:
        return [error.message]
    except Exception as error:  # malformed attributes; the rule checks what it can
        return [f"'{node.op}' does not take these attributes ({type(error).__name__}: {error})"]
    if len(types) != len(node.outputs):
        return [f"'{node.op}' has {len(types)} results, but {len(node.outputs)} are named"]
    return [
        f"expected {value} of type {expected}, but found {value.type}"
        for value, expected in zip(node.outputs, types, strict=True)
        if value.type != expected
    ]
