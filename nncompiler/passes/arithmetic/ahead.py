"""What follows from parameters alone runs a step ahead of what wants it.

    kernel k0: %1 = … image …                 kernel k0: %w = … W …
    barrier                                   kernel k1: %1 = … image …
    kernel k1: %w = … W …              ──▶    barrier
    barrier                                   kernel k2: %2 = … %1 … %w …
    kernel k2: %2 = … %1 … %w …

Workers then meet once for each step that the inputs go through, not again for every copy and every
transform of weights: those are made beside the step before. Not far ahead, for they are to be read
while they are in cache. Only in a plan that writes no parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from nncompiler.ir.body import step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Kernel, Plan
from nncompiler.ir.lifetimes import roots_of
from nncompiler.ir.model import HEADER_BYTES
from nncompiler.passes.lowering.rewriting import numbered


def ahead(plan: Plan) -> Plan:
    """The plan with each such kernel in front of the step before the first that wants it."""
    touched = _touched(plan)
    early = list(early_steps(plan))
    if not any(early) or all(early):
        return plan
    order, number = list[tuple[int, bool, int]](), early.count(False)
    wanted: dict[str, int] = {}  # by the name of a buffer, the first step that reads it
    for n in reversed(range(len(plan.steps))):
        reads, writes = touched[n]
        number -= not early[n]
        place = number
        if early[n]:
            place = max(0, min((wanted[w] for w in writes if w in wanted), default=number) - 1)
        order.append((place, not early[n], n))
        wanted.update((r, min(place, wanted.get(r, place))) for r in reads)
    return replace(plan, steps=numbered(tuple(plan.steps[n] for *_, n in sorted(order))))


def early_steps(plan: Plan) -> Iterator[bool]:
    """Of each step whether it is a kernel that follows from parameters alone.

    What random draws lead to, by the seed and the count of steps in the state's header, is of the
    size of a batch as inputs are, and would wait in the arena.
    """
    touched = _touched(plan)
    known = {b.name for b in plan.buffers if is_given(b)}
    written = [n for _, writes in touched for n in writes]
    once = {n for n, times in Counter(written).items() if times == 1}
    changed = not known.isdisjoint(written)
    for step, (reads, writes) in zip(plan.steps, touched, strict=True):
        found = not changed and isinstance(step, Kernel)
        found = found and reads - writes <= known and writes <= once
        known |= writes if found else set()
        yield found


def is_given(b: Buffer) -> bool:
    """Whether it is there before the first step: a parameter or a constant."""
    return b.space == "constant" or (b.space == "state" and (b.offset or 0) >= HEADER_BYTES)


def _touched(plan: Plan) -> list[tuple[set[str], ...]]:
    """The buffers that each step reads, and those that it writes: what views stand for."""
    roots = roots_of(plan.table())
    return [
        tuple({roots[n] for n in names} for names in step_reads_and_writes(s)) for s in plan.steps
    ]
