"""The formulas of `codegen/math/`, evaluated by NumPy: accuracy in ULP, special values, form of
the expressions.

f32 results are held against f64 functions, f64 results against `longdouble`. The evaluator rounds
each primitive as the hardware does; its fma is exact but for rare double rounding. All 2^32 inputs
of compiled code: `benchmarks/ulp.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nncompiler.codegen.math.formulas import FORMULAS, expand
from nncompiler.ir.scalar import (
    PRIMITIVES,
    Apply,
    Bitcast,
    Cast,
    Const,
    Expr,
    Load,
    Ref,
    apply,
    children,
    const,
)
from nncompiler.ir.types import BOOL, F32, F64, I32, Array, DType

UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos")
BOUNDS = {
    F32: {"exp": 2, "log": 2, "tanh": 3, "sigmoid": 3, "erf": 3, "sin": 2, "cos": 2, "pow": 4},
    F64: dict.fromkeys((*UNARY, "pow"), 4),
}
#: Where samples are dense, besides all magnitudes.
RANGES = {
    "exp": (-110, 90), "log": (0, 3), "tanh": (-10, 10), "sigmoid": (-110, 20), "erf": (-4.5, 4.5),
    "sin": (-100, 100), "cos": (-100, 100),
}

# --- evaluation ----------------------------------------------------------------------------------


def _split(a: Array) -> tuple[Array, Array]:
    high = (a.view(np.uint64) & np.uint64(0xFFFF_FFFF_F800_0000)).view(np.float64)
    return high, a - high


def _fma(a: Array, b: Array, c: Array) -> Array:
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    e = al * bl - (((p - ah * bh) - al * bh) - ah * bl)
    s = p + c
    back = s - p
    t = (p - (s - back)) + (c - back)
    exact_zero = (s == 0) & (t + e == 0)  # keeps the sign of a zero
    return np.where(np.isfinite(s) & ~exact_zero, s + (t + e), s)


def _shift(op: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, n: op(a, n.astype(a.dtype))


_NUMPY: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt, "floor": np.floor, "fma": _fma, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor, "not": np.logical_not, "shl": _shift(np.left_shift),
    "shr": _shift(np.right_shift),
    "select": np.where,
}


def evaluate(expr: Expr, values: dict[str, Array], under: str = "ignore") -> Array:
    """The value of a DAG of basic primitives, each shared object once."""
    done: dict[int, Array] = {}
    size = next(iter(values.values())).size

    def visit(e: Expr) -> Array:
        if id(e) not in done:
            done[id(e)] = compute(e)
        return done[id(e)]

    def compute(e: Expr) -> Array:
        match e:
            case Const(value, dtype):
                return np.full(size, value, dtype.numpy)
            case Ref(name):
                return values[name]
            case Bitcast(arg, dtype):
                return visit(arg).view(dtype.numpy)
            case Cast(arg, dtype):
                return visit(arg).astype(dtype.numpy)
            case Apply(op, args):
                return _NUMPY[op](*(visit(a) for a in args))
            case _:
                raise AssertionError(e)

    with np.errstate(all="ignore"), np.errstate(under=under):
        return visit(expr)


def compute(op: str, dtype: DType, fma: bool, *inputs: Array) -> Array:
    arrays = [np.ascontiguousarray(a, dtype.numpy) for a in inputs]
    names = ("x", "y")[: len(arrays)]
    expr = expand(apply(op, *(Ref(n, dtype) for n in names)), fma)
    return evaluate(expr, dict(zip(names, arrays, strict=True)))


# --- references and errors -----------------------------------------------------------------------


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


_REFERENCE: dict[str, Callable[..., Array]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": _sigmoid, "sin": np.sin,
    "cos": np.cos, "pow": np.power,
    "erf": lambda x: np.array([math.erf(v) for v in x], x.dtype),
}


def reference(op: str, *inputs: Array) -> Array:
    """The function in the next wider type."""
    wide = np.float64 if inputs[0].dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        return _REFERENCE[op](*(a.astype(wide) for a in inputs))


def ulp_error(got: Array, wanted: Array) -> Array:
    """|got - wanted| in units in the last place of `wanted`; inf for a wrong NaN or infinity."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        exponent = np.frexp(np.where(np.isfinite(wanted), wanted, 1))[1] - 1
        exponent = np.clip(exponent, info.minexp, info.maxexp - 1)
        unit = np.ldexp(np.ones_like(wanted), exponent - info.nmant)
        error = np.abs(got.astype(wanted.dtype) - wanted) / unit
        # from the largest number on, inf is as right as the largest number
        top = np.abs(wanted) >= float(info.max) * (1 + wanted.dtype.type(info.eps) / 4)
        overflow = top & (np.abs(got) >= info.max) & (np.sign(got) == np.sign(wanted))
    both_nan = np.isnan(got) & np.isnan(wanted)
    exact = (got == wanted) | both_nan | overflow
    return np.where(exact, 0, np.where(np.isnan(error), np.inf, error))


