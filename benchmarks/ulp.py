"""Accuracy of the compiled transcendental functions: every f32 input, and samples of f64.

    python benchmarks/ulp.py                 all 2^32 inputs of each unary f32 function (minutes)
    python benchmarks/ulp.py --stride 997    every 997th input
    python benchmarks/ulp.py --level x86-64-v2 exp tanh

f32 is held against f64 functions of the C library, f64 against `longdouble` ones. Errors are in
units in the last place of the exact result; a wrong NaN or infinity counts as inf. sin and cos are
tested up to |x| = 1e5 (f32) and 1e9 (f64), where their bounds are promised.
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
from nncompiler.ir.kernel import Argument, Axis, Buffer, For, Kernel, Plan, Schedule, Store
from nncompiler.ir.model import EntryPoint, Program, lay_out
from nncompiler.ir.scalar import Affine, Load, apply
from nncompiler.ir.types import F32, F64, DType, TensorType
from nncompiler.runtime.artifact import open_artifact
from nncompiler.runtime.call import aligned

UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos")
CHUNK = 1 << 17
LIMIT = {F32: 1e5, F64: 1e9}

Function = Callable[..., np.ndarray]


def compiled(op: str, dtype: DType, target: Target) -> Function:
    """The primitive as an artifact that maps whole chunks."""
    names = ("x", "y")[: 2 if op == "pow" else 1]
    type = TensorType(dtype, (CHUNK,))
    at = (Affine.axis("i"),)
    value = apply(op, *(Load(n, at, dtype) for n in names))
    body = (For((Axis("i", CHUNK),), (Store("z", at, value),)),)
    buffers = tuple(Buffer(n, type, "argument") for n in (*names, "z"))
    arguments = (*(Argument(n, "input") for n in names), Argument("z", "output"))
    plan = Plan("f", arguments, buffers, (Kernel("k", body, Schedule(vector=("i",))),))
    program = Program("f", dtype, lay_out(dtype, (), ()), (EntryPoint("infer", "", plan),))
    native = open_artifact(build(program, target).so).lookup("f_infer")
    state = aligned(64)
    padded = [np.ones(CHUNK, dtype.numpy) for _ in (*names, "z")]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (state, state, *padded)]

    def run(*arrays: np.ndarray) -> np.ndarray:
        size = arrays[0].size
        for own, given in zip(padded, arrays, strict=False):
            own[:size] = given
        code = native(*pointers)
        assert code == 0 and state is not None
        return padded[-1][:size].copy()

    return run


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


def every_f32(stride: int) -> Iterator[tuple[np.ndarray]]:
    for start in range(0, 2**32, CHUNK * stride):
        stop = min(2**32, start + CHUNK * stride)
        yield (np.arange(start, stop, stride, dtype=np.uint32).view(np.float32),)


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
    if op == "erf" and dtype == F32:
        reference = compiled(op, F64, target)  # fast, and good to 1 ULP as its own row shows
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
    parser.add_argument("functions", nargs="*", default=[*UNARY, "pow"])
    parser.add_argument("--stride", type=int, default=1, help="test every STRIDEth f32")
    parser.add_argument("--samples", type=int, default=1 << 22, help="of f64, and of pow")
    parser.add_argument("--level", default="host", choices=NAMES)
    options = parser.parse_args()
    target = select(options.level)
    print(f"{target.name}\n\n| function | type | inputs | worst ULP | at | seconds |")
    print("|" + "---|" * 6)
    for dtype in (F32, F64):
        for op in options.functions:
            exhaustive = dtype == F32 and op != "pow"
            inputs = sampled(op, dtype, options.samples)
            if exhaustive:
                inputs = every_f32(options.stride)
            start = time.perf_counter()
            with np.errstate(all="ignore"):
                most, where, count = worst(op, dtype, target, inputs)
            seconds = time.perf_counter() - start
            place = ", ".join(f"{v:.9g}" for v in where)
            row = f"| {op} | {dtype} | {count} | {most:.2f} | {place} | {seconds:.0f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
