"""Long sums in blocks, so that rounding errors do not pile up.

No accumulator takes more than about `BLOCK` terms: a block of a loop is summed from zero, and the
blocks' sums are summed the same way. The error grows with the logarithm of the number of terms
instead of with the number (blocked summation: N. J. Higham, The accuracy of floating point
summation, SIAM J. Sci. Comput. 14(4), 1993). The order depends on the trip counts only.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.codegen.instructions.blocks import Body, Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.ir.scalar import const

#: Most terms that one accumulator takes: few enough for sums as good as pairwise ones, enough for
#: the additions of blocks to cost next to nothing.
BLOCK = 32


def block(trips: int, terms: int) -> int:
    """How many iterations, each adding `terms` terms, make a block; it divides `trips` if it can,
    as what is left over needs another copy of the body.
    """
    most = max(1, BLOCK // terms)
    if trips <= most:
        return trips
    return next((n for n in range(most, most // 2, -1) if trips % n == 0), most)


def is_one_block(trips: int, terms: int) -> bool:
    """Whether so many iterations are few enough not to be cut."""
    return block(trips, terms) == trips


def terms_of(trips: int, terms: int) -> int:
    """How many terms a loop in blocks adds to the accumulators it is given; at least 1."""
    size = block(trips, terms)
    if size == trips:
        return max(1, trips * terms)
    return terms_of(trips // size, 1) + int(trips % size > 0)


def sum_loop(
    w: Writer,
    start: int,
    stop: int,
    step: int,
    terms: int,
    carried: Sequence[Value],
    body: Body,
) -> list[Value]:
    """`Writer.loop` for a body that adds `terms` floats to each carried value, in blocks."""
    trips = max(0, -(-(stop - start) // step))
    size = block(trips, terms)
    if size == trips:
        return w.loop(start, stop, step, carried, body)

    def add_block(at: Counter, total: list[Value], count: int = size) -> list[Value]:
        zeros = [literal(const(0, v.dtype), v.lanes) for v in total]
        if isinstance(at, int):
            part = w.loop(at, at + count * step, step, zeros, body)
        else:
            part = w.loop(0, count * step, step, zeros, lambda i, c: body(_plus(w, at, i), c))
        return [w.sum(a, b) for a, b in zip(total, part, strict=True)]

    rest = start + trips // size * size * step
    total = sum_loop(w, start, rest, size * step, 1, carried, add_block)
    return add_block(rest, total, trips % size) if rest < stop else total


def _plus(w: Writer, at: str, more: Counter) -> Counter:
    return w.assign(f"add nuw nsw i64 {at}, {more}") if more else at
