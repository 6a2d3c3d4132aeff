"""How many steps of its innermost reduction loop a contraction writes out.

    for k < 784 { 12 fma, add, compare }  ──▶  for k < 784 by 4 { 48 fma, add, compare }

A core that has nothing else to do hides the counting behind the products. Where another thread of
the same core takes half of its slots it does not: 64 x 512 x 784 then takes 10 % less unrolled.
"""

from __future__ import annotations

import math

from nncompiler.ir.nests import Contraction

#: Multiply-adds from which on a loop is worth its code, and most steps of it that are written out.
LONG, MOST = 1 << 18, 4


def unrolled(form: Contraction, innermost: str) -> int:
    """Steps of the axis `innermost` to take at a time: so few that there are 16 rounds of them."""
    points = math.prod(a.extent for a in form.parallel)
    for product in form.products:
        for axis in product.reduction:
            work = points * math.prod(k.extent for k in product.reduction)
            if axis.name == innermost and work >= LONG and len(form.products) == 1:
                fits = (n for n in range(MOST, 1, -1) if axis.extent % n == 0)
                return next((n for n in fits if axis.extent >= 16 * n), 1)
    return 1
