"""Scalar primitives as LLVM instructions, for scalars and vectors alike.

No fast-math anywhere. min and max propagate NaN. Integer division and remainder by zero give 0,
and the most negative number divided by -1 wraps, so neither traps. Shifts by the width or more
shift everything out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from nncompiler.codegen.instructions.value import Value, literal, register_type, suffix, vector_of
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.errors import CompilerBug
from nncompiler.ir.scalar import Const, const
from nncompiler.ir.types import BOOL, DType

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_UNARY = {"sqrt": "sqrt", "floor": "floor", "round": "roundeven", "abs": "fabs"}


def apply_primitive(w: Writer, op: str, args: Sequence[Value], fma: bool) -> Value:
    """The value of ``op(args)``; scalars are spread where some argument is a vector."""
    lanes = max(a.lanes for a in args)
    if op == "select":
        return w.choose(args[0], args[1], args[2])
    values = [w.splat(a, lanes) if lanes else a for a in args]
    if op in _FLOAT_COMPARE:
        return _compare(w, op, values)
    if values[0].dtype.is_float:
        return _floating(w, op, values, fma)
    return _integral(w, op, values)


def _like(value: Value, number: float | int | bool) -> Value:
    return literal(const(number, value.dtype), value.lanes)


def _binary(w: Writer, opcode: str, a: Value, b: Value) -> Value:
    return w.value(f"{opcode} {a.typed}, {b.text}", a.dtype, a.lanes)


def _compare(w: Writer, op: str, args: Sequence[Value]) -> Value:
    a, b = args
    if a.dtype.is_float:
        return w.value(f"fcmp {_FLOAT_COMPARE[op]} {a.typed}, {b.text}", BOOL, a.lanes)
    sign = "" if op in ("eq", "ne") else "s" if a.dtype.kind == "int" else "u"
    return w.value(f"icmp {sign}{op} {a.typed}, {b.text}", BOOL, a.lanes)


def _floating(w: Writer, op: str, args: Sequence[Value], fma: bool) -> Value:
    first = args[0]
    match op:
        case "add" | "sub" | "mul" | "div":
            return _binary(w, _FLOAT[op], first, args[1])
        case "min" | "max":
            return _extremum(w, op, first, args[1])
        case "neg":
            return w.value(f"fneg {first.typed}", first.dtype, first.lanes)
        case "sqrt" | "floor" | "round" | "abs":
            return w.overloaded(_UNARY[op], [first])
        case "rsqrt":
            return _binary(w, "fdiv", _like(first, 1.0), w.overloaded("sqrt", [first]))
        case "sign":
            below = w.choose(
                _compare(w, "lt", [first, _like(first, 0.0)]), _like(first, -1.0), first
            )
            return w.choose(
                _compare(w, "gt", [first, _like(first, 0.0)]), _like(first, 1.0), below
            )
        case "fma" if fma:
            return w.overloaded("fma", args)
        case "fma":
            return _binary(w, "fadd", _binary(w, "fmul", first, args[1]), args[2])
    raise CompilerBug("NN0590", f"no instruction for the primitive '{op}' of {first.dtype}")


def _extremum(w: Writer, op: str, a: Value, b: Value) -> Value:
    """x86's max(a, b) is ``a > b ? a : b``: it keeps a NaN in `b`, so only one in `a` needs care.
    """
    if _is_nan(a) or _is_nan(b):
        return a if _is_nan(a) else b
    if not b.text.startswith("%"):
        a, b = b, a
    compare = "gt" if op == "max" else "lt"
    best = w.choose(_compare(w, compare, [a, b]), a, b)
    if not a.text.startswith("%"):
        # Relu and clamps: the literal comes first and the whole is one instruction.
        return best
    return w.choose(w.value(f"fcmp uno {a.typed}, {a.text}", BOOL, a.lanes), a, best)


def _is_nan(value: Value) -> bool:
    """Whether this is a literal NaN."""
    if value.text.startswith("%"):
        return False
    bits = _literal_number(value).removeprefix("0x")
    return math.isnan(struct.unpack(">d", bytes.fromhex(bits))[0])


def _integral(w: Writer, op: str, args: Sequence[Value]) -> Value:
    first = args[0]
    kind = "s" if first.dtype.kind == "int" else "u"
    match op:
        case "add" | "sub" | "mul" | "and" | "or" | "xor":
            return _binary(w, _INTEGER[op], first, args[1])
        case "min" | "max":
            return w.overloaded(f"{kind}{op}", args)
        case "div" | "rem":
            return _divide(w, f"{kind}{op}", first, args[1])
        case "neg":
            return _binary(w, "sub", _like(first, 0), first)
        case "abs":
            return w.overloaded("abs", args, (("i1", "false"),))
        case "sign":
            return w.overloaded(
                "smin", [w.overloaded("smax", [first, _like(first, -1)]), _like(first, 1)]
            )
        case "not":
            return _binary(w, "xor", first, _like(first, True))
        case "shl" | "shr":
            return _shift(w, op, first, args[1])
        case "mulhi":
            return _high_product(w, first, args[1])
    raise CompilerBug("NN0590", f"no instruction for the primitive '{op}' of {first.dtype}")


def _divide(w: Writer, opcode: str, a: Value, b: Value) -> Value:
    if not b.text.startswith("%") and _number(b) not in (0, -1):
        return _binary(w, opcode, a, b)
    zero = _compare(w, "eq", [b, _like(b, 0)])
    unsafe = zero
    if a.dtype.kind == "int":
        lowest = _like(a, -(2 ** (8 * a.dtype.bytes - 1)))
        wraps = [_compare(w, "eq", [a, lowest]), _compare(w, "eq", [b, _like(b, -1)])]
        unsafe = _binary(w, "or", zero, _binary(w, "and", *wraps))
    quotient = _binary(w, opcode, a, w.choose(unsafe, _like(b, 1), b))
    return w.choose(zero, _like(a, 0), quotient)


def _number(value: Value) -> int:
    """The integer a literal stands for."""
    return int(_literal_number(value))


def _literal_number(value: Value) -> str:
    """A literal as it is written, without type and splat."""
    return value.text.removeprefix("splat (").removesuffix(")").split()[-1]


def _shift(w: Writer, op: str, a: Value, b: Value) -> Value:
    bits = 8 * a.dtype.bytes
    opcode = "shl" if op == "shl" else "ashr" if a.dtype.kind == "int" else "lshr"
    if not b.text.startswith("%") and 0 <= _number(b) < bits:
        return _binary(w, opcode, a, b)
    inside = w.overloaded("umin", [b, _like(b, bits - 1)])
    shifted = _binary(w, opcode, a, inside)
    if opcode == "ashr":
        return shifted
    whole = w.value(f"icmp ult {b.typed}, {_like(b, bits).text}", BOOL, b.lanes)
    return w.choose(whole, shifted, _like(a, 0))


def _high_product(w: Writer, a: Value, b: Value) -> Value:
    bits = 8 * a.dtype.bytes
    wide = vector_of(f"i{2 * bits}", a.lanes)
    x, y = (w.assign(f"zext {v.typed} to {wide}") for v in (a, b))
    product = w.assign(f"mul nuw {wide} {x}, {y}")
    shift = f"splat (i{2 * bits} {bits})" if a.lanes else str(bits)
    high = w.assign(f"lshr {wide} {product}, {shift}")
    return w.value(f"trunc {wide} {high} to {a.type}", a.dtype, a.lanes)


def convert(w: Writer, value: Value, to: DType) -> Value:
    """A `Cast`: C's rules, but float to integer saturates and NaN becomes 0."""
    source, wide = value.dtype, vector_of(register_type(to), value.lanes)
    if source == to:
        return value
    if to == BOOL:
        return _compare(w, "ne", [value, _like(value, 0)])
    if source.is_float and not to.is_float:
        sign = "s" if to.kind == "int" else "u"
        types = f"{suffix(register_type(to), value.lanes)}.{suffix(value.element, value.lanes)}"
        name = f"llvm.fpto{sign}i.sat.{types}"
        return Value(w.intrinsic(name, wide, [(value.type, value.text)]), to, value.lanes)
    if source.is_float:
        opcode = "fpext" if to.bytes > source.bytes else "fptrunc"
    elif to.is_float:
        opcode = "sitofp" if source.kind == "int" else "uitofp"
    elif source != BOOL and to.bytes == source.bytes:
        return Value(value.text, to, value.lanes)
    elif to.bytes < source.bytes:
        opcode = "trunc"
    else:
        opcode = "sext" if source.kind == "int" else "zext"
    return w.value(f"{opcode} {value.typed} to {wide}", to, value.lanes)


def reinterpret(w: Writer, value: Value, to: DType) -> Value:
    """A `Bitcast`."""
    wide = vector_of(register_type(to), value.lanes)
    if wide == value.type:
        return Value(value.text, to, value.lanes)
    return w.value(f"bitcast {value.typed} to {wide}", to, value.lanes)


def zero(dtype: DType) -> Const:
    return const(0, dtype)
