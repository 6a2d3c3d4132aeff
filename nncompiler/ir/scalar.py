"""Scalar expressions: what a kernel computes for one element, as pure data.

This is the whole vocabulary the code generator knows. `PRIMITIVES` lists the operations; an
operator of the graph says what it computes in these terms, and code generation is a table from
primitives to instructions. Indices are affine in the axes of the enclosing loops, or are
themselves integer expressions (a gather).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import c_float
from operator import is_not
from typing import TypeAlias

from nncompiler.errors import CompilerBug
from nncompiler.ir.affine import Affine
from nncompiler.ir.once import once
from nncompiler.ir.types import BOOL, F32, F64, I32, U32, DType
from nncompiler.record import dataclass

Index: TypeAlias = "Affine | Expr"

# --- expressions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A literal of a given type; floats may be inf or nan."""

    value: float | int | bool
    dtype: DType

    def __eq__(self, other: object) -> bool:
        # repr distinguishes 0.0 from -0.0 and equates nan with nan, as a compiler must
        return (
            isinstance(other, Const)
            and self.dtype == other.dtype
            and repr(self.value) == repr(other.value)
        )

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype))


@dataclass(frozen=True, slots=True)
class Ref:
    """A local of the kernel: bound by `Let`, or the result of a `Fold`."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Iota:
    """The value of an affine index form as an i32 scalar."""

    index: Affine
    dtype: DType = I32


@dataclass(frozen=True, slots=True)
class Load:
    """One element of a buffer. With a `guard`, memory is touched only where it holds, and `fill`
    is the value elsewhere."""

    buffer: str
    index: tuple[Index, ...]
    dtype: DType
    guard: Expr | None = None
    fill: Const | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """A primitive of `PRIMITIVES` applied to arguments."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Cast:
    """Conversion by value (C rules; float to integer saturates, NaN becomes 0; to bool: not equal
    to zero)."""

    arg: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Bitcast:
    """The same bits as another type of the same size."""

    arg: Expr
    dtype: DType


Expr: TypeAlias = Const | Ref | Iota | Load | Apply | Cast | Bitcast

# --- primitives ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Primitive:
    """`kinds` are the dtype kinds of its (last) argument; `result` is None for "same as the
    arguments"."""

    name: str
    arity: int
    kinds: frozenset[str]
    result: DType | None = None
    transcendental: bool = False


def _table() -> dict[str, Primitive]:
    number, floats, integers = {"float", "int", "uint"}, {"float"}, {"int", "uint"}
    every = {"float", "int", "uint", "bool"}
    rows: list[tuple[str, int, set[str], DType | None, bool]] = []
    rows += [(n, 2, number, None, False) for n in ("add", "sub", "mul", "min", "max")]
    rows += [("div", 2, number, None, False), ("rem", 2, integers, None, False)]
    rows += [("neg", 1, {"float", "int"}, None, False), ("abs", 1, {"float", "int"}, None, False)]
    rows += [("sign", 1, {"float", "int"}, None, False)]
    rows += [(n, 1, floats, None, False) for n in ("sqrt", "rsqrt", "floor", "round")]
    rows += [
        (n, 1, floats, None, True) for n in ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos")
    ]
    rows += [("pow", 2, floats, None, True), ("fma", 3, floats, None, False)]
    rows += [(n, 2, every, BOOL, False) for n in ("eq", "ne")]
    rows += [(n, 2, number, BOOL, False) for n in ("lt", "le", "gt", "ge")]
    rows += [(n, 2, {"bool", "int", "uint"}, None, False) for n in ("and", "or", "xor")]
    rows += [("not", 1, {"bool"}, BOOL, False)]
    rows += [("shl", 2, integers, None, False), ("shr", 2, integers, None, False)]
    rows += [("mulhi", 2, {"uint"}, None, False)]
    rows += [("select", 3, every, None, False)]
    return {n: Primitive(n, a, frozenset(k), r, t) for n, a, k, r, t in rows}


