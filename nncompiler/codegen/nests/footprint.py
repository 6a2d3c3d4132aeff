"""What statements mention and compute: the facts that the width of their vectors depends on."""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.ir.body import expressions, statements
from nncompiler.ir.combine import COMBINES
from nncompiler.ir.kernel import Fold, Stmt, Store
from nncompiler.ir.scalar import Affine, Apply, Const, Expr, Iota, Load, Ref, children
from nncompiler.ir.types import BOOL
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """What statements mention: axes and locals; the number of distinct expressions, the loads
    among them; the widest element in bytes; whether any load has a guard, and whether conditions
    are combined.
    """

    axes: frozenset[str]
    names: frozenset[str]
    cost: int
    loads: tuple[Load, ...]
    widest: int
    guarded: bool
    combined: bool


def footprint(
    body: tuple[Stmt, ...], values: tuple[Expr, ...], expand: Callable[[Expr], Expr]
) -> Footprint:
    """The footprint of a body and the values it gives, as they are after `expand`."""
    roots = [expand(v) for v in values]
    axes: set[str] = set()
    combined = False
    for s in statements(body):
        # one that keeps several values compares them all
        combined = combined or (isinstance(s, Fold) and COMBINES[s.combine].width > 1)
        roots += [expand(x) for x in expressions(s)]
        if isinstance(s, Store):
            axes.update(a for i in s.index if isinstance(i, Affine) for a in i.axes)
    names: set[str] = set()
    seen: set[int] = set()
    loads: list[Load] = []
    widest, todo, guarded = 1, list(roots), False
    while todo:
        expr = todo.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        todo += children(expr)
        widest = max(widest, expr.dtype.bytes)
        match expr:
            case Ref(name):
                names.add(name)
            case Iota(index):
                axes.update(index.axes)
            case Load(_, index, _, guard):
                loads.append(expr)
                guarded = guarded or guard is not None
                axes.update(a for i in index if isinstance(i, Affine) for a in i.axes)
            case Const():
                seen.discard(id(expr))
            case Apply("and" | "or" | "not", _, dtype) if dtype == BOOL:
                combined = True
            case _:
                pass
    return Footprint(
        frozenset(axes), frozenset(names), len(seen), tuple(loads), widest, guarded, combined
    )
