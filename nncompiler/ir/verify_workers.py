"""The verifier of plans that several workers run: what is shared out may be, and nobody runs into
what another worker still writes or reads (`workers`).

Loops are looked at as two of their steps, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from nncompiler.ir.kernel import Kernel, Plan, Step
from nncompiler.ir.verify import Diagnostic
from nncompiler.ir.workers import split_problem, touched


def verify_workers(plan: Plan) -> list[Diagnostic]:
    """Every problem; without a split kernel there is none."""
    buffers = plan.table()
    split = {k.name: k for k in plan.kernels() if k.schedule.parallel}
    found = [
        Diagnostic(message, kernel)
        for kernel in split.values()
        if (message := split_problem(kernel, buffers)) is not None
    ]
    if found or not split:
        return found
    at_once: dict[str, Kernel] = {}
    accesses = {k.name: touched(k.body, buffers) for k in plan.kernels()}
    for kernel in _run(plan.steps):
        if kernel.barrier:
            at_once = {}
        for name in at_once:
            alone = name not in split and kernel.name not in split
            if not alone and accesses[name].clashes(accesses[kernel.name]):
                message = f"expected a barrier: other workers may still be in '{name}'"
                if (problem := Diagnostic(message, kernel)) not in found:
                    found.append(problem)
        at_once[kernel.name] = kernel
    return found


def _run(steps: tuple[Step, ...]) -> Iterator[Kernel]:
    for step in steps:
        if isinstance(step, Kernel):
            yield step
        else:
            yield from _run(step.body)
            yield from _run(step.body)
