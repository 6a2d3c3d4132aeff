"""The verifier of a kernel's schedule: that it names axes, and asks for nothing that cannot be
done."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nncompiler.ir.body import loads, statements
from nncompiler.ir.kernel import Fold, For, Kernel, Store
from nncompiler.ir.scalar import axes_of
from nncompiler.ir.verify import Diagnostic
from nncompiler.ir.verify_contraction import contraction_problem


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
    known = not problems
    if schedule.parts and not schedule.parallel:
        problems.append("the schedule has parts of what is not parallel")
    match schedule.strategy:
        case "contract":
            problems.append(_turned_sums(kernel))
            if known and problems[-1] is None:
                problems.append(contraction_problem(kernel, extents))
        case "turn":
            problems.append(_turn(kernel))
        case "loops":
            problems += [_unrolled(kernel, extents), _lanes(kernel)]
        case other:
            problems.append(f"no strategy is called '{other}'")
    if schedule.alternate is not None:
        problems.append(_alternation(kernel, counters))
    if schedule.backwards is not None:
        problems.append(_backwards(kernel))
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


def _backwards(kernel: Kernel) -> str | None:
    """Why the sums of a kernel cannot run to and fro as its schedule says, if they cannot."""
    schedule, axis = kernel.schedule, kernel.schedule.backwards
    if schedule.alternate is None:
        return "the schedule runs sums backwards, but in no rounds that alternate"
    if _summed(kernel) != {axis} or axis in schedule.vector or schedule.pack:
        return f"the schedule runs '{axis}' backwards, which is not the only loop of its sums"
    return None


def _turn(kernel: Kernel) -> str | None:
    """Why a copy cannot be turned by squares as its schedule says, if it cannot."""
    schedule = kernel.schedule
    match kernel.body:
        case (For(axes, (Store(),), ordered=False),) if len(schedule.vector) == 1:
            both = {*schedule.vector, schedule.register}
            if len(both) == 2 and both <= {a.name for a in axes} and schedule.unroll == 1:
                return None
    return "the schedule turns two axes of a copy, but the kernel is none, or has no such axes"


def _lanes(kernel: Kernel) -> str | None:
    """Why the lanes cannot run along the axes that the schedule says, if they cannot."""
    for s in statements(kernel.body):
        if isinstance(s, Fold) or isinstance(s, For) and not s.ordered:
            both = [a.name for a in s.axes if a.name in kernel.schedule.vector]
            if len(both) > 1:
                return f"axes '{both[0]}' and '{both[1]}' of one loop both run over lanes"
    return None


def _unrolled(kernel: Kernel, extents: Mapping[str, int]) -> str | None:
    """What is wrong with the steps of loops that the schedule takes at a time."""
    schedule, axis = kernel.schedule, kernel.schedule.register or ""
    if schedule.unroll > 1 and axis in schedule.vector:
        return f"the steps of '{axis}' run over lanes and cannot stand side by side"
    for s in statements(kernel.body):
        independent = isinstance(s, For) and not s.ordered
        if isinstance(s, (For, Fold)) and not independent and axis in (a.name for a in s.axes):
            return f"the steps of '{axis}' depend on each other and cannot stand side by side"
    extent = extents.get(axis, 0)
    if schedule.unroll < 1 or schedule.unroll > 1 and (not extent or extent % schedule.unroll):
        return f"the schedule unrolls {schedule.unroll} steps of an axis of {extent}"
    return None