def sample(op: str, dtype: DType, count: int = 20_000) -> Array:
    """All magnitudes with both signs, the dense range, and the special values."""
    rng = np.random.default_rng(sum(map(ord, op)))
    info = np.finfo(dtype.numpy)
    low, high = info.minexp - info.nmant, info.maxexp
    if op in ("sin", "cos"):
        high = 17 if dtype == F32 else 30
    magnitudes = np.exp2(rng.uniform(low, high, count).astype(np.longdouble)) * rng.choice([-1,
                                                                                            1],
                                                                                            count)
    a, b = RANGES[op]
    scale = 7 if dtype == F64 and op in ("exp", "sigmoid") else 1
    dense = rng.uniform(a * scale, b * scale, count)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, float(info.max), -float(info.max),
               float(info.tiny)]
    special += [float(info.smallest_subnormal), -float(info.smallest_subnormal)]
    quarter_turns = np.arange(-500, 500) * (math.pi / 2)
    if op in ("sin", "cos"):
        special = [v for v in special if abs(v) != info.max]
    parts = [magnitudes, dense, special, quarter_turns]
    return np.concatenate([np.asarray(p, dtype.numpy) for p in parts])


# --- tests ---------------------------------------------------------------------------------------

_BOTH = pytest.mark.parametrize("fma", [True, False], ids=["fma", "no-fma"])
_FLOATS = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


@_BOTH
@_FLOATS
@pytest.mark.parametrize("op", UNARY)
def test_unary_accuracy(op: str, dtype: DType, fma: bool) -> None:
    """Every unary function stays within its bound, special values included."""
    x = sample(op, dtype)
    errors = ulp_error(compute(op, dtype, fma, x), reference(op, x))
    worst = int(np.argmax(errors))
    assert errors[worst] <= BOUNDS[dtype][op], f"{op}({x[worst]!r}): {errors[worst]} ULP"


@_BOTH
@pytest.mark.parametrize("first", [True, False])
def test_one_plus_erf(fma: bool, first: bool) -> None:
    """1 + erf(x) is as near as the sum of the two would be, and runs out into exactly 0 and 2."""
    terms = [const(1.0, F32), apply("erf", Ref("x", F32))]
    expr = expand(apply("add", *(terms if first else terms[::-1])), fma)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-8, 8, 100_000), rng.normal(0, 1, 100_000)]).astype(np.float32)
    wanted = np.array([math.erfc(-v) for v in x])
    assert np.abs(evaluate(expr, {"x": x}) - wanted).max() < 2.0**-22.2
    ends = np.array([0, -0.0, np.inf, -np.inf, 3e38, -3e38, -11.6, np.nan], np.float32)
    np.testing.assert_array_equal(evaluate(expr, {"x": ends}), [1, 1, 2, 0, 2, 0, 0, np.nan])
    doubles = apply("add", const(1.0, F64), apply("erf", Ref("x", F64)))
    small = np.array([1e-10, -0.3])
    np.testing.assert_allclose(
        evaluate(expand(doubles, fma), {"x": small}), [1 + math.erf(v) for v in small], 1e-15
    )


