"""The verifier of a kernel's schedule: that it names axes, and asks for nothing that cannot be
done."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nncompiler.ir.kernel import Fold, For, Kernel, loads, statements
from nncompiler.ir.scalar import axes_of
from nncompiler.ir.verify import Diagnostic


def verify_schedule(
    kernel: Kernel, extents: Mapping[str, int], counters: Collection[str]
) -> list[Diagnostic]:
    """Every problem of the schedule of a kernel with axes of these extents, inside of plan loops
    with these counters."""
    schedule = kernel.schedule
    named = [*schedule.vector, *schedule.order, *schedule.parallel]
    named += [schedule.register] if schedule.register is not None else []
    problems: list[str | None] = [
        f"the schedule names '{name}', which is no axis"
        for name in dict.fromkeys(named) if name not in extents
    ]  # fmt: skip
    problems.append(_unrolled(kernel, extents))
    if schedule.parts and not schedule.parallel:
        problems.append("the schedule has parts of what is not parallel")
    if schedule.strategy == "contract":
        problems.append(_turned_sums(kernel))
    if schedule.alternate is not None:
        problems.append(_alternation(kernel, counters))
    return [Diagnostic(p, kernel) for p in problems if p is not None]


def _turned_sums(kernel: Kernel) -> str | None:
    """Why the sums of a contraction cannot be turned as its second vector axis says, if so."""
    schedule = kernel.schedule
    if len(schedule.vector) < 2:
        return None
    columns, *rows = schedule.vector
    if rows != [schedule.register] or schedule.pack:
        return "the schedule turns sums, but not to the register axis, or with packed columns"
    if rows[0] not in schedule.order or columns not in schedule.order:
        return "the schedule turns sums along axes that its order does not name"
    at, sums = schedule.order.index(rows[0]), _summed(kernel)
    if columns not in schedule.order[:at] or sums.intersection(schedule.order[: at + 1]):
        return "the schedule turns sums of columns whose loop is not around that of the rows"
    if rows[0] in schedule.parallel:
        return "the schedule turns sums whose rows workers share out"
    return None


def _summed(kernel: Kernel) -> set[str]:
    return {a.name for s in statements(kernel.body) if isinstance(s, Fold) for a in s.axes}


def _alternation(kernel: Kernel, counters: Collection[str]) -> str | None:
    """Why the loop of a kernel cannot run to and fro as its schedule says, if it cannot."""
    schedule, counter = kernel.schedule, kernel.schedule.alternate
    if schedule.strategy != "contract" or not schedule.parallel:
        return "the schedule alternates, but is no contraction with parallel loops"
    if counter not in counters or not any(counter in axes_of(x) for x in loads(kernel)):
        return f"the schedule alternates by '{counter}', which is no counter that it reads by"
    return None


def _unrolled(kernel: Kernel, extents: Mapping[str, int]) -> str | None:
    """What is wrong with the steps that the schedule takes at a time."""
    schedule = kernel.schedule
    axis = schedule.order[-1] if schedule.order else ""
    if schedule.strategy == "loops":
        axis = schedule.register or ""
        if schedule.unroll > 1 and axis in schedule.vector:
            return f"the steps of '{axis}' run over lanes and cannot stand side by side"
        for s in statements(kernel.body):
            independent = isinstance(s, For) and not s.ordered
            if isinstance(s, (For, Fold)) and not independent and axis in (a.name for a in s.axes):
                return f"the steps of '{axis}' depend on each other and cannot stand side by side"
    lanes = schedule.strategy != "loops" and schedule.order[-1:] == schedule.vector
    extent = extents.get(axis, 0)
    left = 0 if lanes else extent % max(1, schedule.unroll)  # of lanes, vectors are unrolled
    if schedule.unroll < 1 or schedule.unroll > 1 and (left or not extent):
        return f"the schedule unrolls {schedule.unroll} steps of an axis of {extent}"
    return None
