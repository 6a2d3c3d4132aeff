"""Split the reduction axis whose rounds run around the tiles of a contraction, so that a round is
long enough for its accumulators to come from memory and short enough for its factors to stay in
cache; and its rows, so that these can be copied for all columns at once.

    acc = sum k < 32, l < 64 { … }                acc = sum k < 32, l0 < 16, l1 < 4 { … }
    schedule contract: … order j | l i k   ──▶    schedule contract: … order j | l0 i l1 k

The longest rounds are tried whose factors take half of the cache; whether they are better, the
schedules say (`tile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Buffer, Kernel, Loop, Plan, Schedule, Step
from nncompiler.ir.nests import Product, contraction
from nncompiler.ir.scalar import Load
from nncompiler.passes.lowering.rewriting import fresh, split_axis
from nncompiler.passes.tiling.accesses import stride_of
from nncompiler.passes.tiling.reads import CACHE, LINE, with_columns
from nncompiler.record import replace

Buffers: TypeAlias = Mapping[str, Buffer]
Choose: TypeAlias = Callable[[Kernel, Buffers], tuple[float, Schedule]]


#: Rounds of places in a window, where there were none, take no more than this part of the cycles:
#: their starts and ends are many.
WORTH = 0.95


def split_rounds(plan: Plan, choose: Choose) -> Plan:
    """The plan with rounds of the length for which the chosen schedules take least cycles."""
    buffers = plan.table()

    def visit(step: Step) -> Step:
        if isinstance(step, Loop):
            return replace(step, body=tuple(visit(s) for s in step.body))
        cycles, schedule = choose(step, buffers)
        longer, part = _longer(step, schedule, buffers)
        if longer != step and choose(longer, buffers)[0] < part * cycles:
            step, schedule = longer, choose(longer, buffers)[1]
        halves = _halves(step, schedule, buffers)
        wider = halves != step and choose(halves, buffers)[1].pack > schedule.pack
        return halves if wider else step

    steps = tuple(visit(s) for s in plan.steps)
    return plan if steps == plan.steps else replace(plan, steps=steps)


def _longer(kernel: Kernel, schedule: Schedule, buffers: Buffers) -> tuple[Kernel, float]:
    """The kernel with the rounds of its schedule in two parts, where it has any that can be; else
    in rounds. And less than which part of the cycles it must take.
    """
    for product, axis in _around(kernel, schedule):
        inside = math.prod(k.extent for k in product.reduction if k != axis)
        most = min(CACHE // 2 // (2 * LINE * inside), axis.extent // 2)
        for n in (n for n in range(most, 1, -1) if axis.extent % n == 0):
            return _split(kernel, axis, n), 1.0
        return kernel, 1.0
    return _in_rounds(kernel, schedule, buffers)


def _in_rounds(kernel: Kernel, schedule: Schedule, buffers: Buffers) -> tuple[Kernel, float]:
    """The kernel with a reduction axis in two parts, the one along which the rows' factor lies
    furthest apart, a line or more: so many lines that the next rows, in the same ones, do not find
    them again.
    """
    form = contraction(kernel)
    if form is None or schedule.strategy != "contract" or len(form.products) != 1:
        return kernel, 1.0
    product, columns = form.products[0], schedule.vector[0]
    a, _ = with_columns(product, columns)
    if not isinstance(a, Load) or columns not in [x.name for x in form.parallel]:
        return kernel, 1.0
    steps = [stride_of(a.index, buffers[a.buffer], k.name) or 0 for k in product.reduction]
    step, axis = max(zip(steps, product.reduction, strict=True), key=lambda x: x[0])
    if step * a.dtype.bytes < LINE:
        return kernel, 1.0
    inside = math.prod(k.extent for k in product.reduction if k != axis)
    most = min(CACHE // 2 // (2 * LINE * inside), axis.extent // 2)
    for n in (n for n in range(most, most // 2, -1) if axis.extent % n == 0):
        return _split(kernel, axis, n), WORTH if len(product.reduction) > 1 else 1.0
    return kernel, 1.0


def _halves(kernel: Kernel, schedule: Schedule, buffers: Buffers) -> Kernel:
    """The kernel with its rows in two parts instead of its columns, where rows are the wider
    side: each half then copies all columns, but every row is read, and copied, once.
    """
    for product, _ in _around(kernel, schedule):
        form, columns = contraction(kernel), schedule.vector[0]
        sizes = {a.name: a for a in form.parallel} if form else {}
        rows, across = sizes[schedule.register or ""], sizes[columns].extent
        a, _ = with_columns(product, columns)
        if not isinstance(a, Load) or stride_of(a.index, buffers[a.buffer], rows.name) != 1:
            continue
        again = -(-across // (schedule.pack or across)) - 1
        if across < again * rows.extent and rows.extent % 2 == 0:
            return _split(kernel, rows, rows.extent // 2)
    return kernel


def _split(kernel: Kernel, axis: Axis, size: int) -> Kernel:
    outer, inner = fresh(axis.name, kernel)
    parts = Axis(outer, axis.extent // size), Axis(inner, size)
    return replace(kernel, body=split_axis(kernel.body, axis.name, parts))


def _around(kernel: Kernel, schedule: Schedule) -> list[tuple[Product, Axis]]:
    """The reduction axis that the order of a schedule puts before its rows, columns over lanes."""
    form = contraction(kernel)
    if form is None or schedule.strategy != "contract":
        return []
    names = [a.name for a in form.parallel]
    if schedule.vector[0] not in names or schedule.register is None:
        return []
    before = schedule.order[: schedule.order.index(schedule.register)]
    return [(p, k) for p in form.products for k in p.reduction if k.name in before][:1]
