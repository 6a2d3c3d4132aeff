"""Nests, schedules and checks that tests of code generation share."""

from __future__ import annotations

import numpy as np

from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Store
from nncompiler.ir.machine import Machine
from nncompiler.ir.scalar import (
    Affine,
    Iota,
    Ref,
    apply,
    cast,
    const,
)
from nncompiler.ir.types import F32, F64
from nncompiler.passes.tiling.tile import choose_schedule
from tests.nest_harness import (
    AVX2,
    at,
    axes,
    buffer,
    kernel,
    load,
    run,
)

SIZES = (1, 2, 3, 15, 16, 17, 31, 33, 100)
TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
DTYPE = {np.float32: F32, np.float64: F64}
ROW, COLUMN = Affine.axis("i"), Affine.axis("j")


def scheduled(nest: Kernel, machine: Machine = AVX2, **arrays) -> Kernel:
    """The kernel with the schedule that the tiling pass chooses."""
    table = {n: buffer(n, a) for n, a in arrays.items()}
    chosen = choose_schedule(nest, table, machine)
    return Kernel(nest.name, nest.body, chosen)


def agrees(nest: Kernel, rtol: float = 2e-6, **arrays) -> None:
    """Compiled and interpreted runs of a kernel leave equal arrays (exactly equal integers)."""
    expected = {n: np.array(a) for n, a in arrays.items()}
    with np.errstate(all="ignore"):
        run_kernel(nest, expected, {})
    run(nest, **arrays)
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            scale = np.abs(
                expected[name], where=np.isfinite(expected[name]), out=np.zeros_like(array)
            ).max(initial=1)
            np.testing.assert_allclose(
                array, expected[name], rtol=rtol, atol=rtol * scale, err_msg=name
            )
        else:
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


def product(a: np.ndarray, b: np.ndarray, *epilogue, dtype=F32, **schedule) -> Kernel:
    """``c[i,j] = sum k { a[i,k] * b[k,j] }``, or another epilogue of ``acc``."""
    (m, k), n = a.shape, b.shape[1]
    fold = Fold(
        ("acc",), "sum", axes(k=k), (apply("mul", load("a", a, "i", "k"), load("b", b, "k", "j")),)
    )
    done = epilogue or (Store("c", at("i", "j"), Ref("acc", dtype)),)
    return kernel(For(axes(i=m, j=n), (fold, *done)), **schedule)


def matrices(rng, m, n, k, dtype, a_turned=False, b_turned=False):
    a = rng.standard_normal((k, m)).T if a_turned else rng.standard_normal((m, k))
    b = rng.standard_normal((n, k)).T if b_turned else rng.standard_normal((k, n))
    return a.astype(dtype, order="K"), b.astype(dtype, order="K"), np.zeros((m, n), dtype)


def check_product(nest, a, b, c):
    run(nest, a=a, b=b, c=c)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a).astype(np.float64) @ np.abs(b) * a.shape[1] * np.finfo(a.dtype).eps
    assert (np.abs(c - exact) <= bound + np.finfo(a.dtype).tiny).all()


def cross_entropy(z, y, loss) -> Kernel:
    """The loss and its gradient in place, as one nest."""
    n, c = z.shape
    shifted = apply("exp", apply("sub", load("z", z, "i", "j"), Ref("m", F32)))
    target = load("z", z, "i", load("y", y, "i"))
    hot = cast(apply("eq", Iota(COLUMN), load("y", y, "i")), F32)
    gradient = apply("div", apply("sub", apply("div", shifted, Ref("s", F32)), hot), const(n, F32))
    row = (
        Fold(("m",), "max", axes(j=c), (load("z", z, "i", "j"),)),
        Fold(("s",), "sum", axes(j=c), (shifted,)),
        Let("l", apply("sub", apply("add", Ref("m", F32), apply("log", Ref("s", F32))), target)),
        For(axes(j=c), (Store("z", at("i", "j"), gradient),)),
    )
    total = Fold(("t",), "sum", axes(i=n), (apply("div", Ref("l", F32), const(n, F32)),), row)
    return kernel(total, Store("loss", (), Ref("t", F32)))
