"""Scalar expressions written with Python's operators, for the formulas of this room.

A `Value` wraps an `Expr`; numbers take the dtype of the value they meet. Every sub-expression is
one shared object, so an evaluator that memoises by identity computes it once. Without hardware
`fma`, `mul_add` is a product and a sum, and the error-free transformations fall back from fma to
Dekker's splitting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from nncompiler.ir.scalar import Bitcast, Cast, Expr, apply, const
from nncompiler.ir.types import F32, I32, I64, U32, U64, DType
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An expression and whether the target has fused multiply-add."""

    expr: Expr
    fma: bool

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    def of(self, other: Operand) -> Value:
        """`other` as a value; a number becomes a literal of this value's dtype."""
        return other if isinstance(other, Value) else Value(const(other, self.dtype), self.fma)

    def apply(self, op: str, *others: Operand) -> Value:
        return Value(apply(op, self.expr, *(self.of(o).expr for o in others)), self.fma)

    def __add__(self, other: Operand) -> Value:
        return self.apply("add", other)

    def __radd__(self, other: Operand) -> Value:
        return self.of(other) + self

    def __sub__(self, other: Operand) -> Value:
        return self.apply("sub", other)

    def __rsub__(self, other: Operand) -> Value:
        return self.of(other) - self

    def __mul__(self, other: Operand) -> Value:
        return self.apply("mul", other)

    def __rmul__(self, other: Operand) -> Value:
        return self.of(other) * self

    def __truediv__(self, other: Operand) -> Value:
        return self.apply("div", other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.of(other) / self

    def __neg__(self) -> Value:
        return self.apply("neg")

    def __abs__(self) -> Value:
        return self.apply("abs")

    def __and__(self, other: Operand) -> Value:
        return self.apply("and", other)

    def __or__(self, other: Operand) -> Value:
        return self.apply("or", other)

    def __xor__(self, other: Operand) -> Value:
        return self.apply("xor", other)

    def __invert__(self) -> Value:
        return self.apply("not")

    def __lshift__(self, other: Operand) -> Value:
        return self.apply("shl", other)

    def __rshift__(self, other: Operand) -> Value:
        return self.apply("shr", other)

    def __lt__(self, other: Operand) -> Value:
        return self.apply("lt", other)

    def __le__(self, other: Operand) -> Value:
        return self.apply("le", other)

    def __gt__(self, other: Operand) -> Value:
        return self.apply("gt", other)

    def __ge__(self, other: Operand) -> Value:
        return self.apply("ge", other)

    # `==` stays identity, so that values can be compared and stored as Python objects
    def equals(self, other: Operand) -> Value:
        return self.apply("eq", other)

    def differs(self, other: Operand) -> Value:
        return self.apply("ne", other)

    def to(self, dtype: DType) -> Value:
        """Conversion by value."""
        return self if self.dtype == dtype else Value(Cast(self.expr, dtype), self.fma)

    def bits(self, dtype: DType | None = None) -> Value:
        """The same bits as `dtype`; by default as the unsigned (or back as the signed) type of its
        size.
        """
        return Value(Bitcast(self.expr, dtype or unsigned(self.dtype)), self.fma)

    def choose(self, yes: Operand, no: Operand) -> Value:
        """``yes if self else no``; at least one of the two is a value."""
        like = yes if isinstance(yes, Value) else no
        if not isinstance(like, Value):
            raise TypeError("one branch of choose must be a Value")
        return Value(apply("select", self.expr, like.of(yes).expr, like.of(no).expr), self.fma)

    def mul_add(self, factor: Operand, term: Operand) -> Value:
        """``self * factor + term``, with one rounding where the target has fma."""
        return self.apply("fma", factor, term) if self.fma else self * factor + term


Operand: TypeAlias = "Value | float | int"
Pair: TypeAlias = tuple[Value, Value]


def unsigned(dtype: DType) -> DType:
    return U32 if dtype.bytes == 4 else U64


def signed(dtype: DType) -> DType:
    return I32 if dtype.bytes == 4 else I64


def mantissa_bits(dtype: DType) -> int:
    """Stored bits of the significand."""
    return 23 if dtype == F32 else 52


def exponent_bias(dtype: DType) -> int:
    return 127 if dtype == F32 else 1023


def sign_mask(dtype: DType) -> int:
    return int(1 << (8 * dtype.bytes - 1))


def with_sign_of(magnitude: Value, sign: Value) -> Value:
    """`magnitude`, which is not negative, with the sign bit of `sign`."""
    return (magnitude.bits() | (sign.bits() & sign_mask(sign.dtype))).bits(sign.dtype)


def at_most(x: Value, limit: float) -> Value:
    """min(x, limit) that keeps a NaN; in this order of operands it is a single instruction."""
    return x.of(limit).apply("lt", x).choose(limit, x)


def at_least(x: Value, limit: float) -> Value:
    return x.of(limit).apply("gt", x).choose(limit, x)


def horner(x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with `coefficients` from the constant term upwards."""
    total = x.of(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.mul_add(x, c)
    return total


def estrin(x: Value, coefficients: Sequence[float]) -> Value:
    """The same in less time where the result is waited for: neighbours are joined, then pairs of
    them (Estrin 1960). A few more operations than `horner`, and up to half a unit more rounding.
    A first pair that is x itself costs nothing.
    """
    terms: list[Value] = []
    for n in range(0, len(coefficients) - 1, 2):
        low, high = coefficients[n : n + 2]
        terms.append(x if (low, high) == (0.0, 1.0) else x.of(high).mul_add(x, low))
    if len(coefficients) % 2:
        terms.append(x.of(coefficients[-1]))
    power = x
    while len(terms) > 1:
        power = power * power
        pairs = range(0, len(terms) - 1, 2)
        rest = terms[len(terms) // 2 * 2 :]
        terms = [terms[n + 1].mul_add(power, terms[n]) for n in pairs] + rest
    return terms[0]


# --- error-free transformations: pairs (high, low) whose sum is exact (Dekker 1971, Knuth) -------


def fast_two_sum(a: Value, b: Value) -> Pair:
    """a + b exactly, where |a| >= |b| or a is 0."""
    s = a + b
    return s, b - (s - a)


def two_sum(a: Value, b: Value) -> Pair:
    """a + b exactly."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def split(a: Value) -> Pair:
    """An f64 as the sum of two of at most 27 significant bits, cut by mask: no overflow for any
    finite `a`.
    """
    high = (a.bits() & 0xFFFF_FFFF_F800_0000).bits(a.dtype)
    return high, a - high


def two_product(a: Value, b: Value) -> Pair:
    """a * b exactly (up to underflow), in f64."""
    p = a * b
    if a.fma:
        return p, a.mul_add(b, -p)
    (ah, al), (bh, bl) = split(a), split(b)
    return p, al * bl - (((p - ah * bh) - al * bh) - ah * bl)


def pair_add(a: Pair, b: Pair) -> Pair:
    s, e = two_sum(a[0], b[0])
    return fast_two_sum(s, e + (a[1] + b[1]))


def pair_mul(a: Pair, b: Pair) -> Pair:
    p, e = two_product(a[0], b[0])
    return fast_two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def pair_div(a: Pair, b: Pair) -> Pair:
    """Quotient by one Newton correction; relative error about 2^-100 in f64."""
    q = a[0] / b[0]
    p, e = two_product(q, b[0])
    rest = ((a[0] - p) - e) + (a[1] - q * b[1])
    return fast_two_sum(q, rest / b[0])
