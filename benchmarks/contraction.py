"""How close contractions come to this machine's FMA peak: ``python benchmarks/contraction.py``.

Every kernel has the schedule that the tiling pass chooses. The f32 peak (independent FMA chains in
registers) is measured before and after, and each figure is the best of many short runs, so that
other work on the machine disturbs little. Pins itself to one core.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nncompiler.codegen.kernel import KernelCode  # noqa: E402
from nncompiler.codegen.target import host  # noqa: E402
from nncompiler.ir.kernel import Fold, For, Kernel, Store  # noqa: E402
from nncompiler.ir.scalar import F32, Affine, Ref, apply  # noqa: E402
from nncompiler.passes.tile import choose_schedule  # noqa: E402
from tests.nest_harness import Compiled, at, axes, buffer, kernel, load  # noqa: E402

SECONDS = 1.0
CHAINS, STEPS = 12, 100_000


def best(call: Callable[[], None], flops: int) -> float:
    """FLOP/s of the fastest of many runs of about half a millisecond."""
    repeat = max(1, int(3e7 / flops))
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        for _ in range(repeat):
            call()
        fastest = min(fastest, (time.perf_counter() - start) / repeat)
    return flops / fastest


def peak_code() -> KernelCode:
    """A function of independent FMA chains."""
    lanes = host().vector_bytes // 4
    wide = f"<{lanes} x float>"
    size = range(CHAINS + 2)
    lines = [f"%p{n} = getelementptr {wide}, ptr %p, i64 {n}" for n in size]
    lines += [f"%x{n} = load {wide}, ptr %p{n}, align 4" for n in size]
    lines += ["br label %head", "head:", "%i = phi i64 [ 0, %entry ], [ %j, %head ]"]
    chains = range(CHAINS)
    lines += [f"%a{n} = phi {wide} [ %x{n}, %entry ], [ %b{n}, %head ]" for n in chains]
    fma = f"call {wide} @llvm.fma.v{lanes}f32"
    factors = f"{wide} %x{CHAINS}, {wide} %x{CHAINS + 1}"
    lines += [f"%b{n} = {fma}({wide} %a{n}, {factors})" for n in chains]
    lines += ["%j = add i64 %i, 1", f"%more = icmp ult i64 %j, {STEPS}"]
    lines += ["br i1 %more, label %head, label %done", "done:"]
    lines += [f"store {wide} %b{n}, ptr %p{n}, align 4" for n in chains]
    head = f"define internal void @kernel(ptr %p) {host().attributes} {{\nentry:\n"
    declared = f"declare {wide} @llvm.fma.v{lanes}f32({wide}, {wide}, {wide})"
    text = head + "\n".join([*lines, "ret void", "}"])
    return KernelCode(text, (("p",),), frozenset([declared]))


def peak() -> float:
    lanes = host().vector_bytes // 4
    data = np.full(lanes * (CHAINS + 2), 0.5, np.float32)
    call = Compiled.of_code(peak_code(), host()).bind({"p": data})
    return best(call, 2 * lanes * CHAINS * STEPS)


def aligned(*shape: int) -> np.ndarray:
    """Random numbers at a multiple of 64 bytes."""
    count = int(np.prod(shape))
    raw = np.random.default_rng(count).standard_normal(count + 16).astype(np.float32)
    return raw[(-raw.ctypes.data % 64) // 4 :][:count].reshape(shape)


def product(m: int, n: int, k: int, a_turned: bool = False, b_turned: bool = False):
    """``c[i,j] = sum k { a[i,k] * b[k,j] }``, its arrays and its number of operations."""
    a = aligned(k, m).T if a_turned else aligned(m, k)
    b = aligned(n, k).T if b_turned else aligned(k, n)
    c = aligned(m, n)
    term = apply("mul", load("a", a, "i", "k"), load("b", b, "k", "j"))
    loops = axes(**{x: e for x, e in (("i", m), ("j", n)) if e > 1})
    index = at("i" if m > 1 else 0, "j")
    if m == 1:
        term = apply("mul", load("a", a, 0, "k"), load("b", b, "k", "j"))
    fold = Fold(("acc",), "sum", axes(k=k), (term,))
    nest = kernel(For(loops, (fold, Store("c", index, Ref("acc", F32)))))
    return nest, {"a": a, "b": b, "c": c}, 2 * m * n * k


def convolution(batch: int, size: int, channels: int):
    """3x3, stride 1, NHWC with a halo."""
    x = aligned(batch, size + 2, size + 2, channels)
    w, y = aligned(3, 3, channels, channels), aligned(batch, size, size, channels)
    row, column = (Affine.axis(p) + Affine.axis(q) for p, q in ("hr", "ws"))
    term = apply("mul", load("x", x, "n", row, column, "c"), load("w", w, "r", "s", "c", "o"))
    fold = Fold(("acc",), "sum", axes(r=3, s=3, c=channels), (term,))
    store = Store("y", at("n", "h", "w", "o"), Ref("acc", F32))
    nest = kernel(For(axes(n=batch, h=size, w=size, o=channels), (fold, store)))
    return nest, {"x": x, "w": w, "y": y}, 2 * 9 * channels * y.size


CASES = [
    ("64 x 512 x 784", product(64, 512, 784)),
    ("64 x 256 x 512", product(64, 256, 512)),
    ("64 x 10 x 256", product(64, 10, 256)),
    ("784 x 512 x 64, A transposed", product(784, 512, 64, a_turned=True)),
    ("64 x 784 x 512, B transposed", product(64, 784, 512, b_turned=True)),
    ("64 x 256 x 10, B transposed", product(64, 256, 10, b_turned=True)),
    ("512 x 512 x 512", product(512, 512, 512)),
    ("1 x 512 x 784", product(1, 512, 784)),
    ("conv 3x3, 16 channels, 32 x 32", convolution(8, 32, 16)),
    ("conv 3x3, 64 channels, 8 x 8", convolution(32, 8, 64)),
]


def report(name: str, nest: Kernel, arrays: dict, flops: int, limit: float) -> None:
    table = {n: buffer(n, x) for n, x in arrays.items()}
    chosen = choose_schedule(nest, table, host().vector_bytes, host().registers)
    start = time.perf_counter()
    compiled = Compiled(Kernel(nest.name, nest.body, chosen), table)
    took = 1e3 * (time.perf_counter() - start)
    speed = best(compiled.bind(arrays), flops)
    tile = "x".join(map(str, chosen.tile or ())) or chosen.strategy
    how = f"{tile} {chosen.vector[0]}"
    share = 100 * speed / limit
    print(f"{name:32s} {how:10s} {speed / 1e9:7.1f} {share:6.1f} % {took:6.0f} ms", flush=True)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    limit = peak()
    print(f"{'contraction':32s} {'tile':10s} GFLOP/s of peak  compiled in")
    for name, case in CASES:
        report(name, *case, limit)
    print(f"{'FMA peak, before and after':43s} {limit / 1e9:7.1f} {peak() / 1e9:.1f}")


if __name__ == "__main__":
    main()
