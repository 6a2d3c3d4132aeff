"""Text of scalar expressions and indices: printer and parser.

    select(a > 0.0, x[i+1, j] if i + 1 < 64 else 0.0, f32(y[i])) * exp(-m)

Infix: ``or``, ``and``, ``not`` (bool only), comparisons, ``+ -``, ``* /``, unary ``-``; every
other primitive is a function. A bare axis is its value as i32; ``index(2*i+1)`` is an affine form
of axes as one scalar, ``index(i, i64)`` one of another integer type. `bitcast(x, u32)` keeps the
bits, ``u32(x)`` the value. An infix operator stands on the line of its left operand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NoReturn

from nncompiler.errors import CompilerBug, nearest
from nncompiler.ir.scalar import (
    PRIMITIVES,
    Affine,
    Apply,
    Bitcast,
    Cast,
    Const,
    Expr,
    Index,
    Iota,
    Load,
    Ref,
    apply,
)  # fmt: skip
from nncompiler.ir.text.scan import INDEXED, LOCAL, RESERVED, Scanner, literal_text, name_text
from nncompiler.ir.types import BOOL, DTYPES, I32, DType
from nncompiler.record import dataclass, field, replace

#: Operator, its text, how tightly it binds. Comparisons do not associate.
INFIX = {
    "or": ("or", 1), "and": ("and", 2),
    "eq": ("==", 4), "ne": ("!=", 4),
    "le": ("<=", 4), "ge": (">=", 4), "lt": ("<", 4), "gt": (">", 4),
    "add": ("+", 5), "sub": ("-", 5), "mul": ("*", 6), "div": ("/", 6),
}  # fmt: skip
_NOT, _COMPARISON, _UNARY, _ATOM = 3, 4, 7, 8

_FORM = (
    r"[ ]*-?(?:\d{1,18}(?!\*)|(?:\d{1,18}\*)?%?[A-Za-z_][\w.']*|(?:\d{1,18}\*)?%[\w.']+)"
    r"(?:[ ]*[+-][ ]*(?:\d{1,18}(?!\*)|(?:\d{1,18}\*)?(?:%[\w.']+|[A-Za-z_][\w.']*)))*"
)
_AFFINE = _FORM + r"[ ]*(?=[,\])])"
_TERM = r"([+-]?)[ ]*(?:(\d+)\*)?(?:%?([A-Za-z_][\w.']*)|%([\w.']+)|(\d+))"

# --- printer ------------------------------------------------------------------------------------


def affine_text(index: Affine) -> str:
    return _sum_text(index.terms, index.const)


@lru_cache(maxsize=4096)
def _sum_text(terms: tuple[tuple[str, int], ...], const: int) -> str:
    return str(Affine(tuple(sorted((name_text(n), k) for n, k in terms)), const))


def index_text(index: Index) -> str:
    match index:
        case Affine(terms, const):
            return _sum_text(terms, const)
        case Ref() | Cast() | Load(guard=None):
            return expr_text(index)
        case _:
            return f"({expr_text(index)})"


def place_text(buffer: str, index: tuple[Index, ...]) -> str:
    """``x[i,j+1]``."""
    return f"{name_text(buffer)}[{','.join([index_text(i) for i in index])}]"


def expr_text(expr: Expr) -> str:
    return _print(expr, 0)


def _print(expr: Expr, tightness: int) -> str:
    """The text of `expr` where an operator of this tightness is around it."""
    text, own = _form(expr)
    return f"({text})" if own < tightness else text


def _form(expr: Expr) -> tuple[str, int]:
    """The text of `expr`, and how tightly it binds."""
    match expr:
        case Const(value, dtype):
            return literal_text(value, dtype), _ATOM
        case Ref(name):
            return name_text(name), _ATOM
        case Iota(index, dtype):
            if index.single and dtype == I32:
                return name_text(index.single), _ATOM
            extra = "" if dtype == I32 else f", {dtype}"
            return f"index({affine_text(index)}{extra})", _ATOM
        case Load(buffer, index, _, guard, fill):
            text = place_text(buffer, index)
            if guard is None:
                return text, _ATOM
            other = f" else {_print(fill, 0)}" if fill is not None else ""
            return f"{text} if {_print(guard, 1)}{other}", 0
        case Cast(arg, dtype):
            return f"{dtype}({_print(arg, 0)})", _ATOM
        case Bitcast(arg, dtype):
            return f"bitcast({_print(arg, 0)}, {dtype})", _ATOM
        case Apply(op, args, _):
            return _apply(op, args)


def _apply(op: str, args: tuple[Expr, ...]) -> tuple[str, int]:
    infix = INFIX.get(op)
    logical = op not in ("and", "or", "not") or all(a.dtype == BOOL for a in args)
    if infix is not None and len(args) == 2 and logical:
        sign, own = infix
        left = own + 1 if own == _COMPARISON else own
        return f"{_print(args[0], left)} {sign} {_print(args[1], own + 1)}", own
    if op == "not" and len(args) == 1:
        return f"not {_print(args[0], _NOT)}", _NOT
    if op == "neg" and len(args) == 1 and not isinstance(args[0], Const):
        return f"-{_print(args[0], _UNARY)}", _UNARY
    return f"{op}({', '.join([_print(a, 0) for a in args])})", _ATOM


# --- parser ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Scope:
    """What names mean: axes, typed locals, typed buffers."""

    axes: set[str] = field(default_factory=set)
    locals: dict[str, DType] = field(default_factory=dict)
    buffers: dict[str, DType] = field(default_factory=dict)

    def inner(self) -> Scope:
        return Scope(set(self.axes), dict(self.locals), self.buffers)


def parse_expr(scan: Scanner, scope: Scope) -> Expr:
    scan.deeper()
    start = scan.here()
    value = _binary(scan, scope, 1)
    if scan.at("if"):
        if not isinstance(value, Load) or value.guard is not None:
            scan.fail("NN0302", "only a load can have a guard ('x[i] if guard else 0.0')", start)
        scan.expect("if")
        guard = _binary(scan, scope, 1)
        fill = None
        if scan.accept("else"):
            fill = scan.literal() or scan.fail_expected("a literal to fill with")
        value = replace(value, guard=guard, fill=fill)
    scan.depth -= 1
    return value


def parse_place(scan: Scanner, scope: Scope) -> tuple[str, tuple[Index, ...]]:
    """A buffer and its index, ``x[i,j+1]``."""
    found = scan.need(INDEXED, "a buffer and its index, as in 'x[i,j]'")
    buffer = found[1]
    if buffer not in scope.buffers:
        _unknown(scan, "buffer", buffer, scope.buffers, found.start())
    scan.expect("[")
    index: list[Index] = []
    while not scan.at("]"):
        index.append(_index(scan, scope))
        if not scan.accept(","):
            break
    scan.expect("]")
    return buffer, tuple(index)


def _index(scan: Scanner, scope: Scope) -> Index:
    found = scan.peek(_AFFINE)
    if found and (index := parse_affine(found[0], scope)) is not None:
        scan.pos = found.end()
        return index
    return parse_expr(scan, scope)


def parse_affine(text: str, scope: Scope) -> Affine | None:
    """An affine form of known axes, or None."""
    total = Affine()
    for sign, times, bare, quoted, number in re.findall(_TERM, text):
        factor = int(times or 1) * (-1 if sign == "-" else 1)
        name = bare or quoted
        if number and not (quoted or times):
            total = total + int(number) * factor
        elif name in scope.axes:
            total = total + Affine.axis(name) * factor
        else:
            return None
    return total


def _binary(scan: Scanner, scope: Scope, level: int) -> Expr:
    """Operators of tightness `level` and above, left-associative."""
    start = scan.here()
    if level <= _NOT and scan.accept("not"):
        value = _nested(scan, lambda: _build(scan, start, "not", _binary(scan, scope, _NOT)))
    else:
        value = _unary(scan, scope)
    while (op := _infix(scan, level)) is not None:
        value = _build(scan, start, op, value, _binary(scan, scope, INFIX[op][1] + 1))
    return value


def _nested(scan: Scanner, parse: Callable[[], Expr]) -> Expr:
    scan.deeper()
    value = parse()
    scan.depth -= 1
    return value


def _infix(scan: Scanner, level: int) -> str | None:
    """The operator that follows on this line: a new line may begin with a negative value."""
    if "\n" in scan.source.text[scan.pos : scan.here()]:
        return None
    for op, (sign, own) in INFIX.items():
        if own >= level and scan.accept(sign):
            return op
    return None


def _unary(scan: Scanner, scope: Scope) -> Expr:
    if (literal := scan.literal()) is not None:
        return literal
    start = scan.here()
    if scan.accept("-"):
        return _nested(scan, lambda: _build(scan, start, "neg", _unary(scan, scope)))
    return _atom(scan, scope)


def _atom(scan: Scanner, scope: Scope) -> Expr:
    if scan.accept("("):
        value = parse_expr(scan, scope)
        scan.expect(")")
        return value
    if scan.peek(INDEXED):
        buffer, index = parse_place(scan, scope)
        return Load(buffer, index, scope.buffers[buffer])
    found = scan.need(LOCAL, "an expression")
    name = found[1] or found[2]
    if not found[1] and name in RESERVED:
        return _call(scan, scope, name, found.start())
    if name in scope.locals:
        return Ref(name, scope.locals[name])
    if name in scope.axes:
        return Iota(Affine.axis(name))
    return _unknown(scan, "local or axis", name, [*scope.locals, *scope.axes], found.start())


def _call(scan: Scanner, scope: Scope, name: str, start: int) -> Expr:
    if name == "index":
        return _iota(scan, scope)
    if name not in PRIMITIVES and name not in DTYPES and name != "bitcast":
        scan.pos = start
        scan.fail_expected("an expression")
    scan.expect("(")
    args = [parse_expr(scan, scope)]
    if name == "bitcast":
        scan.expect(",")
        dtype = scan.dtype()
        scan.expect(")")
        return Bitcast(args[0], dtype)
    while scan.accept(","):
        args.append(parse_expr(scan, scope))
    scan.expect(")")
    if name in PRIMITIVES:
        return _build(scan, start, name, *args)
    if len(args) != 1:
        scan.fail("NN0307", f"'{name}' converts one value, but {len(args)} were given", start)
    return Cast(args[0], DTYPES[name])


def parse_form(scan: Scanner, scope: Scope, pattern: str = _FORM) -> Affine:
    """An affine form of the enclosing axes, in what matches a pattern."""
    found = scan.need(pattern, "an affine form of axes, as in '2*i+1'")
    index = parse_affine(found[0], scope)
    if index is None:
        message = f"expected a form of the enclosing axes, but found '{found[0]}'"
        scan.fail("NN0303", message, found.start())
    return index


def _iota(scan: Scanner, scope: Scope) -> Expr:
    scan.expect("(")
    index = parse_form(scan, scope, _AFFINE)
    dtype = scan.dtype() if scan.accept(",") else I32
    scan.expect(")")
    return Iota(index, dtype)


def _build(scan: Scanner, start: int, op: str, *args: Expr) -> Expr:
    try:
        return apply(op, *args)
    except CompilerBug as bug:
        scan.fail("NN0307", bug.message, start)


def _unknown(scan: Scanner, what: str, name: str, known: Iterable[str], start: int) -> NoReturn:
    close = nearest(name, known)
    help = f"did you mean '{close}'?" if close else None
    scan.fail("NN0303", f"no {what} is called '{name}' here", start, help)
