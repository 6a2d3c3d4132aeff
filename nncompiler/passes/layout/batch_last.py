"""Convolutions over whole vectors of the batch: its images are stored with the batch last.

    buffer %4: f32[64,6,30,30] arena  ──▶  buffer %4: f32[64,6,30,30] strides {1,57600,1920,64}

However few the channels and whatever the window, neighbouring lanes do the same, and what lies
outside a padded image is outside for all of them. Inputs are copied once, in front of everything.
"""

from __future__ import annotations

from nncompiler.ir.body import reads_and_writes
from nncompiler.ir.kernel import Argument, Buffer, Kernel, Plan, Step
from nncompiler.passes.layout.strides import (
    PACKED,
    Buffers,
    copy_of,
    follow,
    viewed,
)
from nncompiler.passes.lowering.order import root_name
from nncompiler.passes.lowering.rewriting import numbered, reading
from nncompiler.record import replace

#: Strides that are a multiple of this many bytes meet in few sets of a cache.
_SETS = 512
_LINE = 64


def batch_last(plan: Plan, region: frozenset[str]) -> Plan | None:
    """The plan with the region's buffers moved and its inputs copied; None where a view cannot
    follow.
    """
    for padded in (True, False):
        table = plan.table()
        for name in region:
            table[name] = _moved(table[name], padded and not viewed(name, table))
        if all(follow(b, table) for b in plan.buffers if b.space == "view"):
            batch = {table[n].type.shape[0] for n in region}
            return _pack_inputs(plan, table, region, batch.pop())
    return None


def _moved(buffer: Buffer, padded: bool) -> Buffer:
    shape, size = buffer.type.shape, buffer.type.dtype.bytes
    strides, step = [1], shape[0]
    for n in reversed(shape[1:]):
        if padded and step * size % _SETS == 0 and n > 1:
            step += _LINE // size
        strides.insert(1, step)
        step *= n
    return replace(buffer, strides=tuple(strides))


def _pack_inputs(
    plan: Plan, table: dict[str, Buffer], region: frozenset[str], batch: int
) -> Plan:
    """Copy arguments that kernels of the region read as images, once, in front of everything."""
    names = {n for n in table if root_name(table, n) in region}
    given = [a for a in plan.arguments if a.role != "output"]
    images = {a.buffer for a in given if _is_image(table, a, batch)}
    copies: dict[str, str] = {}
    steps: list[Step] = []
    for step in plan.steps:
        if isinstance(step, Kernel) and any(names & p for p in reads_and_writes(step)):
            wanted = {n: n + PACKED for n in sorted(images & reads_and_writes(step)[0])}
            copies |= wanted
            step = replace(step, body=reading(step.body, wanted))
        steps.append(step)
    made = []
    for n, (name, copy) in enumerate(sorted(copies.items())):
        table[copy] = _moved(Buffer(copy, table[name].type, "arena"), True)
        made.append(copy_of(f"p{n}", table[name], table[copy]))
    return replace(plan, buffers=tuple(table.values()), steps=numbered((*made, *steps)))


def _is_image(table: Buffers, argument: Argument, batch: int) -> bool:
    """Whether it has the batch as first of three or more dimensions."""
    shape = table[argument.buffer].type.shape
    return len(shape) >= 3 and shape[0] == batch
