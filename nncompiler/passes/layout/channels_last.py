"""Convolutions over whole vectors of channels: images are stored with their channels last, weights
with the output channels last.

    buffer %4: f32[1,16,32,32] arena  ──▶  buffer %4: f32[1,16,32,32] strides {16384,1,512,16}
    buffer %w: f32[16,16,3,3] arena   ──▶  buffer %w: f32[16,16,3,3] strides {1,144,48,16}

For few images at a time: a step of a convolution is then one element of the image for each
position and one vector of weights, and padding tells rows of a tile apart, not lanes. Weights that
cannot move are copied in front of the kernel that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from nncompiler.ir.body import loads, reads_and_writes, statements, step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Kernel, Plan, Step, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine
from nncompiler.ir.types import TensorType
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

#: Channels that are no multiple of this leave lanes of vectors empty, in every kernel.
_LANES = 8


def channels_last(plan: Plan, region: frozenset[str]) -> Plan | None:
    """The plan with the channels of the region's images and of the weights they meet last; None
    where they do not fill vectors, or no image can move.
    """
    table = plan.table()
    channels = {table[n].type.shape[1] for n in region} - {1}
    if any(n % _LANES for n in channels):
        return None
    images = {n for n in region if _try_move(n, 1, table)}
    if not images:
        return None
    weights = _weights(plan, images, table)
    fixed = _written_or_looped(plan, table)
    for name in sorted(weights):
        if table[name].space == "arena" and name not in fixed and not viewed(name, table):
            table[name] = _last(table[name], 0)
            weights.remove(name)
    copied = {n for n in weights - fixed if table[n].strides is None}
    steps = tuple(_copies_in_front(plan.steps, copied, table))
    return replace(plan, buffers=tuple(table.values()), steps=numbered(steps))


def _try_move(name: str, axis: int, table: dict[str, Buffer]) -> bool:
    """Move an axis last, if the views of the buffer can follow."""
    old = dict(table)
    table[name] = _last(table[name], axis)
    below = [b for b in old.values() if b.space == "view" and root_name(old, b.name) == name]
    if all(follow(b, table) for b in below):
        return True
    table.update(old)
    return False


def _last(buffer: Buffer, axis: int) -> Buffer:
    """The same buffer with one axis innermost, the others as they were."""
    shape = buffer.type.shape
    strides, step = [0] * len(shape), 1
    for n in (axis, *(d for d in reversed(range(len(shape))) if d != axis)):
        strides[n] = step
        step *= shape[n]
    return replace(buffer, strides=tuple(strides))


def _weights(plan: Plan, images: set[str], table: Buffers) -> set[str]:
    """What contractions into the images' channels read along its first axis."""
    found: set[str] = set()
    for kernel in plan.steps:
        if not isinstance(kernel, Kernel) or contraction(kernel) is None:
            continue
        stores = [s for s in statements(kernel.body) if isinstance(s, Store)]
        moved = [s for s in stores if root_name(table, s.buffer) in images and len(s.index) > 2]
        channels = {s.index[1] for s in moved}
        for x in loads(kernel):
            first = x.index[0] if len(x.index) > 1 else None
            if isinstance(first, Affine) and first.single and first in channels:
                found.add(x.buffer)
    return {n for n in found if root_name(table, n) not in images and table[n].layout[0] != 1}


def _written_or_looped(plan: Plan, table: Buffers) -> set[str]:
    """Buffers that no copy in front of a kernel stands for, and none that loops reach."""
    found: set[str] = set()
    for step in plan.steps:
        reads, writes = step_reads_and_writes(step)
        found |= reads | writes if not isinstance(step, Kernel) else set()
        found |= {n for n in writes if table[root_name(table, n)].space != "arena"}
    roots = {root_name(table, n) for n in found}
    return {n for n in table if root_name(table, n) in roots}


def _copies_in_front(
    steps: tuple[Step, ...], names: set[str], table: dict[str, Buffer]
) -> Iterator[Step]:
    """The steps with a copy of each of the weights in front of the first that reads it."""
    copies: dict[str, str] = {}
    for step in steps:
        if isinstance(step, Kernel):
            here = sorted(names & reads_and_writes(step)[0])
            for name in here:
                if name not in copies:
                    copies[name] = name + PACKED
                    yield _turned(name, table)
            step = replace(step, body=reading(step.body, _only(copies, here)))
        yield step


def _only(copies: Mapping[str, str], names: list[str]) -> dict[str, str]:
    return {n: copies[n] for n in names}


def _turned(name: str, table: dict[str, Buffer]) -> Kernel:
    """The copy as a matrix that is turned: all axes but the first follow each other in both."""
    source = table[name]
    target = _last(Buffer(name + PACKED, source.type, "arena"), 0)
    shape = source.type.shape
    matrix = TensorType(source.type.dtype, (shape[0], math.prod(shape[1:])))
    table[target.name] = target
    names = [f"{b.name}.rows" for b in (source, target)]
    for view, base in zip(names, (source, target), strict=True):
        table[view] = Buffer(view, matrix, "view", base=base.name)
        follow(table[view], table)
    return replace(copy_of("copy", table[names[0]], table[names[1]]), nodes=(name,))
