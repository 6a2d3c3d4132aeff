"""Accuracy of the compiled transcendental functions: every f32 input, and samples of f64.

    python benchmarks/ulp.py                 all 2^32 inputs of each unary f32 function
    python benchmarks/ulp.py --stride 997    every 997th input
    python benchmarks/ulp.py --level x86-64-v2 exp tanh

f64 (and pow) is held against the C library's `longdouble` (and f64) functions, f32 against the f64
formulas so tested. Errors are in units in the last place of the exact result; a wrong NaN or
infinity counts as inf. sin and cos are tested up to |x| = 1e5 (f32) and 1e9 (f64), where their
bounds are promised. `1+erf` and `exp(-xx)` are forms of their own: the error of the first, f32
alone, is in units of 2^-23; that of the second counts from the rounded square.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from nncompiler.codegen.emit import build
from nncompiler.codegen.target import NAMES, Target, select
from nncompiler.ir.kernel import Argument, Axis, Buffer, For, Kernel, Let, Plan, Schedule, Store
from nncompiler.ir.model import EntryPoint, Program, lay_out
from nncompiler.ir.scalar import Affine, Bitcast, Cast, Expr, Iota, Load, Ref, apply, const
from nncompiler.ir.types import F32, F64, U32, U64, DType, TensorType
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.call import aligned

UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos")
#: Expressions with formulas of their own, tried in f32.
FORMS: dict[str, Callable[[Expr], Expr]] = {
    "1+erf": lambda x: apply("add", const(1, x.dtype), apply("erf", x)),
    "exp(-xx)": lambda x: apply("exp", apply("neg", apply("mul", x, x))),
}
CHUNK = 1 << 17
LIMIT = {F32: 1e5, F64: 1e9}

Function = Callable[..., np.ndarray]


def native(kernel: Kernel, buffers: tuple[Buffer, ...], target: Target, *arrays: np.ndarray
           ) -> Callable[[], None]:
    """The kernel as an artifact, bound to its arrays; the last buffer is the output."""
    roles = ["input"] * (len(buffers) - 1) + ["output"]
    arguments = tuple(Argument(b.name, r) for b, r in zip(buffers, roles, strict=True))
    plan = Plan("f", arguments, buffers, (kernel,))
    program = Program("f", F32, lay_out(F32, (), ()), (EntryPoint("infer", "", plan),))
    function = open_artifact(build(program, target).so).lookup("f_infer")
    kept = (aligned(64), *arrays)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (kept[0], *kept)]

    def run() -> None:
        assert function(*pointers) == 0 and kept

    return run


def compiled(op: str, dtype: DType, target: Target) -> Function:
    """The primitive over arrays of at most a chunk."""
    names = ("x", "y")[: 2 if op == "pow" else 1]
    at = (Affine.axis("i"),)
    body = (Store("z", at, apply(op, *(Load(n, at, dtype) for n in names))),)
    kernel = Kernel("k", (For((Axis("i", CHUNK),), body),), Schedule(vector=("i",)))
    type = TensorType(dtype, (CHUNK,))
    arrays = [np.ones(CHUNK, dtype.numpy) for _ in (*names, "z")]
    buffers = tuple(Buffer(n, type, "argument") for n in (*names, "z"))
    run = native(kernel, buffers, target, *arrays)

    def call(*given: np.ndarray) -> np.ndarray:
        size = given[0].size
        for own, array in zip(arrays, given, strict=False):
            own[:size] = array
        run()
        return arrays[-1][:size].copy()

    return call


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _erf(x: np.ndarray) -> np.ndarray:
    """f64: exact enough for f32 results, and to half a unit for f64 ones."""
    return np.fromiter(map(math.erf, x.tolist()), x.dtype, x.size)


REFERENCE: dict[str, Function] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": _sigmoid, "erf": _erf,
    "sin": np.sin, "cos": np.cos, "pow": np.power,
}


def errors(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """|got - wanted| in units in the last place of `wanted`, which is of a wider type."""
    info = np.finfo(got.dtype)
    if wanted.dtype == np.float64:
        binade = (wanted.view(np.uint64) & np.uint64(0x7FF0_0000_0000_0000)).view(np.float64)
    else:
        finite = np.where(np.isfinite(wanted), wanted, 1)
        binade = np.ldexp(np.ones_like(wanted), np.frexp(finite)[1] - 1)
    unit = np.clip(binade, float(info.tiny), 2.0 ** (info.maxexp - 1)) * 2.0**-info.nmant
    error = np.abs(got.astype(wanted.dtype) - wanted) / unit
    top = np.abs(wanted) >= float(info.max) * (1 + wanted.dtype.type(info.eps) / 4)
    overflow = top & (np.abs(got) >= info.max) & (np.sign(got) == np.sign(wanted))
    exact = (got == wanted) | (np.isnan(got) & np.isnan(wanted)) | overflow
    return np.where(exact, 0, np.where(np.isnan(error), np.inf, error))


def exhaustive(op: str, target: Target, stride: int) -> tuple[float, tuple[np.ndarray, ...], int]:
    """The largest error of an f32 function, where, and among how many inputs.

    All in one kernel, which makes the inputs from their bits and compares with the f64 formula;
    that is a thousand times more accurate, as the rows for f64 show.
    """
    bits = Bitcast(
        apply("add", Load("first", (), U32),
              apply("mul", Cast(Iota(Affine.axis("i")), U32), const(stride, U32))), F32)
    x = Let("x", bits)
    body = (x, Store("error", (Affine.axis("i"),), _error(op, Ref("x", F32))))
    kernel = Kernel("k", (For((Axis("i", CHUNK),), body),), Schedule(vector=("i",)))
    buffers = (Buffer("first", TensorType(U32), "argument"),
               Buffer("error", TensorType(F32, (CHUNK,)), "argument"))
    first, found = np.zeros((), np.uint32), np.zeros(CHUNK, np.float32)
    run = native(kernel, buffers, target, first, found)
    most, where = -1.0, 0
    for start in range(0, 2**32, CHUNK * stride):
        first[...] = start
        run()
        part = found[: -(-(2**32 - start) // stride)]
        if part.max() > most:
            most, where = float(part.max()), start + int(part.argmax()) * stride
    return most, (np.uint32(where).view(np.float32),), -(-(2**32) // stride)


def _error(op: str, x: Expr) -> Expr:
    """|f(x) - f64 f(x)| in units in the last place of f32; 0 beyond the promised range."""

    def wide(value: float) -> Expr:
        return const(value, F64)

    def clamped(value: Expr) -> Expr:
        low = apply("max", value, wide(-(2.0**128)))
        return apply("min", low, wide(2.0**128))

    if op == "exp(-xx)":
        got = Cast(FORMS[op](x), F64)
        wanted = apply("exp", Cast(apply("neg", apply("mul", x, x)), F64))
    else:
        of = FORMS.get(op, lambda x: apply(op, x))
        got, wanted = Cast(of(x), F64), of(Cast(x, F64))
    binade = Bitcast(
        apply("and", Bitcast(wanted, U64), const(0x7FF0_0000_0000_0000, U64)), F64)
    unit = apply("mul", apply("min", apply("max", binade, wide(2.0**-126)), wide(2.0**127)),
                 wide(2.0**-23))
    if op == "1+erf":
        unit = wide(2.0**-23)
    distance = apply("abs", apply("sub", clamped(got), clamped(wanted)))
    nan = [apply("ne", v, v) for v in (got, wanted)]
    error = apply("select", nan[0], wide(math.inf), apply("div", distance, unit))
    error = apply("select", nan[1], apply("select", nan[0], wide(0), wide(math.inf)), error)
    if op in ("sin", "cos"):
        inside = apply("le", apply("abs", x), const(LIMIT[F32], F32))
        error = apply("select", inside, error, wide(0))
    return Cast(error, F32)


def sampled(op: str, dtype: DType, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Random bits, then values where the function varies."""
    rng = np.random.default_rng(1)
    info = np.finfo(dtype.numpy)
    bits = np.uint64 if dtype == F64 else np.uint32
    for _ in range(0, count, CHUNK):
        x = rng.integers(0, np.iinfo(bits).max, CHUNK, bits, endpoint=True).view(dtype.numpy)
        if op != "pow":
            yield (x,)
            span = {"exp": 745.0, "sigmoid": 745.0, "log": 4.0, "sin": 1e3, "cos": 1e3}
            yield (rng.uniform(-1, 1, CHUNK) * span.get(op, 8.0),)
            continue
        x = np.abs(x)
        x[::2] = rng.uniform(0.5, 2, CHUNK // 2)
        exponent = rng.uniform(info.minexp - info.nmant, info.maxexp, CHUNK) * math.log(2)
        yield x, (exponent / np.log(x)).astype(dtype.numpy)


def worst(op: str, dtype: DType, target: Target, inputs: Iterator[tuple[np.ndarray, ...]]
          ) -> tuple[float, tuple[np.ndarray, ...], int]:
    """The largest error, where, and among how many inputs."""
    function = compiled(op, dtype, target)
    wide = np.float64 if dtype == F32 else np.longdouble
    reference = REFERENCE[op]
    most, where, count = 0.0, (np.zeros(()),), 0
    for arrays in inputs:
        if op in ("sin", "cos"):
            arrays = (arrays[0][~(np.abs(arrays[0]) > LIMIT[dtype])],)
        if not arrays[0].size:
            continue
        got, exact = function(*arrays), reference(*(a.astype(wide) for a in arrays))
        found = errors(got, exact)
        count += got.size
        at = int(np.argmax(found))
        if found[at] > most:
            most, where = float(found[at]), tuple(a[at] for a in arrays)
    return most, where, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("functions", nargs="*", default=[*UNARY, *FORMS, "pow"])
    parser.add_argument("--stride", type=int, default=1, help="test every STRIDEth f32")
    parser.add_argument("--samples", type=int, default=1 << 22, help="of f64, and of pow")
    parser.add_argument("--level", default="host", choices=NAMES)
    options = parser.parse_args()
    target = select(options.level)
    print(f"{target.name}\n\n| function | type | inputs | worst ULP | at | seconds |")
    print("|" + "---|" * 6)
    for dtype in (F32, F64):
        for op in options.functions:
            if op in FORMS and dtype != F32:
                continue
            start = time.perf_counter()
            with np.errstate(all="ignore"):
                if dtype == F32 and op != "pow":
                    most, where, count = exhaustive(op, target, options.stride)
                else:
                    inputs = sampled(op, dtype, options.samples)
                    most, where, count = worst(op, dtype, target, inputs)
            seconds = time.perf_counter() - start
            place = ", ".join(f"{v:.9g}" for v in where)
            row = f"| {op} | {dtype} | {count} | {most:.2f} | {place} | {seconds:.0f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
