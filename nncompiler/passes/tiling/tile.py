"""Choose how every kernel of a plan runs: which axis goes over SIMD lanes, and the register tile
of a contraction.

    schedule loops      ──▶      schedule contract: vector j, register i, tile 6x16, order j i | k

`contract` (with loops in the order of `order`) and `loops` compare the candidates.
Only schedules are changed. Of register tiles the cheapest is taken, or what a `Pick` says of the
best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.body import expressions, local_types, statements
from nncompiler.ir.fingerprint import fingerprint
from nncompiler.ir.kernel import Buffer, Kernel, Loop, Plan, Schedule, Step
from nncompiler.ir.machine import Machine
from nncompiler.ir.nests import contraction
from nncompiler.passes.tiling.contract import best_tiles
from nncompiler.passes.tiling.loops import LoopLanes, loop_order, transposition
from nncompiler.passes.tiling.order import Order
from nncompiler.passes.tiling.together import side_by_side
from nncompiler.record import replace

Buffers: TypeAlias = Mapping[str, Buffer]

#: Schedules to choose from, each with its cycles, the cheapest first; and which of them it is for
#: a kernel, in plan loops of these extents.
Candidates: TypeAlias = Sequence[tuple[float, Schedule]]
Pick: TypeAlias = Callable[[Kernel, Buffers, Candidates, Mapping[str, int]], Schedule]
#: So many tiles are there to pick from.
CANDIDATES = 8

#: The choices for kernels seen before, whatever their names were.
_CHOSEN: dict[Hashable, tuple[float, Schedule]] = {}
_CHOSEN_MOST = 4096


def tile_plan(plan: Plan, machine: Machine, pick: Pick | None = None) -> Plan:
    """The plan with a schedule for every kernel that has none yet; `pick` chooses between tiles.
    """
    buffers = plan.table()

    def chosen(kernel: Kernel, around: Mapping[str, int]) -> Schedule:
        schedule = choose_schedule(kernel, buffers, machine)
        if pick is None or schedule.strategy != "contract":
            return schedule
        return pick(kernel, buffers, tiles(kernel, buffers, machine, CANDIDATES), around)

    def visit(step: Step, around: Mapping[str, int]) -> Step:
        match step:
            case Loop(counter, extent):
                inside = {**around, counter: extent}
                return replace(step, body=tuple(visit(s, inside) for s in step.body))
            case Kernel(schedule=schedule) if schedule == Schedule():
                return replace(step, schedule=chosen(step, around))
            case Kernel():
                return step

    steps = tuple(visit(s, {}) for s in plan.steps)
    return plan if steps == plan.steps else replace(plan, steps=steps)


def choose_schedule(
    kernel: Kernel, buffers: Buffers, machine: Machine
) -> Schedule:
    """The cheapest schedule for one kernel."""
    return choose(kernel, buffers, machine)[1]


def choose(
    kernel: Kernel, buffers: Buffers, machine: Machine
) -> tuple[float, Schedule]:
    """The cheapest schedule and the cycles it is expected to take."""
    key = (fingerprint(kernel, buffers), machine)
    if key not in _CHOSEN:
        if len(_CHOSEN) >= _CHOSEN_MOST:
            _CHOSEN.clear()
        _CHOSEN[key] = _search(kernel, buffers, machine)
    return _CHOSEN[key]


def _search(
    kernel: Kernel, buffers: Buffers, machine: Machine
) -> tuple[float, Schedule]:
    if found := tiles(kernel, buffers, machine):
        return found[0]
    if (turned := transposition(kernel, buffers)) is not None:
        return turned
    widest = max((t.bytes for t in local_types(kernel).values()), default=4)
    for s in statements(kernel.body):
        widest = max([widest, *(e.dtype.bytes for e in expressions(s))])
    cost, vector = LoopLanes(buffers, machine.vector_bytes // widest).chosen(kernel.body)
    order = loop_order(kernel, buffers)
    rows, together = side_by_side(kernel.body, vector, order, machine.vector_bytes // widest)
    return cost, Schedule(vector=vector, register=rows, order=order, unroll=together)


def tiles(
    kernel: Kernel, buffers: Buffers, machine: Machine, most: int = 1
) -> list[tuple[float, Schedule]]:
    """The cheapest register tiles of a contraction, the best first; none for other kernels."""
    form = contraction(kernel)
    if form is None:
        return []
    lanes = machine.vector_bytes // form.products[0].a.dtype.bytes
    return best_tiles(Order(form, buffers, lanes, machine), most)
