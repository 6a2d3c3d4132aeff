"""The machine's limits, measured in the same run: multiply-adds per second and read bandwidth.

A probe is `fma` (independent chains in registers) or `read` (loads and additions over an array
whose size is a power of two), written as explicit vectors and run on each thread at once.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np

from harness.implementation import Implementation
from harness.workload import Array, Arrays, Workload

#: Multiply-add instructions of one `fma` call on each thread: some milliseconds.
FMA_STEPS = 1_000_000
#: Enough to hide the latency (4 cycles on 2 units); with both operands they fit 16 registers.
CHAINS = 12
READS = 8
#: What one `read` call reads at least, an array that is smaller again and again.
READ_BYTES = 32 << 20


class Limits(Implementation):
    """`call` runs the probe once on each thread."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.lanes = 16 if llvm.get_host_cpu_features().get("avx512f") else 8
        self.engine = compiled(fma_kernel(self.lanes) + read_kernel(self.lanes))
        self.pool = ThreadPoolExecutor(threads)

    def versions(self) -> dict[str, str]:
        return {"LLVM": ".".join(map(str, llvm.llvm_version_info))}

    def prepare(
        self, workload: Workload, kind: str, batch: int, weights: Arrays | None, data: Arrays
    ) -> str:
        self.probe("fma")
        return f"{8 * self.lanes * 4}-bit vectors"

    def probe(self, name: str, size: int = 0) -> float:
        """Choose a probe; the operations, or bytes, that one call does."""
        if name == "fma":
            size, steps, mask = 4 * self.lanes * (CHAINS + 2), FMA_STEPS // CHAINS, 0
            per_call = 2.0 * self.lanes * CHAINS * steps * self.threads
        else:
            block = 4 * self.lanes * READS
            steps, mask = max(size, READ_BYTES) // block, size // block - 1
            per_call = float(block * steps * self.threads)
        self.arrays = [aligned(size) for _ in range(self.threads)]
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        kernel = kind(self.engine.get_function_address(name))
        pointers = [array.ctypes.data for array in self.arrays]

        def single() -> None:
            kernel(pointers[0], steps, mask)

        def several() -> None:
            list(self.pool.map(lambda p: kernel(p, steps, mask), pointers))

        self.call = single if self.threads == 1 else several
        return per_call

    def reset(self) -> None:
        pass

    def value(self) -> Array:
        raise NotImplementedError


def aligned(size: int) -> Array:
    """`size` bytes of f32 one half, at a multiple of 64: x·½ + ½ stays in range."""
    memory = np.full(size // 4 + 16, 0.5, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size // 4]


def fma_kernel(lanes: int) -> str:
    """`fma(p, n, …)`: n steps of all chains, the results stored so that they are needed."""
    v = f"<{lanes} x float>"
    ids = range(CHAINS)
    at = [f"  %p{i} = getelementptr {v}, ptr %p, i64 {i}" for i in range(CHAINS + 2)]
    loads = [f"  %x{i} = load {v}, ptr %p{i}" for i in range(CHAINS + 2)]
    phis = [f"  %a{i} = phi {v} [ %x{i}, %entry ], [ %b{i}, %loop ]" for i in ids]
    last = f"{v} %x{CHAINS}, {v} %x{CHAINS + 1}"
    steps = [f"  %b{i} = call {v} @llvm.fmuladd.v{lanes}f32({v} %a{i}, {last})" for i in ids]
    stores = [f"  store {v} %b{i}, ptr %p{i}" for i in ids]
    declare = f"declare {v} @llvm.fmuladd.v{lanes}f32({v}, {v}, {v})\n"
    return declare + counted("fma", [*at, *loads], phis, steps, stores)


def read_kernel(lanes: int) -> str:
    """`read(p, n, mask)`: n blocks of loads, added up; block i is at i & mask."""
    v = f"<{lanes} x float>"
    ids = range(READS)
    phis = [f"  %a{i} = phi {v} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in ids]
    steps = ["  %block = and i64 %i, %mask", f"  %base = mul i64 %block, {READS}"]
    for i in ids:
        steps += [
            f"  %o{i} = add i64 %base, {i}", f"  %q{i} = getelementptr {v}, ptr %p, i64 %o{i}",
            f"  %y{i} = load {v}, ptr %q{i}", f"  %b{i} = fadd {v} %a{i}, %y{i}",
        ]  # fmt: skip
    sums = [f"  %s{i} = fadd {v} %{'b0' if i == 1 else f's{i - 1}'}, %b{i}" for i in ids if i]
    # A volatile store, so that all loads are needed.
    sums.append(f"  %sink = alloca {v}\n  store volatile {v} %s{READS - 1}, ptr %sink")
    return counted("read", [], phis, steps, sums)


def counted(
    name: str, before: list[str], phis: list[str], body: list[str], after: list[str]
) -> str:
    """A function (pointer, n, mask) with one loop of n rounds."""
    return "\n".join([
        f"define void @{name}(ptr %p, i64 %n, i64 %mask) {{",
        "entry:", *before, "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]", *phis, *body,
        "  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done", "done:", *after, "  ret void", "}\n",
    ])  # fmt: skip


def compiled(text: str) -> llvm.ExecutionEngine:
    """Machine code for this host; LLVM is given no licence to change the loops."""
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3,
        reloc="pic", codemodel="small",
    )  # fmt: skip
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine
