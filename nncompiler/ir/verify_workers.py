"""The verifier of plans that several workers run: what is shared out may be, and nobody runs into
what another worker still writes or reads (`workers`).

Loops are looked at as two of their steps, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from nncompiler.ir.kernel import Loop, Plan, Step
from nncompiler.ir.verify import Diagnostic
from nncompiler.ir.workers import (
    Unit,
    accessed,
    first_kernel,
    independent,
    is_split,
    split_problem,
    units,
)


def verify_workers(plan: Plan) -> list[Diagnostic]:
    """Every problem; without anything that is shared there is none."""
    buffers = plan.table()
    split = [u for u in units(plan.steps) if is_split(u)]
    found = [Diagnostic(text, u) for u in split if (text := _problem(u, plan)) is not None]
    if found or not split:
        return found
    at_once: dict[str, Unit] = {}
    accesses = {first_kernel(u): accessed(u, buffers) for u in units(plan.steps)}
    for unit in _run(plan.steps):
        own = first_kernel(unit)
        if unit.barrier:
            at_once = {}
        for name, other in at_once.items():
            alone = not is_split(other) and not is_split(unit)
            if not alone and accesses[name].clashes(accesses[own]):
                message = f"expected a barrier: other workers may still be in '{name}'"
                if (problem := Diagnostic(message, unit)) not in found:
                    found.append(problem)
        at_once[own] = unit
    return found


def _problem(unit: Unit, plan: Plan) -> str | None:
    """Why a unit cannot be shared out as it says."""
    if not isinstance(unit, Loop):
        return split_problem(unit, plan.table())
    if not independent(unit, plan.table()):
        return "its rounds are not independent, so workers cannot share them out"
    inside = units(unit.body)
    if any(is_split(u) or u.barrier for u in inside):
        return "one worker runs a round, but something in it is shared, or has a barrier"
    return None


def _run(steps: tuple[Step, ...]) -> Iterator[Unit]:
    for step in steps:
        if isinstance(step, Loop) and not step.parallel:
            yield from _run(step.body)
            yield from _run(step.body)
        else:
            yield step
