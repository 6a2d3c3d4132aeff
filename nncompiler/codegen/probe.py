"""Code that does nothing but run into a limit of the machine, to measure that limit.

`fma(p, n, mask)` runs n steps of independent chains of multiply-adds in registers; `read(p, n,
mask)` loads and adds n blocks, block i at i & mask, so that an array of a power of two is read
again and again. Both are one loop of explicit vectors, as wide as the target's.
"""

from __future__ import annotations

from nncompiler.codegen.elf.link import link
from nncompiler.codegen.objects.bundles import module_text
from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.target import Target

#: Enough to hide the latency (4 cycles on 2 units); with both operands they fit 16 registers.
CHAINS = 12
#: Vectors of one block.
READS = 8


def library(target: Target) -> bytes:
    """A shared object with both functions."""
    text = module_text([fma_text(target), read_text(target)])
    return link([compile_module(text, target)], ["fma", "read"], "probe.so", {})


def lanes(target: Target) -> int:
    """Numbers of f32 in a vector."""
    return target.vector_bytes // 4


def fma_text(target: Target) -> str:
    """The array holds the chains' first values, a factor and a summand; it is written last."""
    v = f"<{lanes(target)} x float>"
    ids = range(CHAINS)
    at = [f"  %p{i} = getelementptr {v}, ptr %p, i64 {i}" for i in range(CHAINS + 2)]
    loads = [f"  %x{i} = load {v}, ptr %p{i}, align 4" for i in range(CHAINS + 2)]
    phis = [f"  %a{i} = phi {v} [ %x{i}, %entry ], [ %b{i}, %loop ]" for i in ids]
    last = f"{v} %x{CHAINS}, {v} %x{CHAINS + 1}"
    call = f"call {v} @llvm.fmuladd.v{lanes(target)}f32"
    steps = [f"  %b{i} = {call}({v} %a{i}, {last})" for i in ids]
    stores = [f"  store {v} %b{i}, ptr %p{i}, align 4" for i in ids]
    declare = f"declare {v} @llvm.fmuladd.v{lanes(target)}f32({v}, {v}, {v})\n"
    return declare + _counted("fma", target, [*at, *loads], phis, steps, stores)


def read_text(target: Target) -> str:
    v = f"<{lanes(target)} x float>"
    ids = range(READS)
    phis = [f"  %a{i} = phi {v} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in ids]
    steps = ["  %block = and i64 %i, %mask", f"  %base = mul i64 %block, {READS}"]
    for i in ids:
        steps += [
            f"  %o{i} = add i64 %base, {i}", f"  %q{i} = getelementptr {v}, ptr %p, i64 %o{i}",
            f"  %y{i} = load {v}, ptr %q{i}, align 4", f"  %b{i} = fadd {v} %a{i}, %y{i}",
        ]  # fmt: skip
    sums = [f"  %s{i} = fadd {v} %{'b0' if i == 1 else f's{i - 1}'}, %b{i}" for i in ids if i]
    # A volatile store, so that all loads are needed.
    sums.append(f"  store volatile {v} %s{READS - 1}, ptr %sink")
    return _counted("read", target, [f"  %sink = alloca {v}"], phis, steps, sums)


def _counted(
    name: str, target: Target, before: list[str], phis: list[str], body: list[str],
    after: list[str],
) -> str:  # fmt: skip
    """A function (pointer, n, mask) with one loop of n rounds."""
    return "\n".join([
        f"define void @{name}(ptr %p, i64 %n, i64 %mask) {target.attributes} {{",
        "entry:", *before, "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]", *phis, *body,
        "  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done", "done:", *after, "  ret void", "}\n",
    ])  # fmt: skip
