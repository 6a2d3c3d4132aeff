"""Loops inside a loop of the plan that run backwards in every second round.

    loop t0 < 64 {                                              even t0: i0 = 0, 1, ..., 15
      kernel k5                                                 odd t0:  i0 = 15, 14, ..., 0
        for i0 < 16, i1 < 64 {
          acc = sum j < 256 { %h[t0,j] * %w.panels[i0,j,i1] }
          ...
        schedule contract: ... parallel i0 i1, parts 8    ──▶   ..., alternate t0, backwards j

A factor that every round reads from end to end, and that is larger than a cache, is never found in
it: what comes first was evicted by what came last. Read to and fro, what one round read last the
next one reads first, out of the cache. Steps of a parallel loop may run in any order; sums are
added up from the other end then, so that the nearest cache has their first terms. Which rounds do
is fixed by the counter, so any number of threads gives the same bits. Where more than two rows
multiply what was read, loading does not take longest; then it is read in ascending order, which
hardware prefetches best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nncompiler.ir.body import extents
from nncompiler.ir.kernel import Kernel, Loop, Plan, Step
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Load, axes_of
from nncompiler.passes.tiling.accesses import loads_below
from nncompiler.passes.tiling.reads import CACHE
from nncompiler.record import replace

#: Most rows that multiply a factor whose loads take longer than that.
_ROWS = 2


def alternate(plan: Plan) -> Plan:
    """The plan with such loops; the shared ones of contractions only."""
    steps = tuple(_visit(s, None) for s in plan.steps)
    return plan if steps == plan.steps else replace(plan, steps=steps)


def _visit(step: Step, around: Loop | None) -> Step:
    if isinstance(step, Loop):
        return replace(step, body=tuple(_visit(s, step) for s in step.body))
    if around is None or not _gains(step, around):
        return step
    schedule = replace(step.schedule, alternate=around.counter, backwards=_backwards(step))
    return replace(step, schedule=schedule)


def _gains(kernel: Kernel, around: Loop) -> bool:
    """Whether every round around the kernel reads the same again along its outermost shared loop,
    more than fits the first-level cache, and the counter is known to it.
    """
    form, schedule = contraction(kernel), kernel.schedule
    if form is None or schedule.strategy != "contract" or not schedule.parallel or around.parallel:
        return False
    found = [x for p in form.products for e in (p.a, p.b) for x in loads_below(e)]
    again = [x for x in found if around.counter not in axes_of(x)]
    sizes, outermost = extents(kernel), schedule.parallel[0]
    along = [_bytes(x, sizes) for x in again if outermost in axes_of(x)]
    few = sizes.get(schedule.register or "", 1) <= _ROWS
    return few and len(again) < len(found) and max(along, default=0) > CACHE


def _backwards(kernel: Kernel) -> str | None:
    """The axis of sums that may run backwards: of one loop, that takes every term."""
    form, schedule = contraction(kernel), kernel.schedule
    axes = {a.name for p in form.products for a in p.reduction} if form else set()
    if form is None or len(axes) != 1 or axes & {*schedule.vector} or schedule.pack:
        return None
    found = [x for p in form.products for e in (p.a, p.b) for x in loads_below(e)]
    guarded = any(x.guard is not None and axes & axes_of(x.guard) for x in found)
    bounded = any(axes & {*f.axes} for p in form.products for f in p.fold.within)
    return None if guarded or bounded else axes.pop()


def _bytes(load: Load, sizes: Mapping[str, int]) -> int:
    """Bytes of the elements that a load goes through."""
    return math.prod(n for axis, n in sizes.items() if axis in axes_of(load)) * load.dtype.bytes
