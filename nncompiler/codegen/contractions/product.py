"""The factors of a product and the parts they play in a register tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TypeAlias

from nncompiler.codegen.nests.clip import Bounds, Edge, clip
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Fold, Schedule
from nncompiler.ir.nests import Product
from nncompiler.ir.scalar import Affine, Expr, axes_of
from nncompiler.record import dataclass, replace

Loops: TypeAlias = tuple[tuple[Axis, Bounds], ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """A product with its factors' roles: `a` is spread over the lanes (or shared by the columns),
    `b` varies. `bounds` are those that each sets to the reduction loops.
    """

    fold: Fold
    reduction: tuple[Axis, ...]
    a: Expr
    b: Expr
    bounds: tuple[tuple[Bounds, Bounds], ...] = ()

    @property
    def loops(self) -> Loops:
        return tuple((k, a + b) for k, (a, b) in zip(self.reduction, self.bounds, strict=True))

    @property
    def loops_of_b(self) -> Loops:
        return tuple((k, b) for k, (_, b) in zip(self.reduction, self.bounds, strict=True))


def roles_of(product: Product, parallel: tuple[Axis, ...], schedule: Schedule) -> Roles:
    a, b = product.a, product.b
    vector, register = schedule.vector[0], schedule.register
    if vector not in axes_of(b) or (register is not None and register in axes_of(b)):
        a, b = b, a
    if register is None and not (axes_of(b) - axes_of(a)) & {p.name for p in parallel}:
        a, b = b, a
    reduced = any(r.name == vector for r in product.reduction)
    fits = (
        vector in axes_of(b) and register not in axes_of(b) and reduced == (vector in axes_of(a))
    )
    if not fits:
        raise CompilerBug(
            "NN0594", f"the factors of a product do not fit vector {vector}, register {register}"
        )
    reduction = ordered(product.reduction, schedule)
    roles = Roles(product.fold, reduction, a, b)
    columns = column_axis(parallel, roles, schedule) if reduced else vector
    return _clipped(roles, {p.name for p in parallel} - {columns, register}, vector)


def _clipped(roles: Roles, known: set[str], vector: str) -> Roles:
    """Guards of the factors as bounds of the reduction loops, where they hold for a whole tile:
    they mention the `known` parallel axes and reduction axes further out only.
    """
    a, b, bounds = roles.a, roles.b, []
    for axis in roles.reduction:
        if axis.name == vector:
            bounds.append((Bounds(), Bounds()))
            continue
        a, first = clip(a, axis.name, known)
        b, second = clip(b, axis.name, known)
        bounds.append((first, second))
        known = known | {axis.name}
    return replace(roles, a=a, b=b, bounds=tuple(bounds))


def narrowed(
    loops: Loops, within: Sequence[Affine], tile: Mapping[str, int], vector: str
) -> Loops:
    """The loops without terms that a whole tile, of so many rows and columns, may leave out: a
    form that is negative all over it. It bounds the innermost of the loops that it mentions, with
    coefficient 1 or -1, and the first one where it mentions none.
    """
    found = dict(loops)
    names = {axis.name: axis for axis in found}
    for form in within:
        largest = form + sum(k * (tile.get(x, 1) - 1) for x, k in form.terms if k > 0)
        inside = [x for x in names if form.coefficient(x)] or [x for x in names if x != vector][:1]
        if not inside or inside[-1] == vector:
            continue
        axis = names[inside[-1]]
        match largest.coefficient(axis.name):
            case 0:
                bounds = Bounds(high=(Edge((largest + 1) * axis.extent),))
            case 1:
                bounds = Bounds(low=(Edge((largest + Affine.axis(axis.name) * -1) * -1),))
            case -1:
                bounds = Bounds(high=(Edge(largest + Affine.axis(axis.name) + 1),))
            case _:
                continue
        found[axis] = found[axis] + bounds
    return tuple(found.items())


def column_axis(parallel: tuple[Axis, ...], roles: Roles, schedule: Schedule) -> str:
    """Where the vector axis is reduced: the last parallel axis that only `b` mentions, of those
    whose loops stand outside of all reductions, as loops over places in a window may not.
    """
    found = [p.name for p in parallel if p.name in axes_of(roles.b) - axes_of(roles.a)]
    if not found:
        raise CompilerBug(
            "NN0594", "a reduced vector axis needs a parallel axis in one factor only"
        )
    summed = {k.name for k in roles.reduction}
    outside = [*takewhile(lambda x: x not in summed, schedule.order)]
    return ([x for x in found if x in outside] or found)[-1]


def ordered(axes: tuple[Axis, ...], schedule: Schedule) -> tuple[Axis, ...]:
    """In the order of the schedule, as often as it names them; axes it leaves out come first."""
    table = {a.name: a for a in axes}
    named = [table[x] for x in schedule.order if x in table]
    return (*(a for a in axes if a not in named), *named)
