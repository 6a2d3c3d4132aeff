"""The memory of a plan as a picture: a rectangle for each buffer at its offset while it lives."""

from __future__ import annotations

from nncompiler.ir.kernel import Plan
from nncompiler.ir.model import align
from nncompiler.passes.memory.allocation import Interval, Problem, Solution
from nncompiler.passes.memory.picture import svg


def memory_svg(plan: Plan, title: str) -> str:
    """The arena of `plan` as SVG; time counts kernels."""
    problem, solution = placement(plan)
    return svg(problem, solution, title, time_label="kernel")


def placement(plan: Plan) -> tuple[Problem, Solution]:
    """The arena as intervals and offsets. A buffer ends where another takes over its bytes."""
    intervals, offsets = [], []
    taken = {b.in_place_of: b.live[0] for b in plan.buffers if b.in_place_of and b.live}
    for b in plan.buffers:
        if b.space == "arena" and b.live is not None and b.offset is not None:
            end = taken.get(b.name, b.live[1] + 1)
            intervals.append(Interval(b.name, align(b.nbytes), b.live[0], end))
            offsets.append(b.offset)
    kernels = len(list(plan.kernels()))
    note = f"{kernels} kernel{'s' * (kernels != 1)}"
    return Problem(tuple(intervals), 64), Solution(tuple(offsets), plan.arena_bytes, note)
