"""Sums across lanes, many vectors at a time."""

from __future__ import annotations

from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.ir.scalar import Const


def transpose_add(w: Writer, sums: list[Value]) -> Value:
    """One vector whose lane c is the sum of the lanes of `sums[c]`; lanes are padded to a power of
    two with zeros.

    Neighbours are added inside 128-bit parts, where shuffles are cheap; the parts are added last.
    """
    dtype, lanes = sums[0].dtype, sums[0].lanes
    part = min(lanes, 16 // dtype.bytes)
    zero = Const(0.0, dtype)
    count = -(-len(sums) // part) * part
    padded = sums + [literal(zero, lanes)] * (count - len(sums))
    groups = [_sum_group(w, padded[n : n + part], part) for n in range(0, count, part)]
    while len(groups) & (len(groups) - 1):
        groups.append(literal(zero, part))
    while len(groups) > 1:
        joined = range(2 * groups[0].lanes)
        groups = [w.shuffle(a, b, joined) for a, b in zip(groups[::2], groups[1::2], strict=True)]
    return groups[0]


def _sum_group(w: Writer, sums: list[Value], part: int) -> Value:
    """`part` vectors to one of `part` lanes."""
    while len(sums) > 1:
        sums = [_add_pairs(w, a, b, part) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    total = sums[0]
    while total.lanes > part:
        half = total.lanes // 2
        low = w.shuffle(total, None, range(half))
        total = w.sum(low, w.shuffle(total, None, range(half, 2 * half)))
    return total


def _add_pairs(w: Writer, a: Value, b: Value, part: int) -> Value:
    """In every 128-bit part: sums of neighbours of `a`, then of `b`."""
    even = [
        n + i + k for n in range(0, a.lanes, part) for k in (0, a.lanes) for i in range(0, part, 2)
    ]
    return w.sum(w.shuffle(a, b, even), w.shuffle(a, b, [n + 1 for n in even]))