@_BOTH
@_FLOATS
def test_power_of_a_negative_square(dtype: DType, fma: bool) -> None:
    """e^-(x x) has a formula of its own, to the same bound."""
    x = Ref("x", dtype)
    limit = 11 if dtype == F32 else 28
    at = np.concatenate([np.linspace(-limit, limit, 50_001), [0, np.inf, 1e18, np.nan]])
    at = at.astype(dtype.numpy)
    with np.errstate(over="ignore"):
        squares = -(at * at)
    for square in (apply("mul", x, x), apply("mul", Ref("x", dtype), Ref("x", dtype))):
        found = evaluate(expand(apply("exp", apply("neg", square)), fma), {"x": at})
        assert ulp_error(found, reference("exp", squares)).max() <= BOUNDS[dtype]["exp"]


def test_one_plus_erf_shares_the_power_of_its_derivative() -> None:
    """1 + erf(x) and e^-(x x) hold one and the same expression, which a kernel computes once."""
    x = Ref("x", F32)
    power = expand(apply("exp", apply("neg", apply("mul", x, x))), True)
    form = expand(apply("add", const(1.0, F32), apply("erf", x)), True)
    assert isinstance(power, Apply) and isinstance(form, Apply)
    assert power.args[0] == form.args[0]


@_BOTH
@_FLOATS
def test_pow_accuracy(dtype: DType, fma: bool) -> None:
    """pow stays within its bound over all magnitudes of results, and close to 1 with large
    exponents.
    """
    rng = np.random.default_rng(5)
    info = np.finfo(dtype.numpy)
    n = 20_000
    spread = np.exp2(rng.uniform(info.minexp, info.maxexp, n))
    near_one = 1 + rng.uniform(-1e-5, 1e-5, n)
    x = np.concatenate([spread, rng.uniform(0.5, 2, n), near_one]).astype(dtype.numpy)
    x = x[x != 1]
    logs = np.log(x.astype(np.float64))
    result_exponent = rng.uniform(info.minexp - info.nmant, info.maxexp, x.size)
    y = (result_exponent * math.log(2) / logs).astype(dtype.numpy)
    y[::3] = rng.uniform(-4, 4, y[::3].size)
    errors = ulp_error(compute("pow", dtype, fma, x, y), reference("pow", x, y))
    worst = int(np.argmax(errors))
    where = f"pow({x[worst]!r}, {y[worst]!r})"
    assert errors[worst] <= BOUNDS[dtype]["pow"], f"{where}: {errors[worst]} ULP"


@_BOTH
@_FLOATS
def test_pow_special_cases(dtype: DType, fma: bool) -> None:
    """Zeros, infinities, NaN, negative bases and odd exponents behave as in C99, signs of zero
    included.
    """
    info = np.finfo(dtype.numpy)
    odd = 2.0**info.nmant + 1
    base = [0.0, 1.0, 2.0, 0.5, 3.0, 4.0, 1.5, 0.75, math.inf, float(info.smallest_subnormal),
            1e30, odd, 2 * odd]
    values = np.array([*base, *(-v for v in base), math.nan], dtype.numpy)
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    got, wanted = compute("pow", dtype, fma, x, y), reference("pow", x, y)
    assert ulp_error(got, wanted).max() <= 1
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(wanted[known]))


@_FLOATS
@pytest.mark.parametrize("op", ["exp", "sigmoid"])
def test_what_a_mask_takes_out_does_not_underflow(op: str, dtype: DType) -> None:
    """Processors take long to round a result below the smallest normal number."""
    far = np.array([-1e30, -2000.0, -math.inf], dtype.numpy)
    found = evaluate(expand(apply(op, Ref("x", dtype)), True), {"x": far}, under="raise")
    assert not found.any() and not np.signbit(found).any()


