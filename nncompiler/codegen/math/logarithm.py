"""log and pow.

log: x = 2^k m with m in [2/3, 4/3), cut out of the bits, and a minimax approximation of log(1 +
f), f = m - 1: in f32 a polynomial, in f64 fdlibm's form in s = f / (2 + f). k ln 2 is added in two
parts.

pow: e^(y log|x|). f32 works in f64. f64 keeps log|x| as a pair of doubles with 2^-65 relative
error (the tail of the series for 2 atanh(s) in one double, the rest in pairs), as in SLEEF, and
the product with y as another pair. The special cases are those of C99, Annex F.
"""

from __future__ import annotations

import math

from nncompiler.codegen.math.exponential import exp, exp_sum
from nncompiler.codegen.math.value import (
    Pair,
    Value,
    at_least,
    at_most,
    exponent_bias,
    fast_two_sum,
    horner,
    mantissa_bits,
    pair_add,
    pair_div,
    pair_mul,
    sign_mask,
    two_product,
)
from nncompiler.ir.types import F32, F64

#: 2/3 rounded, as bits
_TWO_THIRDS_BITS = {F32: 0x3F2AAAAB, F64: 0x3FE5555555555555}

_LN2 = {F32: (0.693145751953125, 1.428606765330187e-06),
        F64: (6.93147180369123816490e-01, 1.90821492927058770002e-10)}

#: (log(1 + f) - f + f^2 / 2) / f^3 over -1/3 <= f < 1/3
_LOG32 = (0.33333215, -0.24999806, 0.20010442, -0.16680074, 0.14005415, -0.12190198, 0.13986269,
          -0.12865305)

#: (2 atanh(s) - 2s) / s^3 in powers of s^2, |s| <= 0.2
_LOG64 = (0.666666666666666, 0.4000000000005644, 0.2857142855591128, 0.22222224285572914,
          0.18181666577841318, 0.1539108811935693, 0.13174008107963145, 0.1384024383775334)

#: the same with 2/3 taken out as a pair of doubles
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_LOG_TAIL = (0.4, 0.2857142857142684, 0.22222222222713373, 0.1818181811096003, 0.15384621325646908,
             0.13333026717940913, 0.11774576475378702, 0.10333852101749921, 0.11579855612796663)


def log(x: Value) -> Value:
    k, f = _split_exponent(x)
    high, low = _LN2[x.dtype]
    if x.dtype == F32:
        s = f * f
        r = (horner(f, _LOG32).mul_add(f, -0.5)).mul_add(s, f)
        finite = k.mul_add(high, k.mul_add(low, r))
    else:
        s = f / (f + 2.0)
        z = s * s
        half_square = f * f * 0.5
        r = s.mul_add(half_square + z * horner(z, _LOG64), k * low)
        finite = k.mul_add(high, f - (half_square - r))
    # one select per test: LLVM turns their conjunction into slow integer code
    positive = (x < math.inf).choose(finite, x)
    other = x.equals(0.0).choose(x.of(-math.inf), math.nan)
    return (x > 0.0).choose(positive, other)


def _split_exponent(x: Value) -> tuple[Value, Value]:
    """``(k, f)`` with x = 2^k (1 + f) and 2/3 <= 1 + f < 4/3, for finite x > 0; k as a float."""
    dtype, p, bias = x.dtype, mantissa_bits(x.dtype), exponent_bias(x.dtype)
    tiny = x < 2.0 ** (1 - bias)
    bits = tiny.choose(x * 2.0**p, x).bits()
    one = bias << p
    biased = (bits + (one - _TWO_THIRDS_BITS[dtype])) >> p
    f = (bits - (biased << p) + one).bits(dtype) - 1.0
    # a small integer below the exponent of 2^p reads as 2^p plus that integer
    whole = (biased | (bias + p) << p).bits(dtype)
    return whole - tiny.choose(whole.of(2.0**p + bias + p), 2.0**p + bias), f


def _log_pair(x: Value) -> Pair:
    """log x as a pair of f64, for finite x > 0."""
    k, f = _split_exponent(x)
    zero = f.of(0.0)
    s = pair_div((f, zero), fast_two_sum(f.of(2.0), f))
    z = pair_mul(s, s)
    tail = two_product(z[0], horner(z[0], _LOG_TAIL))
    series = pair_add((f.of(_TWO_THIRDS[0]), f.of(_TWO_THIRDS[1])), tail)
    mantissa = pair_add((s[0] + s[0], s[1] + s[1]), pair_mul(pair_mul(s, z), series))
    high, low = _LN2[F64]
    return pair_add(fast_two_sum(k * high, k * low), mantissa)


def power(x: Value, y: Value) -> Value:
    magnitude = _power32(x, y) if x.dtype == F32 else _power64(abs(x), y)
    integer = y.apply("floor").equals(y)
    half = y * 0.5
    odd = integer & half.apply("floor").differs(half)
    flip = odd.choose(x.bits() & sign_mask(x.dtype), 0)
    signed = (magnitude.bits() | flip).bits(x.dtype)
    undefined = (x < 0.0) & (x > -math.inf) & ~integer
    one = y.equals(0.0) | x.equals(1.0) | (x.equals(-1.0) & abs(y).equals(math.inf))
    return one.choose(1.0, undefined.choose(math.nan, signed))


def _power32(x: Value, y: Value) -> Value:
    # |y| up to 1e30 decides every result, and keeps inf * 0 out of |x| = 1
    clamped = at_least(at_most(y.to(F64), 1e30), -1e30)
    return exp(clamped * log(abs(x).to(F64))).to(F32)


def _power64(a: Value, y: Value) -> Value:
    high, low = _log_pair(a)
    high = a.equals(0.0).choose(-math.inf, (a < math.inf).choose(high, a))
    clamped = at_least(at_most(y, 2.0**70), -(2.0**70))
    p, e = two_product(clamped, high)
    e = (abs(p) < 1000.0).choose(e + clamped * low, 0.0)
    return exp_sum(at_least(at_most(p, 1000.0), -1000.0), e)
