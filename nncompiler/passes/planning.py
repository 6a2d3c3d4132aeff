"""From a function to its plan: the passes over kernels and memory, in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from nncompiler.ir.graph import Function
from nncompiler.ir.kernel import Buffer, Kernel, Plan, Schedule
from nncompiler.ir.machine import Machine
from nncompiler.ir.model import StateLayout
from nncompiler.ir.types import Array
from nncompiler.passes.arithmetic.ahead import ahead
from nncompiler.passes.arithmetic.constants import compute_constants, of_constants
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
from nncompiler.passes.memory.loop_fusion import fuse_loops
from nncompiler.passes.parallel import share
from nncompiler.passes.tiling.alternate import alternate
from nncompiler.passes.tiling.split_rounds import split_rounds
from nncompiler.passes.tiling.tile import Pick, choose, tile_plan

#: The estimated cycles of a kernel; of its best schedule, and that.
Cost: TypeAlias = Callable[[Kernel, Mapping[str, Buffer]], float]
Best: TypeAlias = Callable[[Kernel, Mapping[str, Buffer]], tuple[float, Schedule]]


def plan_function(
    function: Function,
    layout: StateLayout,
    machine: Machine,
    direct: bool = False,
    pick: Pick | None = None,
) -> Plan:
    """Kernels in order, layouts, panels, tiles, memory, and what threads share; convolutions in
    their `direct` form, or transformed. The cost model chooses tiles, or `pick`.
    """
    best = _model(machine)

    def cost(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        return best(kernel, buffers)[0]

    plan = _arranged(schedule(function, layout), cost, machine, direct)
    return _finished(ahead(plan), best, machine, pick)


def plan_frozen(
    function: Function,
    layout: StateLayout,
    machine: Machine,
    direct: bool = False,
    values: Mapping[str, Array] | None = None,
    pick: Pick | None = None,
) -> tuple[Plan, dict[str, Array]]:
    """The plan where parameters have these constant `values`, and the bytes of all that it reads
    in the state, whose offsets are still to be given.
    """
    best = _model(machine)

    def cost(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
        return 0.0 if of_constants(kernel, buffers) else best(kernel, buffers)[0]

    plan = _arranged(schedule(function, layout), cost, machine, direct)
    plan, memory = compute_constants(plan, values or {})
    return _finished(plan, best, machine, pick), memory


def _model(machine: Machine) -> Best:
    def best(kernel: Kernel, buffers: Mapping[str, Buffer]) -> tuple[float, Schedule]:
        return choose(kernel, buffers, machine)

    return best


def _arranged(plan: Plan, cost: Cost, machine: Machine, direct: bool) -> Plan:
    """What is computed, and where it lies in memory."""
    plan = begin_sums(choose_layouts(stack_steps(plan), cost))
    plan = take_slices(pack_panels(plan, cost, machine.vector_bytes), cost)
    return plan if direct else winograd_gradients(winograd(plan, cost), cost)


def _finished(plan: Plan, best: Best, machine: Machine, pick: Pick | None) -> Plan:
    """How kernels run, and where buffers are."""
    plan = leave_out_zeros(split_rounds(plan, best))
    plan = fuse_loops(plan, lambda kernel, buffers: best(kernel, buffers)[0])
    plan = place(tile_plan(plan, machine, pick))
    return plan if plan.name == "init" else alternate(share(plan))
