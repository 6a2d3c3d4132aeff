"""Operators on tensors: shapes and element types checked in the language's own terms.

A number written in the source takes the element type of the tensor it meets. Tensors of different
element types never mix silently.
"""

from __future__ import annotations

from nncompiler.errors import Note, Span, UserError
from nncompiler.ir.graph import Value
from nncompiler.ir.types import BOOL, I32, DType, broadcast_shapes
from nncompiler.lang.elaborate import static
from nncompiler.lang.elaborate.context import Context, fits
from nncompiler.lang.elaborate.values import (
    Argument,
    Definition,
    Instance,
    Tuple,
    V,
    describe,
    is_number,
    is_static,
    quoted,
)

MAX_LIST = 10_000
ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}
COMPARISON = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_WORDS = {"add": "`+`", "sub": "`-`", "mul": "`*`", "div": "`/`", "pow": "`**`", "max": "`max`",
          "min": "`min`", "where": "`where`"} | {v: f"`{k}`" for k, v in COMPARISON.items()}


def binary(ctx: Context, op: str, left: Argument, right: Argument, span: Span) -> V:
    """``left op right`` for every infix operator."""
    if op in ("and", "or"):
        return _connective(ctx, op, left, right, span)
    if op == "@":
        return matmul(ctx, left, right, span)
    a, b = left.value, right.value
    if not isinstance(a, Value) and not isinstance(b, Value):
        if op in COMPARISON:
            return static.compare(op, a, b, span)
        if op == "+" and isinstance(a, Tuple) and isinstance(b, Tuple) and a.literal and b.literal:
            return _joined(a, b, span)
        for side in (left, right):
            _operand(side, op)
        assert isinstance(a, (int, float)) and isinstance(b, (int, float))
        return static.arithmetic(op, a, b, span)
    return elementwise(ctx, COMPARISON.get(op) or ARITHMETIC[op], left, right, span)


def _joined(a: Tuple, b: Tuple, span: Span) -> Tuple:
    if len(a.items) + len(b.items) > MAX_LIST:
        raise UserError("NN0163", f"a list of {len(a.items) + len(b.items)} values; at most "
                        f"{MAX_LIST} are possible", span)
    return Tuple(a.items + b.items, literal=True)


def _operand(side: Argument, op: str) -> None:
    """Only numbers and tensors take part in arithmetic."""
    if isinstance(side.value, Value) or is_number(side.value):
        return
    raise UserError("NN0166", f"expected a number or a tensor beside `{op}`, "
                    f"but found {describe(side.value)}", side.span, help=unapplied(side.value))


def unapplied(value: V) -> str | None:
    """What to write when a function or a layer stands where its result was meant."""
    match value:
        case Instance():
            return "apply the layer to a tensor: `x |> layer`, or `layer(x)`"
        case Definition() if value.is_layer:
            return f"apply the layer to a tensor: `x |> {value.name}(...)`"
        case Definition():
            return f"call it: `{value.name}(...)`"
        case Tuple(literal=True):
            return "a list holds sizes or axes; `stack([...])` makes a tensor of it"
        case Tuple():
            return "give each value a name first: `a, b = ...`"
        case bool():
            return "write 1.0 or 0.0"
    return None


def elementwise(ctx: Context, op: str, left: Argument, right: Argument, span: Span) -> Value:
    """An operator that works element by element on operands that broadcast."""
    symbol = _WORDS[op]
    comparing = op in COMPARISON.values()
    dtype = common_dtype(ctx, symbol, left, right, span)
    if dtype == BOOL and op not in ("eq", "ne"):
        raise UserError("NN0152", f"{symbol} does not take truth values (bool)", span,
                        help="convert first: `f32(x)`, or choose with `where(c, a, b)`")
    if not dtype.is_float and op in ("div", "pow"):
        raise UserError("NN0153", f"{symbol} takes floats, but both sides are {dtype}", span,
                        help="convert first: `f32(x)`")
    if dtype.name == "u8" and not comparing:
        raise UserError("NN0153", f"{symbol} on u8 would wrap around at 256", span,
                        help="convert first: `f32(x)` or `i32(x)`")
    a, b = (tensor(ctx, side, dtype) for side in (left, right))
    if broadcast_shapes(a.shape, b.shape) is None:
        raise mismatch(ctx, symbol, a, b, left, right, span)
    return ctx.emit(op, a, b, span=span)


def mismatch(ctx: Context, symbol: str, a: Value, b: Value, left: Argument, right: Argument,
             span: Span) -> UserError:
    """Two shapes that do not broadcast."""
    rank = max(len(a.shape), len(b.shape))
    for axis in range(-1, -rank - 1, -1):
        if -axis <= min(len(a.shape), len(b.shape)):
            m, n = a.shape[axis], b.shape[axis]
            if m != n and 1 not in (m, n):
                break
    return UserError(
        "NN0130", f"the shapes {show(a)} and {show(b)} do not fit together for {symbol}: "
        f"axis {axis} is {m} on the left, but {n} on the right", span,
        notes=[ctx.origin("the left side", a), ctx.origin("the right side", b)],
        help="sizes must be equal, or one of them 1, counted from the last axis")


def show(value: Value) -> str:
    return f"[{', '.join(map(str, value.shape))}]"


def common_dtype(ctx: Context, symbol: str, left: Argument, right: Argument, span: Span) -> DType:
    """The element type both sides have, a number taking that of the other side."""
    for side in (left, right):
        if not isinstance(side.value, Value) and not is_static(side.value):
            _operand(side, symbol.strip("`"))
    tensors = [side.value for side in (left, right) if isinstance(side.value, Value)]
    if not tensors:
        return ctx.dtype
    first, last = tensors[0], tensors[-1]
    if first.dtype != last.dtype:
        narrow = left if first.dtype != ctx.dtype else right
        wanted = "f32" if ctx.dtype in (first.dtype, last.dtype) else last.dtype.name
        raise UserError(
            "NN0150", f"{symbol} cannot mix {first.dtype} and {last.dtype}", span,
            notes=[ctx.origin("the left side", first), ctx.origin("the right side", last)],
            help=f"convert one side: `{wanted}({quoted(narrow.span, '...')})`")
    return first.dtype


