"""Arithmetic on what is known at compile time: sizes are exact integers, everything is bounded.

``n / 2`` is an integer when it divides evenly and a float when it does not, so that ``1 / 3`` is a
third while a size that does not divide is noticed where it is used as a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nncompiler.errors import Span, UserError
from nncompiler.lang.elaborate.values import V, describe, is_number

MAX_INT = 2**63 - 1

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def arithmetic(op: str, a: int | float, b: int | float, span: Span) -> int | float:
    """``a op b`` of numbers."""
    match op:
        case "+":
            found: int | float = a + b
        case "-":
            found = a - b
        case "*":
            found = a * b
        case "/":
            found = _divide(a, b, span)
        case _:
            found = _power(a, b, span)
    return bounded(found, span)


def bounded(value: int | float, span: Span) -> int | float:
    """`value`, unless it left the range of its kind."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise UserError("NN0165", "this number does not fit into 64 bits", span)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError("NN0165", "the result of this is not a finite number", span)
    return value


def _divide(a: int | float, b: int | float, span: Span) -> int | float:
    if b == 0:
        raise UserError("NN0164", "division by zero", span,
                        help="this is computed while compiling; the divisor must not be 0")
    if isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return a / b


def _power(a: int | float, b: int | float, span: Span) -> int | float:
    if a == 0 and b < 0:
        raise UserError("NN0164", "division by zero: 0 to a negative power", span)
    if isinstance(a, int) and isinstance(b, int) and b >= 0:
        if abs(a) > 1 and b > 64:
            raise UserError("NN0165", "this number does not fit into 64 bits", span)
        found: int = a ** min(b, 2 + b % 2) if abs(a) <= 1 else a**b
        return found
    try:
        result = float(a) ** float(b)
    except OverflowError:
        result = math.inf
    if isinstance(result, complex):
        raise UserError("NN0165", f"{a} ** {b} is not a real number", span)
    return float(result)


def compare(op: str, a: V, b: V, span: Span) -> bool:
    """A comparison of numbers, truth values or strings."""
    if is_number(a) and is_number(b):
        return _COMPARE[op](a, b)  # type: ignore[arg-type]
    if type(a) is type(b) and isinstance(a, (bool, str)) and op in ("==", "!="):
        return (a == b) == (op == "==")
    raise UserError("NN0166", f"`{op}` does not compare {describe(a)} with {describe(b)}", span)


def negate(a: int | float, span: Span) -> int | float:
    return bounded(-a, span)


def apply(name: str, function: Callable[[float], float], a: float, span: Span) -> float:
    """A function of one number, such as ``sqrt(2)``."""
    try:
        return float(bounded(float(function(a)), span))
    except (ValueError, OverflowError, ZeroDivisionError):
        raise UserError("NN0165", f"{name}({a}) is not a finite number", span) from None
