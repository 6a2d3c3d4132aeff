"""Nests rewritten as data: other axes, other buffers, the same statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TypeAlias

from nncompiler.ir.body import extents, loads, local_types, stores
from nncompiler.ir.kernel import Axis, Fold, For, Kernel, Let, Step, Stmt, Store
from nncompiler.ir.scalar import Affine, Expr, Index, Iota, Load, Ref, rewrite
from nncompiler.record import replace

Change: TypeAlias = Callable[[Expr], Expr]


def changed(body: tuple[Stmt, ...], change: Change) -> tuple[Stmt, ...]:
    """The same statements with every expression changed, from the inside out."""

    def visit(s: Stmt) -> Stmt:
        match s:
            case Let(_, value):
                return replace(s, value=rewrite(value, change))
            case Store(_, index, value):
                places = tuple(i if isinstance(i, Affine) else rewrite(i, change) for i in index)
                return replace(s, index=places, value=rewrite(value, change))
            case Fold():
                values = tuple(rewrite(v, change) for v in s.values)
                return replace(s, values=values, body=changed(s.body, change))
            case For():
                return replace(s, body=changed(s.body, change))

    return tuple(visit(s) for s in body)


def reading(body: tuple[Stmt, ...], names: Mapping[str, str]) -> tuple[Stmt, ...]:
    """The same statements with loads from other buffers."""

    def change(e: Expr) -> Expr:
        return replace(e, buffer=names.get(e.buffer, e.buffer)) if isinstance(e, Load) else e

    return changed(body, change) if names else body


def over(body: tuple[Stmt, ...], names: Mapping[str, str]) -> tuple[Stmt, ...]:
    """The same statements over other buffers."""

    def visit(s: Stmt) -> Stmt:
        match s:
            case For() | Fold():
                return replace(s, body=tuple(visit(x) for x in s.body))
            case Store():
                return replace(s, buffer=names.get(s.buffer, s.buffer))
            case Let():
                return s

    return tuple(visit(s) for s in reading(body, names))


def split_axis(body: tuple[Stmt, ...], axis: str, parts: tuple[Axis, Axis]) -> tuple[Stmt, ...]:
    """One axis as two, the second running fastest: all it is used for is its place in an index."""
    outer, inner = parts
    whole = {axis: Affine.axis(outer.name) * inner.extent + Affine.axis(inner.name)}

    def visit(s: Stmt) -> Stmt:
        match s:
            case For() | Fold():
                axes = [parts if a.name == axis else (a,) for a in s.axes]
                inside = tuple(visit(x) for x in s.body)
                return replace(s, axes=tuple(x for group in axes for x in group), body=inside)
            case _:
                return s

    return tuple(visit(s) for s in substituted(body, whole))


def substituted(body: tuple[Stmt, ...], values: Mapping[str, Affine]) -> tuple[Stmt, ...]:
    """The same statements with other forms in place of axes, wherever an index names them."""

    def visit(s: Stmt) -> Stmt:
        match s:
            case For() | Fold():
                within = tuple(i.substitute(values) for i in s.within)
                return replace(s, body=tuple(visit(x) for x in s.body), within=within)
            case Store():
                return replace(s, index=_forms(s.index, values))
            case Let():
                return s

    return tuple(visit(s) for s in changed(body, lambda e: _placed(e, values)))


def placed(expr: Expr, values: Mapping[str, Affine]) -> Expr:
    """The same expression with other forms in place of axes."""
    return rewrite(expr, lambda e: _placed(e, values))


def _placed(e: Expr, values: Mapping[str, Affine]) -> Expr:
    match e:
        case Load(buffer, index, dtype, guard, fill):
            return Load(buffer, _forms(index, values), dtype, guard, fill)
        case Iota(form, dtype):
            return Iota(form.substitute(values), dtype)
        case _:
            return e


def _forms(index: tuple[Index, ...], values: Mapping[str, Affine]) -> tuple[Index, ...]:
    return tuple([i.substitute(values) if isinstance(i, Affine) else i for i in index])


def renamed(body: tuple[Stmt, ...], names: Mapping[str, str]) -> tuple[Stmt, ...]:
    """Statements outside of loops, with other names for the locals that they bind."""

    def change(e: Expr) -> Expr:
        return replace(e, name=names.get(e.name, e.name)) if isinstance(e, Ref) else e

    return tuple(
        replace(s, name=names.get(s.name, s.name)) if isinstance(s, Let) else s
        for s in changed(body, change)
    )


def fresh(axis: str, kernel: Kernel) -> tuple[str, str]:
    """Names for two parts of an axis that nothing else has."""
    taken = {*extents(kernel), *local_types(kernel)}
    taken |= {a for x in loads(kernel) for i in x.index if isinstance(i, Affine) for a in i.axes}
    taken |= {a for s in stores(kernel) for i in s.index if isinstance(i, Affine) for a in i.axes}
    free = (name for n in count() if (name := f"{axis}{n}") not in taken)
    return next(free), next(free)


def numbered(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Kernels named k0, k1, ... in the order in which they first run."""
    return tuple(_numbered(steps, iter(range(1 << 30))))


def _numbered(steps: tuple[Step, ...], names: Iterator[int]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Kernel):
            yield replace(step, name=f"k{next(names)}")
        else:
            yield replace(step, body=tuple(_numbered(step.body, names)))

