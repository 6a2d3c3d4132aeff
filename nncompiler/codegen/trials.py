"""One kernel under several schedules, each as a function of its own, to be run and timed.

`try0(tables, n)`, `try1(tables, n)` ... run the kernel n times, on the pointers of one table after
the other: as many as the kernel takes, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncompiler.codegen.elf.link import link
from nncompiler.codegen.kernel import KernelCode, emit_kernel
from nncompiler.codegen.objects.bundles import module_text
from nncompiler.codegen.objects.object_code import compile_module
from nncompiler.codegen.target import Target
from nncompiler.ir.kernel import Buffer, Kernel
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Trials:
    """A shared object with the functions `names`; and the buffers that each pointer of a table
    serves, those that share memory together.
    """

    so: bytes = field(repr=False)
    names: tuple[str, ...]
    pointers: tuple[tuple[str, ...], ...]


def trials(
    kernels: Sequence[Kernel],
    buffers: Mapping[str, Buffer],
    target: Target,
    counters: Mapping[str, int],
) -> Trials:
    """The functions for kernels that differ in their schedules alone, at these counters of the
    plan loops around them.
    """
    texts: list[str] = []
    declarations: set[str] = set()
    for n, kernel in enumerate(kernels):
        code = emit_kernel(kernel, buffers, target, f"kernel{n}")
        declarations |= code.declarations
        texts += [code.text, _repeated(code, n, target, counters)]
    names = tuple(f"try{n}" for n in range(len(kernels)))
    made = compile_module(module_text([*sorted(declarations), *texts]), target)
    return Trials(link([made], names, "trials.so", {}), names, code.pointers)


def _repeated(code: KernelCode, n: int, target: Target, counters: Mapping[str, int]) -> str:
    """The loop over calls of a kernel."""
    each, given = len(code.pointers), []
    lines = [
        f"define void @try{n}(ptr %tables, i64 %n) {target.attributes} {{",
        "entry:", "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]", f"  %first = mul i64 %i, {each}",
    ]  # fmt: skip
    for k in range(each):
        lines += [
            f"  %at{k} = add i64 %first, {k}",
            f"  %slot{k} = getelementptr ptr, ptr %tables, i64 %at{k}",
            f"  %p{k} = load ptr, ptr %slot{k}, align 8",
        ]
        given.append(f"ptr %p{k}")
    given += [f"i64 {counters[c]}" for c in code.counters]
    return "\n".join([
        *lines, f"  call void @kernel{n}({', '.join(given)})", "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %n", "  br i1 %more, label %loop, label %done",
        "done:", "  ret void", "}\n",
    ])  # fmt: skip
