"""Derives the polynomial coefficients of `nncompiler/codegen/math/`; needs mpmath.

Weighted least squares at Chebyshev nodes in 200 bits, reweighted towards the minimax solution
(Lawson 1961). Then the coefficients are rounded one by one, the constant term first, and the rest
is fitted again to what is left. Prints each table with its largest weighted error.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.prec = 200
Real = Callable[[mp.mpf], mp.mpf]


def solve(values: list, weights: list, nodes: list, powers: list[int], rounds: int) -> list:
    """Coefficients of `powers` whose largest weighted error is smallest among the rounds."""
    emphasis = [mp.mpf(1)] * len(nodes)
    best: tuple = (mp.inf, [])
    rows = [[w * x**p for p in powers] for w, x in zip(weights, nodes, strict=True)]
    wanted = [w * v for w, v in zip(weights, values, strict=True)]
    for _ in range(rounds):
        a = mp.matrix(len(powers), len(powers))
        b = mp.matrix(len(powers), 1)
        for e, row, v in zip(emphasis, rows, wanted, strict=True):
            for i, r in enumerate(row):
                b[i] += e * r * v
                for j, s in enumerate(row):
                    a[i, j] += e * r * s
        found = list(mp.lu_solve(a, b))
        errors = [abs(v - mp.fdot(row, found)) for row, v in zip(rows, wanted, strict=True)]
        best = min(best, (max(errors), found), key=lambda pair: pair[0])
        total = mp.fdot(emphasis, errors)
        emphasis = [e * d / total * len(nodes) + mp.mpf(10) ** -30
                    for e, d in zip(emphasis, errors, strict=True)]
    return best[1]


def fit(f: Real, weight: Real, low: float, high: float, degree: int, single: bool
        ) -> tuple[list[float], float]:
    """Rounded coefficients of p, constant term first, and max |weight (p - f)|."""
    count = 6 * (degree + 1) + 20
    middle, half = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    nodes = [middle + half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    values, weights = [f(x) for x in nodes], [weight(x) for x in nodes]
    fixed: list[float] = []
    while len(fixed) <= degree:
        rest = [v - mp.polyval(fixed[::-1] or [0], x) for v, x in zip(values, nodes, strict=True)]
        rounds = 8 if single else 1
        if not fixed:
            rounds = 25 if single else 12
        first = float(solve(rest, weights, nodes, list(range(len(fixed), degree + 1)), rounds)[0])
        fixed.append(float(np.float32(first)) if single else first)
    errors = [abs(w * (mp.polyval(fixed[::-1], x) - v))
              for v, w, x in zip(values, weights, nodes, strict=True)]
    return fixed, float(max(errors))


def series(f: Real, near: Real, small: float = 1e-9) -> Real:
    """`f`, but `near` where f would cancel."""
    return lambda x: f(x) if abs(x) > small else near(x)


def relative(power: Real, function: Real) -> Real:
    return lambda x: power(x) / function(x) if x else mp.mpf(0)


half = mp.mpf("0.501")
half_ln2, third = mp.log(2) / 2 * 1.002, mp.mpf(1) / 3
quarter_turn, s_limit = (mp.pi / 4 * 1.001) ** 2, mp.mpf("0.2001") ** 2
root = mp.sqrt

expm1 = series(lambda r: (mp.expm1(r) - r) / r**2, lambda r: 0.5 + r / 6)
exp2m1 = series(lambda f: (mp.mpf(2) ** f - 1) / f, lambda f: mp.log(2) + f * mp.log(2) ** 2 / 2)
log1p = series(lambda f: (mp.log1p(f) - f + f * f / 2) / f**3, lambda f: third - f / 4)
sine = series(lambda s: (mp.sin(root(s)) - root(s)) / root(s) ** 3, lambda s: -third / 2 + s / 120)
cosine = series(lambda s: (mp.cos(root(s)) - 1 + s / 2) / s**2, lambda s: mp.mpf(1) / 24 - s / 720)
atanh = series(lambda z: 2 * (mp.atanh(root(z)) - root(z)) / root(z) ** 3,
               lambda z: 2 * third + z * 2 / 5)
tail = series(lambda z: (atanh(z) - 2 * third) / z, lambda z: mp.mpf(2) / 5 + z * 2 / 7)
erf_near = series(lambda s: mp.erf(root(s)) / root(s) - 1,
                  lambda s: 2 / root(mp.pi) * (1 - s / 3) - 1)


def erf_far(t: mp.mpf) -> mp.mpf:
    return mp.log(mp.erfc(t), 2)


def erf_far_weight(t: mp.mpf) -> mp.mpf:
    return mp.erfc(t) / mp.erf(t) * mp.log(2)


#: 1 + erf: in powers of 1 / (1 + step t)
step = mp.mpf(float(np.float32(0.443)))


def erfcx(s: mp.mpf) -> mp.mpf:
    return mp.erfc((1 / s - 1) / step) / erfcx_weight(s)


def erfcx_weight(s: mp.mpf) -> mp.mpf:
    return mp.exp(-(((1 / s - 1) / step) ** 2))


#: name, function, weight, interval, degree in f32 and f64 (None: not used)
TABLES = (
    ("exp q", expm1, relative(lambda r: r**2, mp.expm1), -half_ln2, half_ln2, 4, 10),
    ("log f32", log1p, relative(lambda f: f**3, mp.log1p), -third, third, 7, None),
    ("log f64", atanh, relative(lambda z: z * root(z), lambda z: 2 * mp.atanh(root(z))),
     mp.mpf(0), s_limit, None, 7),
    ("pow tail", tail, relative(lambda z: z**2 * root(z), lambda z: 2 * mp.atanh(root(z))),
     mp.mpf(0), s_limit, None, 8),
    ("sin", sine, relative(lambda s: s * root(s), lambda s: mp.sin(root(s))), mp.mpf(0),
     quarter_turn, 2, 5),
    ("cos", cosine, relative(lambda s: s * s, lambda s: mp.cos(root(s))), mp.mpf(0),
     quarter_turn, 2, 5),
    ("erf near f32", erf_near, lambda s: 1 / (1 + erf_near(s)), mp.mpf(0), mp.mpf("0.805") ** 2,
     5, None),
    ("erf near f64", erf_near, lambda s: 1 / (1 + erf_near(s)), mp.mpf(0), mp.mpf(1), None, 12),
    ("erf far f32", erf_far, erf_far_weight, mp.mpf("0.795"), mp.mpf("3.95"), 5, None),
    ("erf far f64", erf_far, erf_far_weight, mp.mpf("0.999"), mp.mpf("5.95"), None, 18),
    ("1 + erf", erfcx, erfcx_weight, 1 / (1 + step * mp.mpf("4.2")), mp.mpf(1), 5, None),
    ("erf power", exp2m1, lambda f: f / mp.mpf(2) ** f, -half, half, 4, 11),
)


def main() -> None:
    for name, f, weight, low, high, single, double in TABLES:
        for degree, is_single in ((single, True), (double, False)):
            if degree is not None:
                numbers, error = fit(f, weight, low, high, degree, is_single)
                shown = [repr(float(str(np.float32(c)))) if is_single else repr(c)
                         for c in numbers]
                print(f"{name} ({'f32' if is_single else 'f64'}, error {error:.2g})")
                print(f"    {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