@_FLOATS
def test_results_at_special_values(dtype: DType) -> None:
    """Zeros keep their sign, infinities give limits, underflow is gradual."""
    def at(op: str, x: float) -> float:
        return float(compute(op, dtype, True, np.array([x]))[0])

    tiny = float(np.finfo(dtype.numpy).smallest_subnormal)
    for op in ("tanh", "erf", "sin"):
        assert math.copysign(1, at(op, -0.0)) == -1 and at(op, -0.0) == 0
        assert at(op, tiny) == tiny
    assert (at("tanh", -math.inf), at("erf", math.inf), at("sigmoid", -math.inf)) == (-1, 1, 0)
    assert (at("exp", -math.inf), at("exp", math.inf), at("log", 0.0)) == (0, math.inf, -math.inf)
    assert all(math.isnan(at(op, math.inf)) for op in ("sin", "cos")) and math.isnan(at("log",
                                                                                        -1.0))
    assert 0 < at("exp", math.log(tiny) + 5) < 1e3 * tiny


def test_angles_beyond_the_reduction_are_nan() -> None:
    """sin and cos say NaN, not a wrong number, where the reduction has no digits left."""
    for op in ("sin", "cos"):
        assert np.isnan(compute(op, F32, True, np.array([1e10]))).all()
        assert np.isnan(compute(op, F64, True, np.array([1e15]))).all()


@_FLOATS
def test_rsqrt(dtype: DType) -> None:
    """rsqrt is the quotient 1 / sqrt(x)."""
    x = np.array([4.0, 0.25, 0.0, math.inf], dtype.numpy)
    assert compute("rsqrt", dtype, True, x).tolist() == [0.5, 2.0, math.inf, 0.0]


def _objects(expr: Expr) -> dict[int, Expr]:
    found: dict[int, Expr] = {}
    todo = [expr]
    while todo:
        e = todo.pop()
        if id(e) not in found:
            found[id(e)] = e
            todo += children(e)
    return found


@_BOTH
@_FLOATS
@pytest.mark.parametrize("op", sorted(FORMULAS))
def test_only_basic_primitives_remain(op: str, dtype: DType, fma: bool) -> None:
    """Formulas hold no transcendental, no fma without hardware for it, and share their
    sub-expressions.
    """
    args = [Ref(n, dtype) for n in ("x", "y")][: PRIMITIVES[op].arity]
    nodes = _objects(expand(apply(op, *args), fma)).values()
    used = {e.op for e in nodes if isinstance(e, Apply)}
    assert not any(PRIMITIVES[name].transcendental for name in used) and "rsqrt" not in used
    assert fma or "fma" not in used
    assert sum(not isinstance(e, Const) for e in nodes) < 320


def test_f32_hot_paths_are_lean() -> None:
    """The functions of softmax, sigmoid, tanh and gelu stay small."""
    limits = {"exp": 26, "sigmoid": 30, "tanh": 28, "log": 36, "erf": 42}
    for op, limit in limits.items():
        nodes = _objects(expand(apply(op, Ref("x", F32)), True)).values()
        assert sum(isinstance(e, Apply | Cast | Bitcast) for e in nodes) <= limit, op


def test_every_transcendental_has_a_formula() -> None:
    """A transcendental primitive without formula would become a library call."""
    assert {n for n, p in PRIMITIVES.items() if p.transcendental} <= FORMULAS.keys()


def test_expand_keeps_what_needs_no_change() -> None:
    """Expressions without transcendentals come back as the same object; guards and indices are
    looked into.
    """
    plain = apply("add", Ref("x", F32), const(1, F32))
    assert expand(plain, True) is plain
    position = Cast(apply("exp", Ref("x", F32)), I32)
    guard = Apply("lt", (apply("tanh", Ref("x", F32)), const(0, F32)), BOOL)
    load = expand(Load("b", (position,), F32, guard, const(0, F32)), True)
    assert isinstance(load, Load) and load.guard is not guard and load.index[0] is not position
    ops = {e.op for e in _objects(load).values() if isinstance(e, Apply)}
    assert not ops & {"exp", "tanh"}


def test_shared_arguments_stay_shared() -> None:
    """One exp used twice is expanded once."""
    e = apply("exp", Ref("x", F32))
    total = expand(apply("add", e, e), True)
    assert isinstance(total, Apply) and total.args[0] is total.args[1]
