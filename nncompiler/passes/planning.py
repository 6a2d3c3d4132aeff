"""From a function to its plan: the passes over kernels and memory, in their order."""

from __future__ import annotations

from collections.abc import Mapping

from nncompiler.ir.graph import Function
from nncompiler.ir.kernel import Buffer, Kernel, Plan, Schedule
from nncompiler.ir.model import StateLayout
from nncompiler.passes.arithmetic.ahead import ahead
from nncompiler.passes.arithmetic.known_zeros import leave_out_zeros
from nncompiler.passes.arithmetic.partial_sums import begin_sums
from nncompiler.passes.arithmetic.slices import take_slices
from nncompiler.passes.arithmetic.winograd import winograd
from nncompiler.passes.arithmetic.winograd_gradient import winograd_gradients
from nncompiler.passes.layout.images import choose_layouts
from nncompiler.passes.layout.panels import pack_panels
from nncompiler.passes.layout.stacks import stack_steps
from nncompiler.passes.lowering.schedule import schedule
from nncompiler.passes.memory.arena import place
from nncompiler.passes.parallel import share
from nncompiler.passes.tiling.alternate import alternate
from nncompiler.passes.tiling.split_rounds import split_rounds
from nncompiler.passes.tiling.tile import choose, tile_plan


def plan_function(
    function: Function,
    layout: StateLayout,
    vector_bytes: int,
    registers: int,
    direct: bool = False,
) -> Plan:
    """Kernels in order, layouts, panels, tiles, memory, and what threads share; convolutions in
    their `direct` form, or transformed.
    """

    def best(kernel: Kernel, buffers: Mapping[str, Buffer]) -> tuple[float, Schedule]:
        return choose(kernel, buffers, vector_bytes, registers)

    def cost(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        return best(kernel, buffers)[0]

    plan = stack_steps(schedule(function, layout))
    plan = begin_sums(choose_layouts(plan, cost))
    plan = take_slices(pack_panels(plan, cost, vector_bytes), cost)
    if not direct:
        plan = winograd_gradients(winograd(plan, cost), cost)
    plan = split_rounds(ahead(plan), best)
    plan = leave_out_zeros(plan)
    plan = tile_plan(plan, vector_bytes, registers)
    plan = place(plan)
    return plan if function.name == "init" else alternate(share(plan))
