"""exp and its relatives: tanh, sigmoid, erf.

exp: Cody and Waite's reduction x = n ln 2 + r with ln 2 in two parts, a minimax polynomial in r
(weighted least squares at Chebyshev nodes, reweighted by Lawson's iteration), and a scaling by 2^n
in two factors, so that results become subnormal, zero or inf by one rounding (Muller, *Elementary
Functions*, ch. 11). n comes out of an addition of 1.5 * 2^p, which leaves it in the low bits as
well.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncompiler.codegen.math_value import (
    Operand,
    Value,
    at_least,
    at_most,
    exponent_bias,
    horner,
    mantissa_bits,
    with_sign_of,
)
from nncompiler.ir.types import F32, F64, DType

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class _Exp:
    """The first part of `ln2` has low zeros enough to be multiplied exactly by any n.

    `q` is (e^r - 1 - r) / r^2 in powers of r. Below `low` the result is 0, above `high` it is inf.
    """

    ln2: tuple[float, float]
    low: float
    high: float
    q: tuple[float, ...]


_EXP = {
    F32: _Exp(
        ln2=(0.693145751953125, 1.428606765330187e-06),
        low=-104.0,
        high=89.0,
        q=(0.49999997, 0.16666543, 0.041667514, 0.008366572, 0.0013863671),
    ),
    F64: _Exp(
        ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
        low=-746.0,
        high=710.0,
        q=(
            0.5, 0.16666666666666677, 0.0416666666666666, 0.008333333333321416,
            0.0013888888888928341, 0.0001984126988669333, 2.4801587227698412e-05,
            2.755724360938185e-06, 2.7557361584077667e-07, 2.5109257058070705e-08,
            2.088679669065327e-09,
        ),
    ),
}


def exp(x: Value) -> Value:
    table = _EXP[x.dtype]
    return _exp_clamped(at_least(at_most(x, table.high), table.low))


def exp_sum(high: Value, low: Value) -> Value:
    """e^(high + low), where `low` is the rounding error of `high`."""
    table = _EXP[high.dtype]
    n, r = _reduce(at_least(at_most(high, table.high), table.low), low)
    return _scale(_exp_polynomial(r), n)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x), and e^x / (1 + e^x) for x < 0, so that e^-|x| keeps all its digits where the
    result is small.
    """
    e = _exp_clamped(at_least(-abs(x), _EXP[x.dtype].low))
    return (x < 0.0).choose(e, 1.0) / (e + 1.0)


def _exp_clamped(x: Value) -> Value:
    n, r = _reduce(x)
    return _scale(_exp_polynomial(r), n)


def _reduce(x: Value, low: Operand = 0.0) -> tuple[Value, Value]:
    """``(m, r)`` with x + low = n ln 2 + r and the integer n in the low bits of m; NaN goes to r.
    """
    table = _EXP[x.dtype]
    shifter = 1.5 * 2.0 ** mantissa_bits(x.dtype)
    m = x.mul_add(LOG2_E, shifter)
    n = m - shifter
    r = n.mul_add(-table.ln2[0], x)
    if isinstance(low, Value):
        return m, r + n.mul_add(-table.ln2[1], low)
    return m, n.mul_add(-table.ln2[1], r)


def _exp_polynomial(r: Value) -> Value:
    return horner(r, (1.0, 1.0, *_EXP[r.dtype].q))


def _expm1_polynomial(r: Value) -> Value:
    return horner(r, _EXP[r.dtype].q).mul_add(r * r, r)


def _power_of_two(n: Value, dtype: DType) -> Value:
    """2^n from an integer in the low bits of `n`, which must be a normal exponent."""
    one = exponent_bias(dtype) << mantissa_bits(dtype)
    return ((n << mantissa_bits(dtype)) + one).bits(dtype)


def _scale(p: Value, m: Value) -> Value:
    """p * 2^n, rounded once: n is halved so that each factor is a normal number."""
    bits = m.bits()
    half = bits >> 1
    return p * _power_of_two(half, p.dtype) * _power_of_two(bits - half, p.dtype)


def tanh(x: Value) -> Value:
    """u / (u + 2) with u = e^(2|x|) - 1, which loses no digit near 0; 1 from |x| = 22 on."""
    magnitude = abs(x)
    n, r = _reduce(at_most(magnitude + magnitude, 44.0))
    scale = _power_of_two(n.bits(), x.dtype)
    u = scale.mul_add(_expm1_polynomial(r), scale - 1.0)
    return with_sign_of(u / (u + 2.0), x)


@dataclass(frozen=True, slots=True)
class _Erf:
    """`near`: erf(x) / x - 1 in powers of x^2 below `cut`; `far`: log(1 - erf(t)) up to `limit`,
    where erf rounds to 1.
    """

    cut: float
    limit: float
    near: tuple[float, ...]
    far: tuple[float, ...]


_ERF = {
    F32: _Erf(
        cut=0.925,
        limit=3.95,
        near=(0.12837917, -0.37612632, 0.11283676, -0.026858531, 0.0051991395, -0.0008123064,
              8.292425e-05),
        far=(-0.00019587278, -1.1276748, -0.6371836, -0.10393039, 0.022226322, -0.0030430593,
             0.00019591974),
    ),
    F64: _Erf(
        cut=1.0,
        limit=5.95,
        near=(0.1283791670955126, -0.37612638903183876, 0.11283791670958743, -0.02686617064561954,
              0.005223977629095658, -0.0008548327189606624, 0.00012055337777810952,
              -1.4925738504204218e-05, 1.646308709483387e-06, -1.637063829093387e-07,
              1.4786548418167036e-08, -1.1830590465705277e-09, 6.684830822627492e-11),
        far=(-1.7814587946468894e-07, -1.1283773435267643, -0.6366284245755277,
             -0.10274743196232715, 0.019078503928659465, 0.0002799905813627169,
             -0.0017684562543706156, 0.0006407076203386342, -4.4507668487166886e-05,
             -7.05367226178962e-05, 4.51109246182313e-05, -1.6539342088515764e-05,
             4.33400189324069e-06, -8.520668327341424e-07, 1.259500401482517e-07,
             -1.365643633673458e-08, 1.028210250118888e-09, -4.809186284410711e-11,
             1.0528405602037538e-12),
    ),
}


def erf(x: Value) -> Value:
    """x + x P(x^2) near 0, 1 - e^Q(|x|) beyond: there the exponential is small and so are its
    errors.
    """
    table = _ERF[x.dtype]
    magnitude = abs(x)
    near = horner(x * x, table.near).mul_add(x, x)
    n, r = _reduce(horner(at_most(magnitude, table.limit), table.far))
    complement = _exp_polynomial(r) * _power_of_two(n.bits(), x.dtype)
    far = with_sign_of(1.0 - complement, x)
    return (magnitude < table.cut).choose(near, far)
