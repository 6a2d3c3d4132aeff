"""sin and cos.

x = n pi/2 + r with |r| <= pi/4; n mod 4 picks sin r or cos r (minimax polynomials) and the sign.
The reduction is exact enough for every x up to a limit, 2^29 for f32 and 2^43 for f64; beyond it
the result is NaN. f32 reduces in f64 with pi/2 in three parts, of which two have 24 bits, so that
their products with n are exact; f64 subtracts error-free products with three doubles (Cody and
Waite 1980; Muller, *Elementary Functions*, ch. 11).
"""

from __future__ import annotations

import math

from nncompiler.codegen.math.value import Value, horner, two_product, two_sum
from nncompiler.ir.types import F32, F64, U32

_TWO_OVER_PI = 0.6366197723675814
_HALF_PI32 = (1.570796251296997, 7.549789415861596e-08, 5.390302858158119e-15)
_HALF_PI64 = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
_SHIFTER = 1.5 * 2.0**52

#: (sin r - r) / r^3 and (cos r - 1 + r^2 / 2) / r^4 in powers of r^2
_SIN = {
    F32: (-0.16666655, 0.008332188, -0.00019518074),
    F64: (-0.1666666666666663, 0.008333333333321888, -0.0001984126982941891, 2.755731356505335e-06,
          -2.505073921556132e-08, 1.5895744543462727e-10),
}
_COS = {
    F32: (0.041666646, -0.001388731, 2.4432338e-05),
    F64: (0.041666666666666595, -0.0013888888888873318, 2.4801587288975266e-05,
          -2.755731420644774e-07, 2.0875703628228804e-09, -1.1358642976671471e-11),
}


def sin(x: Value) -> Value:
    quadrant, sine, cosine = _reduced(x)
    result = _by_quadrant(quadrant, sine, cosine)
    # the reduction turns -0 into 0
    return x.equals(0.0).choose(x, result)


def cos(x: Value) -> Value:
    quadrant, sine, cosine = _reduced(x)
    return _by_quadrant(quadrant + 1, sine, cosine)


def _by_quadrant(quadrant: Value, sine: Value, cosine: Value) -> Value:
    word = 8 * sine.dtype.bytes
    chosen = (quadrant & 1).equals(0).choose(sine, cosine)
    return (chosen.bits() ^ ((quadrant & 2) << (word - 2))).bits(sine.dtype)


def _reduced(x: Value) -> tuple[Value, Value, Value]:
    """The quadrant n mod 4 (in the low two bits), sin r and cos r."""
    wide = x.to(F64)
    limit = 2.0**29 if x.dtype == F32 else 2.0**43
    wide = (abs(wide) <= limit).choose(wide, math.nan)
    m = wide.mul_add(_TWO_OVER_PI, _SHIFTER)
    n = m - _SHIFTER
    if x.dtype == F64:
        r, low = _reduce64(wide, n)
        return m.bits(), _sin64(r, low), _cos64(r, low)
    for part in _HALF_PI32:
        wide = n.mul_add(-part, wide)
    r = wide.to(F32)
    s = r * r
    sine = (r * s).mul_add(horner(s, _SIN[F32]), r)
    cosine = (s * s).mul_add(horner(s, _COS[F32]), s.mul_add(-0.5, 1.0))
    return m.bits().to(U32), sine, cosine


def _reduce64(x: Value, n: Value) -> tuple[Value, Value]:
    first, second, third = _HALF_PI64
    h1, l1 = two_product(n, n.of(first))
    h2, l2 = two_product(n, n.of(second))
    a, ea = two_sum(x - h1, -l1)
    b, eb = two_sum(a, -h2)
    return two_sum(b, n.mul_add(-third, (ea + eb) - l2))


def _sin64(r: Value, low: Value) -> Value:
    s = r * r
    tail = low.mul_add(s.mul_add(-0.5, 1.0), (r * s) * horner(s, _SIN[F64]))
    return r + tail


def _cos64(r: Value, low: Value) -> Value:
    s = r * r
    half = s * 0.5
    w = 1.0 - half
    return w + (((1.0 - w) - half) + ((s * s) * horner(s, _COS[F64]) - r * low))