def tensor(ctx: Context, side: Argument, dtype: DType | None = None) -> Value:
    """The value as a tensor; a number becomes a scalar of `dtype` (the default float)."""
    value = side.value
    match value:
        case Value():
            return value
        case bool():
            if dtype in (None, BOOL):
                return ctx.constant(value, BOOL, side.span)
        case int() | float():
            return _literal(ctx, value, dtype or ctx.dtype, side.span)
    raise UserError("NN0123", f"expected a tensor, but found {describe(value)}", side.span,
                    help=unapplied(value))


def _literal(ctx: Context, value: int | float, dtype: DType, span: Span) -> Value:
    if dtype == BOOL:
        raise UserError("NN0155", f"the number {value} meets truth values (bool) here", span,
                        help="write `true` or `false`, or convert the other side: `f32(...)`")
    if not fits(value, dtype):
        why = "is not whole" if isinstance(value, float) and not dtype.is_float else "is too large"
        raise UserError("NN0155", f"the number {value} {why} for {dtype}", span,
                        help="convert the other side: `f32(...)`" if not dtype.is_float else None)
    return ctx.constant(float(value) if dtype.is_float else value, dtype, span)


def _connective(ctx: Context, op: str, left: Argument, right: Argument, span: Span) -> V:
    a, b = left.value, right.value
    if isinstance(a, bool) and isinstance(b, bool):
        return (a and b) if op == "and" else (a or b)
    x, y = truth(ctx, left, op), truth(ctx, right, op)
    if broadcast_shapes(x.shape, y.shape) is None:
        raise mismatch(ctx, f"`{op}`", x, y, left, right, span)
    return ctx.emit(op, x, y, span=span)


def truth(ctx: Context, side: Argument, symbol: str) -> Value:
    """A tensor of bool."""
    value = side.value
    if isinstance(value, bool) or isinstance(value, Value) and value.dtype == BOOL:
        return tensor(ctx, side, BOOL)
    raise UserError("NN0154", f"`{symbol}` expected truth values (bool), "
                    f"but found {describe(value)}", side.span,
                    help="compare first: `x > 0`, or convert: `bool(x)`")


def negation(ctx: Context, op: str, side: Argument, span: Span) -> V:
    """``-x`` and ``not x``."""
    value = side.value
    if op == "not":
        return (not value) if isinstance(value, bool) else \
            ctx.emit("not", truth(ctx, side, "not"), span=span)
    _operand(side, "-")
    if not isinstance(value, Value):
        assert isinstance(value, (int, float))
        return static.negate(value, span)
    if not value.dtype.is_float and value.dtype != I32:
        raise UserError("NN0152", f"`-` does not take {value.dtype}", span,
                        help="convert first: `f32(x)`")
    return ctx.emit("neg", value, span=span)


def matmul(ctx: Context, left: Argument, right: Argument, span: Span) -> Value:
    """``left @ right``: over the last axis of the left and the last but one of the right."""
    from nncompiler.ir.ops.matmul import emit_matmul

    for side in (left, right):
        _operand(side, "@")
        if not isinstance(side.value, Value) or not side.value.shape:
            raise UserError("NN0132", f"`@` expected a vector or a matrix, but found "
                            f"{describe(side.value)}", side.span,
                            help="a product of numbers is `*`")
    dtype = common_dtype(ctx, "`@`", left, right, span)
    if not dtype.is_float and dtype != I32:
        raise UserError("NN0152", f"`@` does not take {dtype}", span,
                        help="convert first: `f32(x)`")
    a, b = tensor(ctx, left), tensor(ctx, right)
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    notes = [ctx.origin("the left side", a), ctx.origin("the right side", b)]
    if a.shape[-1] != inner:
        raise UserError(
            "NN0131", f"the shapes {show(a)} @ {show(b)} do not fit: the last axis on the left is "
            f"{a.shape[-1]}, but the {'last but one' if len(b.shape) > 1 else 'only'} axis on the "
            f"right is {inner}", span, notes=notes, help=_transposed(a, b))
    if broadcast_shapes(a.shape[:-2], b.shape[:-2]) is None:
        raise UserError("NN0131", f"the leading axes of {show(a)} @ {show(b)} do not fit",
                        span, notes=notes)
    return ctx.build(span, lambda builder: emit_matmul(builder, a, b))


def _transposed(a: Value, b: Value) -> str | None:
    if len(b.shape) == 2 and a.shape[-1] == b.shape[-1]:
        return "did you mean `... @ transpose(...)` on the right?"
    if len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[0]:
        return "did you mean `transpose(...) @ ...` on the left?"
    return None


def floating(ctx: Context, side: Argument, name: str) -> Value:
    """A tensor of floats for the function `name`."""
    found = tensor(ctx, side)
    if not found.dtype.is_float:
        raise UserError("NN0151", f"`{name}` expected floats, but found {describe(found)}",
                        side.span, notes=_note(ctx, found),
                        help=f"convert first: `f32({quoted(side.span)})`")
    return found


def _note(ctx: Context, value: Value) -> list[Note]:
    return [ctx.origin("this", value)] if value in ctx.origins else []


def cast(ctx: Context, value: Value, dtype: DType, span: Span) -> Value:
    return value if value.dtype == dtype else ctx.emit("cast", value, dtype=dtype.name, span=span)
