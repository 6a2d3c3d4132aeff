"""exp and its relatives: tanh, sigmoid, erf.

exp: Cody and Waite's reduction x = n ln 2 + r with ln 2 in two parts, a minimax polynomial in r
(weighted least squares at Chebyshev nodes, reweighted by Lawson's iteration), and a scaling by 2^n
in two factors, so that results become subnormal, zero or inf by one rounding (Muller, *Elementary
Functions*, ch. 11). n comes out of an addition of 1.5 * 2^p, which leaves it in the low bits as
well.
"""

from __future__ import annotations

import math

from nncompiler.codegen.math.value import (
    Operand,
    Value,
    at_least,
    at_most,
    estrin,
    exponent_bias,
    horner,
    mantissa_bits,
    sign_mask,
    signed,
    with_sign_of,
)
from nncompiler.ir.scalar import Apply, Expr, Ref
from nncompiler.ir.types import F32, F64, DType
from nncompiler.record import dataclass

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class _Exp:
    """The first part of `ln2` has low zeros enough to be multiplied exactly by any n.

    `q` is (e^r - 1 - r) / r^2 in powers of r. Below `low` the result is 0, above `high` it is inf.
    From `zero` down a factor of 2^n is 0, so that no processor has to round a subnormal: what a
    mask takes out, with -1e30 for an exponent, would take several times as long. Where no power is
    above 1, the factors are 2^(n + lift) and 2^-lift, and the first is 0 from -`sunk` down.
    """

    ln2: tuple[float, float]
    low: float
    zero: float
    high: float
    lift: int
    sunk: float
    q: tuple[float, ...]


_EXP = {
    F32: _Exp(
        ln2=(0.693145751953125, 1.428606765330187e-06),
        low=-104.0,
        zero=-176.06,
        high=89.0,
        lift=64,
        sunk=132.4,
        q=(0.49999997, 0.16666543, 0.041667514, 0.008366572, 0.0013863671),
    ),
    F64: _Exp(
        ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
        low=-746.0,
        zero=-1418.18,
        high=710.0,
        lift=512,
        sunk=1063.98,
        q=(
            0.5, 0.16666666666666677, 0.0416666666666666, 0.008333333333321416,
            0.0013888888888928341, 0.0001984126988669333, 2.4801587227698412e-05,
            2.755724360938185e-06, 2.7557361584077667e-07, 2.5109257058070705e-08,
            2.088679669065327e-09,
        ),
    ),
}


def exp(x: Value) -> Value:
    if root := _square_of(x.expr):
        t = _below(Value(root, x.fma))
        power, unit = _lifted(t * t)
        return power * unit
    table = _EXP[x.dtype]
    return _exp_clamped(at_least(at_most(x, table.high), table.zero))


def exp_sum(high: Value, low: Value) -> Value:
    """e^(high + low), where `low` is the rounding error of `high`."""
    table = _EXP[high.dtype]
    m, r = _reduce(
        at_least(at_most(high, table.high), table.low), 2 * exponent_bias(high.dtype), low
    )
    return _scale(_expm1_polynomial(r), m)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x), and e^x / (1 + e^x) for x < 0, so that e^-|x| keeps all its digits where the
    result is small.
    """
    e = _falling(abs(x))
    return (x < 0.0).choose(e, 1.0) / (e + 1.0)


def _exp_clamped(x: Value) -> Value:
    m, r = _reduce(x, 2 * exponent_bias(x.dtype))
    return _scale(_expm1_polynomial(r), m)


def _square_of(x: Expr) -> Expr | None:
    """That of whose square this is the negative."""
    match x:
        case Apply("neg", (Apply("mul", (Ref(a) as root, Ref(b))),)) if a == b:
            return root
        case Apply("neg", (Apply("mul", (c, d)),)) if c is d:
            return c
    return None


def _falling(t: Value) -> Value:
    """e^-t for t >= 0: fewer operations than where a power can overflow."""
    power, unit = _lifted(at_most(t, _EXP[t.dtype].sunk))
    return power * unit


def _below(x: Value) -> Value:
    """|x|, or something as good where e^-(x x) is 0."""
    return at_most(abs(x), math.sqrt(_EXP[x.dtype].sunk))


def _lifted(t: Value) -> tuple[Value, float]:
    """e^-t for 0 <= t <= `sunk` as a product, whose first factor is not subnormal."""
    table = _EXP[t.dtype]
    shifter = _shifter(t.dtype, exponent_bias(t.dtype) + table.lift)
    m = t.mul_add(-LOG2_E, shifter)
    n = m - shifter
    r = n.mul_add(-table.ln2[1], n.mul_add(-table.ln2[0], -t))
    scale = _power_of_two(m.bits(), t.dtype)
    return estrin(r, (0.0, 1.0, *table.q)).mul_add(scale, scale), 2.0**-table.lift


def _reduce(x: Value, plus: int, low: Operand = 0.0) -> tuple[Value, Value]:
    """``(m, r)`` with x + low = n ln 2 + r and the integer n + plus in the low bits of m; NaN goes
    to r.
    """
    table = _EXP[x.dtype]
    shifter = _shifter(x.dtype, plus)
    m = x.mul_add(LOG2_E, shifter)
    n = m - shifter
    r = n.mul_add(-table.ln2[0], x)
    if isinstance(low, Value):
        return m, r + n.mul_add(-table.ln2[1], low)
    return m, n.mul_add(-table.ln2[1], r)


def _shifter(dtype: DType, plus: int) -> float:
    """What rounds to integers when it is added; the sum's low bits are the integer and `plus`."""
    return 1.5 * 2.0 ** mantissa_bits(dtype) + plus


