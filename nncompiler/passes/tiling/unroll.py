"""How many steps of its innermost reduction loop a contraction writes out.

    for k < 784 { 12 fma, add, compare }  ──▶  for k < 784 by 4 { 48 fma, add, compare }

A core that has nothing else to do hides the counting behind the products. Where another thread of
the same core takes half of its slots it does not: 64 x 512 x 784 then takes 10 % less unrolled,
and so do convolutions, whose loop over channels is short but entered for each place in a window.
"""

from __future__ import annotations

import math

from nncompiler.ir.nests import Contraction

#: Multiply-adds and steps from which on a loop is worth its code, steps of one inside two others;
#: most steps that are written out.
LONG, MANY, INSIDE, MOST = 1 << 18, 64, 8, 4


def unrolled(form: Contraction, innermost: str, lanes: int = 1) -> int:
    """Steps of the axis `innermost` to take at a time: where it runs over `lanes`, all of it, if
    those are few."""
    if len(form.products) > 1:
        return 1
    reduction = form.products[0].reduction
    steps = next((k.extent for k in reduction if k.name == innermost), 0)
    if lanes > 1:
        return max(1, steps // lanes) if len(reduction) > 1 and steps // lanes <= MOST else 1
    if steps < (INSIDE if len(reduction) > 2 else MANY):
        return 1
    if math.prod(a.extent for a in (*form.parallel, *reduction)) < LONG:
        return 1
    return next((n for n in range(MOST, 1, -1) if steps % n == 0), 1)
