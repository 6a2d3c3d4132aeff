"""The verifier of schedules that say ``contract``: what register tiles have a form for.

The kernel is a sum of products; the axes of the tile fit its factors; the order names each axis
once, but for columns in blocks, which come twice; parallel axes stand before reductions, but for
one reduction around others, whose rounds have sums of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nncompiler.ir.kernel import Kernel, Schedule
from nncompiler.ir.nests import Contraction, contraction
from nncompiler.ir.scalar import axes_of
from nncompiler.ir.tile_roles import column_axis, factors, ordered


def contraction_problem(kernel: Kernel, extents: Mapping[str, int]) -> str | None:
    """Why a kernel, with axes of these extents, cannot run as its schedule says; if so."""
    form, schedule = contraction(kernel), kernel.schedule
    if form is None:
        return "the schedule is one of a sum of products, but the kernel is none"
    if len(schedule.vector) not in (1, 2) or schedule.tile is None or min(schedule.tile) < 1:
        return "the schedule is one of a sum of products, but has no vector axis, or no tile"
    return next(_problems(form, schedule, extents), None)


def _problems(form: Contraction, schedule: Schedule, extents: Mapping[str, int]) -> Iterator[str]:
    parallel = [a.name for a in ordered(form.parallel, schedule)]
    vector, register = schedule.vector[0], schedule.register
    if register is not None and (register not in parallel or register == vector):
        yield f"the rows of tiles cannot be '{register}', which is summed over, or has the lanes"
    columns = set[str | None]()
    for p in form.products:
        if (pair := factors(p, parallel, schedule)) is None:
            yield f"the factors of a product do not fit vector {vector}, register {register}"
            return
        found = column_axis(*pair, parallel, {a.name for a in p.reduction}, schedule)
        columns.add(found)
        inside = parallel[parallel.index(found) + 1 :] if schedule.pack and found else []
        for x in inside:
            if x != found and x in axes_of(pair[1]):
                yield f"the schedule packs '{found}' outside of '{x}', with which it varies"
    if len(columns) > 1 or None in columns:
        yield f"the sums along '{vector}' have no columns: an axis that one factor alone mentions"
        return
    yield from _order_problems(form, schedule, str(columns.pop()))
    if not all(extents[a.name] for p in form.products for a in (*form.parallel, *p.reduction)):
        yield "the schedule has tiles of an axis without elements"


def _order_problems(form: Contraction, schedule: Schedule, columns: str) -> Iterator[str]:
    """What is wrong with the loops around the tile, and their steps."""
    vector, order, unroll = schedule.vector[0], schedule.order, schedule.unroll
    rounds = _around(form, schedule)
    for name in dict.fromkeys(order):
        if order.count(name) > (2 if name == columns and not rounds else 1):
            yield f"the order of the schedule names '{name}' more than once"
    for p in form.products:
        last = ordered(p.reduction, schedule)[-1:]
        steps = last[0].extent if last else 0
        lanes = bool(last) and last[0].name == vector  # vectors of them are unrolled
        if unroll < 1 or unroll > 1 and not lanes and (not steps or steps % unroll):
            yield f"the schedule unrolls {unroll} steps of an axis of {steps}"
        if schedule.pack and vector != columns and not lanes:
            yield f"the schedule packs lines along '{vector}', which is not the innermost axis"
    if rounds:
        yield from _round_problems(form, schedule, rounds, columns)


def _around(form: Contraction, schedule: Schedule) -> list[str]:
    """Reduction axes that the order puts before parallel ones."""
    parallel = {a.name for a in form.parallel}
    behind = max((n for n, x in enumerate(schedule.order) if x in parallel), default=0)
    return [x for x in schedule.order[:behind] if x not in parallel]


def _round_problems(
    form: Contraction, schedule: Schedule, rounds: list[str], columns: str
) -> Iterator[str]:
    """What speaks against the rounds of a reduction axis."""
    axis = rounds[0]
    if len(rounds) > 1 or len(form.products) > 1:
        yield f"more than '{axis}' of one product would run around its tiles"
        return
    reduction = ordered(form.products[0].reduction, schedule)
    if len(reduction) < 2 or reduction[0].name != axis or axis == schedule.vector[0]:
        yield f"rounds of '{axis}' need the other reduction axes, and that of the lanes, inside"
    if schedule.pack and columns in schedule.order[schedule.order.index(axis) :]:
        yield f"the schedule packs '{columns}' inside of rounds of '{axis}'"
