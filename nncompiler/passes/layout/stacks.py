"""Sequences that a loop goes along lie step by step in memory, whatever their axes are.

    buffer %15: f32[32,64,1024]           buffer %15: f32[32,64,1024] strides {1024,32768,1}
    loop t0 < 64 {                ──▶     loop t0 < 64 {
      … %15[i,t0,j] …                       … %15[i,t0,j] …

Written by batch, the rows of one step lie a whole sequence apart: each on a page of its own and,
at sizes that are powers of two, all in the same few sets of a cache. Only strides are changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from nncompiler.ir.body import loads, stores
from nncompiler.ir.kernel import Buffer, Loop, Plan
from nncompiler.ir.scalar import Affine
from nncompiler.ir.types import row_major
from nncompiler.record import replace


def stack_steps(plan: Plan) -> Plan:
    """The plan with the axes outermost that the counters of loops run along."""
    along: dict[str, dict[int, None]] = {}
    for step in plan.steps:
        if isinstance(step, Loop):
            for name, axes in _stepped(step, ()):
                along.setdefault(name, {}).update(dict.fromkeys(axes))
    bases = {b.base for b in plan.buffers}
    buffers = tuple(
        _stacked(b, tuple(along[b.name]))
        if b.name in along and b.space == "arena" and b.strides is None and b.name not in bases
        else b
        for b in plan.buffers
    )
    return plan if buffers == plan.buffers else replace(plan, buffers=buffers)


def _stepped(loop: Loop, counters: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Buffers and those of their axes that counters run along, the outermost counter first."""
    counters = (*counters, loop.counter)
    for step in loop.body:
        if isinstance(step, Loop):
            yield from _stepped(step, counters)
            continue
        places = [(x.buffer, x.index) for x in loads(step)]
        places += [(s.buffer, s.index) for s in stores(step)]
        for name, index in places:
            forms = [(d, i) for d, i in enumerate(index) if isinstance(i, Affine)]
            if axes := [d for c in counters for d, i in forms if i.coefficient(c)]:
                yield name, tuple(axes)


def _stacked(buffer: Buffer, first: tuple[int, ...]) -> Buffer:
    shape = buffer.type.shape
    order = (*first, *(d for d in range(len(shape)) if d not in first))
    steps = dict(zip(order, row_major(tuple(shape[d] for d in order)), strict=True))
    strides = tuple(steps[d] for d in range(len(shape)))
    return buffer if strides == row_major(shape) else replace(buffer, strides=strides)