def _expm1_polynomial(r: Value) -> Value:
    return estrin(r, _EXP[r.dtype].q).mul_add(r * r, r)


def _power_of_two(biased: Value, dtype: DType) -> Value:
    """2^n from n plus the bias in the low bits; n must be a normal exponent."""
    return (biased << mantissa_bits(dtype)).bits(dtype)


def _scale(p: Value, m: Value) -> Value:
    """(1 + p) 2^n, where n is halved so that each factor is a normal number. The low bits of `m`
    are n plus two biases.
    """
    bits = m.bits()
    half = bits >> 1
    first = _power_of_two(half, p.dtype)
    return p.mul_add(first, first) * _power_of_two(bits - half, p.dtype)


def tanh(x: Value) -> Value:
    """u / (u + 2) with u = e^(2|x|) - 1, which loses no digit near 0; 1 from |x| = 22 on."""
    magnitude = abs(x)
    m, r = _reduce(at_most(magnitude + magnitude, 44.0), exponent_bias(x.dtype))
    scale = _power_of_two(m.bits(), x.dtype)
    u = scale.mul_add(_expm1_polynomial(r), scale - 1.0)
    return with_sign_of(u / (u + 2.0), x)


@dataclass(frozen=True, slots=True)
class _Erf:
    """`near`: erf(x) / x - 1 in powers of x^2 below `cut`; `far`: log2(1 - erf(t)) up to `limit`,
    where erf rounds to 1; `power`: 2^f for |f| <= 1/2.
    """

    cut: float
    limit: float
    near: tuple[float, ...]
    far: tuple[float, ...]
    power: tuple[float, ...]


_ERF = {
    F32: _Erf(
        cut=0.8,
        limit=3.95,
        near=(0.12837917, -0.37612608, 0.1128316, -0.026822057, 0.005086392, -0.00065384863),
        far=(-0.001709491, -1.6198386, -0.93337154, -0.13533007, 0.023818357, -0.0019857145),
        power=(1.0, 0.693147, 0.2402224, 0.055507015, 0.009671696, 0.0013273988),
    ),
    F64: _Erf(
        cut=1.0,
        limit=5.95,
        near=(0.1283791670955126, -0.37612638903183876, 0.11283791670958743, -0.02686617064561954,
              0.005223977629095658, -0.0008548327189606624, 0.00012055337777810952,
              -1.4925738504204218e-05, 1.646308709483387e-06, -1.637063829093387e-07,
              1.4786548418167036e-08, -1.1830590465705277e-09, 6.684830822627492e-11),
        far=(-2.5701017685850977e-07, -1.6279043977575252, -0.9184606710240675,
             -0.14823321055612482, 0.027524463005455666, 0.0004039410232312737,
             -0.002551343068214725, 0.000924345706527964, -6.421099261283565e-05,
             -0.00010176297991806036, 6.508130723481567e-05, -2.386122680987883e-05,
             6.252643038313169e-06, -1.2292725940206697e-06, 1.8170749830748655e-07,
             -1.9702072977151984e-08, 1.4833938286289703e-09, -6.938189201934426e-11,
             1.5189278546790952e-12),
        power=(1.0, 0.6931471805599453, 0.2402265069591007, 0.05550410866482295,
               0.009618129107629598, 0.0013333558146160194, 0.00015403530391230476,
               1.5252734041127929e-05, 1.3215488568125025e-06, 1.0177983822787844e-07,
               7.054246236831366e-09, 4.46580792330609e-10, 2.6621170989702876e-11),
    ),
}


def erf(x: Value) -> Value:
    """x + x P(x^2) near 0, 1 - 2^Q(|x|) beyond: there the power is small and so are its errors.
    """
    table = _ERF[x.dtype]
    magnitude = abs(x)
    near = horner(x * x, table.near).mul_add(x, x)
    exponent = estrin(at_most(magnitude, table.limit), table.far)
    scale, rest = _whole(exponent)
    far = with_sign_of(1.0 - estrin(rest, table.power) * scale, x)
    return (magnitude < table.cut).choose(near, far)


def _whole(exponent: Value) -> tuple[Value, Value]:
    """The integer next to an exponent, as 2^integer, which must be normal, and what is left."""
    shifter = _shifter(exponent.dtype, exponent_bias(exponent.dtype))
    m = exponent + shifter
    return _power_of_two(m.bits(), exponent.dtype), exponent - (m - shifter)


#: e^(t t) erfc(t) in powers of t / (1 + `_ERFCX_STEP` t).
_ERFCX_STEP = 0.4435
_ERFCX = (1.0, -1.1283777, 0.49953145, -0.086967215, -0.009951636, 0.0047089616)


def one_plus_erf(x: Value) -> Value:
    """1 + erf(x) in f32, as in a normal distribution: erfc(|x|), or 2 minus that. No form for
    small x, as erf has, is needed: no digit of a small erf can be seen. The power is the one in
    its derivative, so that where both are computed it is computed once. Nothing waits for the
    division, which runs beside the power.
    """
    t = _below(x)
    power, unit = _lifted(t * t)
    rest = horner(t / t.mul_add(_ERFCX_STEP, 1.0), [-c * unit for c in _ERFCX])
    rest = (rest.bits() ^ (x.bits() & sign_mask(x.dtype))).bits(x.dtype)
    limit = (x.bits(signed(x.dtype)) < 0).choose(x.of(0.0), 2.0)  # the same for 0 and -0
    return power.mul_add(rest, limit)
