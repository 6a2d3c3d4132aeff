"""Kernels of constants alone run while the model is compiled; what they make is a constant, too.

    buffer W state                             buffer W state
    buffer %w arena                            buffer %w state
    kernel k0: %w = … W …              ──▶
    barrier                                    kernel k0: %1 = … image … %w …
    kernel k1: %1 = … image … %w …

These are copies and transforms of weights that passes over plans put in front of what reads them.
Only for a plan whose parameters are constants (`passes.graph.freeze`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncompiler.ir.body import reads_and_writes, step_reads_and_writes
from nncompiler.ir.interp_kernel import run_kernel
from nncompiler.ir.interp_plan import array_of
from nncompiler.ir.kernel import Buffer, Kernel, Plan
from nncompiler.ir.lifetimes import roots_of
from nncompiler.ir.model import HEADER_BYTES
from nncompiler.ir.types import Array
from nncompiler.passes.arithmetic.ahead import early_steps, is_given
from nncompiler.passes.lowering.rewriting import numbered
from nncompiler.record import replace


def of_constants(kernel: Kernel, buffers: Mapping[str, Buffer]) -> bool:
    """Whether a kernel reads constants alone, so that it takes no time later."""
    reads, writes = reads_and_writes(kernel)
    return all(is_given(buffers[n]) for n in reads - writes)


def compute_constants(
    plan: Plan, values: Mapping[str, Array]
) -> tuple[Plan, dict[str, Array]]:
    """The plan without such kernels, and what it reads in the state, each as it lies in memory;
    `values` are those of the parameters. New buffers of the state have offset 64, for the time
    being.
    """
    table = plan.table()
    roots, results = roots_of(table), {a.buffer for a in plan.arguments}
    memory = {n: np.ascontiguousarray(a).reshape(-1) for n, a in values.items()}
    made, kept = set[str](), []

    def bytes_of(b: Buffer) -> Array:
        return np.frombuffer(b.data, np.uint8) if b.data else memory[b.name].view(np.uint8)

    known = {b.name for b in plan.buffers if b.name in values or b.space == "constant"}
    for step, early in zip(plan.steps, early_steps(plan), strict=True):
        reads, writes = step_reads_and_writes(step)
        from_numbers = not reads or any(roots[n] not in known for n in reads - writes)
        stays = from_numbers or not results.isdisjoint(roots[n] for n in writes)
        if not early or stays or not isinstance(step, Kernel):
            kept.append(step)  # what a number fills stays known by it, and results are stored
            continue
        made |= {roots[n] for n in writes}
        known |= made
        for n in made - memory.keys():
            memory[n] = np.zeros(_size(table[n]), table[n].type.dtype.numpy)
        arrays = {n: array_of(table[n], table, bytes_of) for n in reads | writes}
        run_kernel(step, arrays, {})
    read = {roots[n] for step in kept for n in step_reads_and_writes(step)[0]}
    buffers = tuple(
        replace(b, space="state", offset=HEADER_BYTES) if b.name in made else b
        for b in plan.buffers
        if roots[b.name] in read or roots[b.name] not in made | values.keys()
    )
    plan = replace(plan, buffers=buffers, steps=numbered(tuple(kept)))
    return plan, {b.name: memory[b.name] for b in buffers if b.name in memory}


def _size(b: Buffer) -> int:
    """Elements from the first to behind the last one."""
    return b.nbytes // b.type.dtype.bytes
