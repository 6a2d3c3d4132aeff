"""The factors of a product and the parts they play in a register tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from nncompiler.codegen.nests.clip import Bounds, Edge, clip
from nncompiler.errors import CompilerBug
from nncompiler.ir.kernel import Axis, Fold, Schedule
from nncompiler.ir.nests import Product
from nncompiler.ir.scalar import Affine, Expr
from nncompiler.ir.tile_roles import column_axis, factors, ordered
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
    vector, register = schedule.vector[0], schedule.register
    names = [p.name for p in parallel]
    found = factors(product, names, schedule)
    if found is None:
        raise CompilerBug(
            "NN0594", f"the factors of a product do not fit vector {vector}, register {register}"
        )
    roles = Roles(product.fold, ordered(product.reduction, schedule), *found)
    return _clipped(roles, {*names} - {columns_of(roles, parallel, schedule), register}, vector)


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
    coefficient 1 or -1; one that mentions none decides on all of them.
    """
    found = dict(loops)
    names = {axis.name: axis for axis in found}
    for form in within:
        largest = form + sum(k * (tile.get(x, 1) - 1) for x, k in form.terms if k > 0)
        inside = [x for x in names if form.coefficient(x)]
        if inside[-1:] == [vector] or not names:
            continue
        axis = names[inside[-1]] if inside else next(iter(found))
        match largest.coefficient(axis.name):
            case 0:
                bounds = Bounds(only=(largest,))
            case 1:
                bounds = Bounds(low=(Edge((largest + Affine.axis(axis.name) * -1) * -1),))
            case -1:
                bounds = Bounds(high=(Edge(largest + Affine.axis(axis.name) + 1),))
            case _:
                continue
        found[axis] = found[axis] + bounds
    return tuple(found.items())


def columns_of(roles: Roles, parallel: tuple[Axis, ...], schedule: Schedule) -> str:
    """The axis of the columns of a tile."""
    names, summed = [p.name for p in parallel], {k.name for k in roles.reduction}
    found = column_axis(roles.a, roles.b, names, summed, schedule)
    if found is None:
        raise CompilerBug(
            "NN0594", "a reduced vector axis needs a parallel axis in one factor only"
        )
    return found