#: min and max propagate NaN; integer div and rem truncate towards zero; shr is arithmetic for
#: int, logical for uint; round is to nearest, ties to even; mulhi is the high word of the
#: product; select(condition, a, b).
PRIMITIVES: dict[str, Primitive] = _table()


def apply(op: str, *args: Expr) -> Apply:
    """Build an `Apply`, checking arity and types; `CompilerBug` when they do not fit."""
    primitive = PRIMITIVES.get(op)
    if primitive is None or len(args) != primitive.arity:
        raise CompilerBug("NN0390", f"no scalar primitive '{op}' of {len(args)} arguments")
    values = args[1:] if op == "select" else args
    if op == "select" and args[0].dtype != BOOL:
        raise CompilerBug("NN0390", "the condition of 'select' must be bool")
    dtype = values[0].dtype
    if any(v.dtype != dtype for v in values) or dtype.kind not in primitive.kinds:
        found = ", ".join(str(a.dtype) for a in args)
        raise CompilerBug("NN0390", f"scalar primitive '{op}' does not take ({found})")
    return Apply(op, args, primitive.result or dtype)


def const(value: float | int | bool, dtype: DType) -> Const:
    """A literal, its Python type made to fit `dtype`; f32 literals are rounded to f32."""
    match dtype.kind:
        case "float":
            return Const(float(value) if dtype == F64 else c_float(value).value, dtype)
        case "bool":
            return Const(bool(value), dtype)
        case _:
            return Const(int(value), dtype)


def cast(arg: Expr, dtype: DType) -> Expr:
    return arg if arg.dtype == dtype else Cast(arg, dtype)


def children(expr: Expr) -> tuple[Expr, ...]:
    """Sub-expressions, indices that are expressions included."""
    match expr:  # without fields in the patterns: this is asked for more than all else
        case Apply():
            return expr.args
        case Load():
            found = tuple([i for i in expr.index if not isinstance(i, Affine)])
            return found if expr.guard is None else (*found, expr.guard)
        case Cast() | Bitcast():
            return (expr.arg,)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything below it, outermost first."""
    todo = [expr]
    while todo:
        e = todo.pop()
        yield e
        todo += reversed(children(e))


def rewrite(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Rebuild bottom-up, applying `change` to every expression; what stays the same is kept."""
    if old := children(expr):
        new = tuple([rewrite(e, change) for e in old])
        if any(map(is_not, new, old)):
            expr = _with_children(expr, new)
    return change(expr)


def _with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same with other sub-expressions, as many as `children` gives."""
    match expr:
        case Apply(op, _, dtype):
            return Apply(op, new, dtype)
        case Cast(_, dtype):
            return Cast(new[0], dtype)
        case Bitcast(_, dtype):
            return Bitcast(new[0], dtype)
        case Load(buffer, index, dtype, guard, fill):
            rest = iter(new)
            places = tuple([i if isinstance(i, Affine) else next(rest) for i in index])
            return Load(buffer, places, dtype, None if guard is None else next(rest), fill)
        case _:
            return expr


def conjuncts(guard: Expr | None) -> tuple[Expr, ...]:
    """The conditions of a guard, all of which must hold."""
    match guard:
        case None:
            return ()
        case Apply("and", (a, b)):
            return conjuncts(a) + conjuncts(b)
        case _:
            return (guard,)


@once
def axes_of(expr: Expr) -> frozenset[str]:
    """Axes the expression mentions directly (locals it refers to are not looked through)."""
    found: set[str] = set()
    for e in walk(expr):
        match e:
            case Iota():
                found.update(e.index.axes)
            case Load():
                found.update([a for i in e.index if isinstance(i, Affine) for a in i.axes])
            case _:
                pass
    return frozenset(found)


__all__ = [
    "PRIMITIVES", "F32", "F64", "I32", "U32", "Affine", "Apply", "Bitcast", "Cast",
    "Const", "Expr", "Index", "Iota", "Load", "Primitive", "Ref", "apply", "axes_of",
    "cast", "children", "conjuncts", "const", "rewrite", "walk",
]  # fmt: skip
