"""Winograd's transforms F(m x m, 3x3): m x m results of a window of three by three from (m + 2)²
products.

A result is y = Aᵗ ((G g Gᵗ) (Bᵗ d B)) A, with products element by element, of the weights g and
the m + 2 by m + 2 elements d under the tile. Each matrix is a product of sparse ones, its stages,
whose rows share what rows of the whole have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Let, Stmt
from nncompiler.ir.scalar import Expr, Ref, apply, const
from nncompiler.record import dataclass

Matrix: TypeAlias = tuple[tuple[float, ...], ...]
#: Matrices that are applied one after the other.
Stages: TypeAlias = tuple[Matrix, ...]

#: The axis of a tile's elements.
ELEMENTS = "e"


@dataclass(frozen=True, slots=True)
class Transform:
    """F(m x m, 3x3) with m = `tile`, by Bᵗ of the `image`, G of the `weights`, Aᵗ of `results`."""

    tile: int
    image: Stages
    weights: Stages
    results: Stages

    @property
    def side(self) -> int:
        """How many elements a tile has along one direction."""
        return self.tile + 2

    @property
    def elements(self) -> Axis:
        return Axis(ELEMENTS, self.side**2)


def transposed_stages(stages: Stages) -> Stages:
    """The stages of the matrix transposed."""
    return tuple(tuple(zip(*m, strict=True)) for m in reversed(stages))


#: The points 0, 1, -1 and infinity.
TWO = Transform(
    2,
    (((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),),
    (((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),),
    (((1, 1, 1, 0), (0, 1, -1, 1)),),
)


def four(a: float, b: float) -> Transform:
    """F(4x4, 3x3) with the points 0, a, -a, b, -b and infinity. Rows of a point and of its
    opposite are the sum and the difference of what has even powers and what has odd ones.
    """
    aa, bb = a * a, b * b
    even, odd, others = (0, 0, -bb, 0, 1, 0), (0, -bb, 0, 1, 0, 0), ((-aa, 0, 1, 0, 0, 0),)
    image: Stages = (
        (*others, even, odd, (0, 0, -aa, 0, 1, 0), (0, -aa, 0, 1, 0, 0), (0, 0, 0, -aa, 0, 1)),
        (
            (-bb, 0, 0, 1, 0, 0),
            (0, 1, a, 0, 0, 0),
            (0, 1, -a, 0, 0, 0),
            (0, 0, 0, 1, b, 0),
            (0, 0, 0, 1, -b, 0),
            (0, 0, 0, 0, -bb, 1),
        ),
    )
    na, nb = 1 / (2 * aa * (aa - bb)), 1 / (2 * bb * (bb - aa))
    pairs: Matrix = (
        (1, 0, 0, 0, 0, 0),
        (0, 1, 1, 0, 0, 0),
        (0, 1, -1, 0, 0, 0),
        (0, 0, 0, 1, 1, 0),
        (0, 0, 0, 1, -1, 0),
        (0, 0, 0, 0, 0, 1),
    )
    weights: Stages = (
        (
            (1 / (aa * bb), 0, 0),
            (na, 0, na * aa),
            (0, na * a, 0),
            (nb, 0, nb * bb),
            (0, nb * b, 0),
            (0, 0, 1),
        ),
        pairs,
    )
    results: Stages = (
        pairs,
        (
            (1, 1, 0, 1, 0, 0),
            (0, 0, a, 0, b, 0),
            (0, aa, 0, bb, 0, 0),
            (0, 0, a * aa, 0, b * bb, 1),
        ),
    )
    return Transform(4, image, weights, results)


#: Points near each other's inverses round best: in f32 half as far off as 1 and 2.
FOUR = four(0.625, 1.5)


def fitting(rows: Axis, columns: Axis) -> tuple[Transform, ...]:
    """Those whose tiles cover the results exactly."""
    extents = rows.extent, columns.extent
    return tuple(t for t in (FOUR, TWO) if all(n > 0 and n % t.tile == 0 for n in extents))


def applied(
    stages: Stages, terms: Sequence[Expr], name: str, taken: set[str]
) -> tuple[list[Stmt], list[Expr]]:
    """The matrix times a vector: statements, and the values in terms of the locals they bind."""
    body: list[Stmt] = []
    values = list(terms)
    for matrix in stages:
        names = [fresh_name(f"{name}{k}", taken) for k in range(len(values))]
        body += map(Let, names, values)
        refs = [Ref(n, v.dtype) for n, v in zip(names, values, strict=True)]
        values = [_sum(row, refs) for row in matrix]
    return body, values


def fresh_name(hint: str, taken: set[str]) -> str:
    """A name that no local has yet."""
    names = (hint if n < 2 else f"{hint}_{n}" for n in count(1))
    name = next(x for x in names if x not in taken)
    taken.add(name)
    return name


def _sum(factors: Sequence[float], terms: Sequence[Expr]) -> Expr:
    """The sum of the terms times the factors, those of 1 and -1 without a product."""
    total: Expr | None = None
    pairs = [(f, t) for f, t in zip(factors, terms, strict=True) if f]
    for factor, term in sorted(pairs, key=lambda x: (abs(x[0]) != 1, -x[0])):
        if abs(factor) == 1:
            if total is None:
                total = term if factor > 0 else apply("neg", term)
            else:
                total = apply("add" if factor > 0 else "sub", total, term)
        elif total is None:
            total = apply("mul", term, const(factor, term.dtype))
        else:
            total = apply("fma", term, const(factor, term.dtype), total)
    assert total is not None
    return total
