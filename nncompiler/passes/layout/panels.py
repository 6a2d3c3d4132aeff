"""Copy what a loop reads again and again, in front of it, into the order in which a register tile
reads it: panels of a few columns.

    loop t < 64 {                             kernel k0: %w.panels[j0,k,j1] = %w[k,16*j0+j1]
      kernel k0                               loop t < 64 {
        for i < 32, j < 1024 {          ──▶     kernel k1
          acc = sum k < 256 {                     for i < 32, j0 < 64, j1 < 16 {
            %h[t,i,k] * %w[k,j]                     acc = sum k < 256 {
          }                                           %h[t,i,k] * %w.panels[j0,k,j1]
          …                                         }
        }                                           …

The factor must stay the same in all steps of the outermost loop. Its panels are read from the
first byte to the last, where rows of a matrix lie on a page each. The columns become two axes, so
that the copy is a tensor like any other; each sum is added up in the same order as before. Worth
it where the schedules of all steps save more cycles than the copy takes (`tile`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from typing import TypeAlias

from nncompiler.ir.body import extents, step_reads_and_writes
from nncompiler.ir.kernel import Axis, Buffer, For, Kernel, Loop, Plan, Step, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Expr, Load, axes_of
from nncompiler.ir.types import TensorType
from nncompiler.passes.lowering.order import root_name
from nncompiler.passes.lowering.rewriting import changed, fresh, numbered, split_axis
from nncompiler.record import dataclass, field, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: Most vectors of a panel.
_WIDEST = 8


def pack_panels(plan: Plan, cost: Cost, vector_bytes: int) -> Plan:
    """The plan with panels of the factors that loops read again and again."""
    table, steps = plan.table(), list[Step]()
    for step in plan.steps:
        if isinstance(step, Loop):
            _, written = step_reads_and_writes(step)
            roots = frozenset(root_name(table, n) for n in written)
            loop = _Loop(table, roots, cost, vector_bytes)
            step = loop.visit(step, 1)
            steps += loop.copies.values()
        steps.append(step)
    if len(table) == len(plan.buffers):
        return plan
    return replace(plan, buffers=tuple(table.values()), steps=numbered(tuple(steps)))


@dataclass(frozen=True, slots=True)
class _Panels:
    """A kernel over panels, and what it needs: buffers and the kernels that fill them, by name."""

    kernel: Kernel
    buffers: Mapping[str, Buffer]
    copies: Mapping[str, Kernel]


@dataclass(slots=True)
class _Loop:
    """An outermost loop. What it writes, the buffers `written`, is no use here; `copies` are to be
    run in front of it."""

    table: dict[str, Buffer]
    written: frozenset[str]
    cost: Cost
    vector_bytes: int
    copies: dict[str, Kernel] = field(default_factory=dict)

    def visit(self, loop: Loop, times: int) -> Loop:
        times *= loop.extent
        return replace(loop, body=tuple(
            self.visit(s, times) if isinstance(s, Loop) else self.kernel(s, times)
            for s in loop.body
        ))  # fmt: skip

    def kernel(self, kernel: Kernel, times: int) -> Kernel:
        """The kernel with the panels that save most, if any do."""
        best = _Panels(kernel, {}, {})
        for found in self.candidates(kernel):
            if self.cycles(found, times) < self.cycles(best, times):
                best = found
        self.copies.update(best.copies)
        self.table.update(best.buffers)
        return best.kernel

    def cycles(self, found: _Panels, times: int) -> float:
        """Of all runs of the kernel, and of the copies that are not made yet."""
        table = {**self.table, **found.buffers}
        more = [k for name, k in found.copies.items() if name not in self.copies]
        return times * self.cost(found.kernel, table) + sum(self.cost(k, table) for k in more)

    def candidates(self, kernel: Kernel) -> Iterator[_Panels]:
        """The kernel over panels of every width, for all axes that may be columns."""
        form = contraction(kernel)
        if form is None or not form.products:
            return
        lanes, own = self.vector_bytes // form.products[0].a.dtype.bytes, extents(kernel).keys()
        for columns in form.parallel:
            pairs = [(p.a, p.b) for p in form.products]
            varying = [f for pair in pairs for f in pair if columns.name in axes_of(f)]
            factors = [f for f in varying if isinstance(f, Load) and self.constant(f, own)]
            if not len(factors) == len(varying) == len(pairs):
                continue
            for width in range(lanes, lanes * _WIDEST + 1, lanes):
                if columns.extent % width == 0:
                    yield self.packed(kernel, columns, width, factors)

    def constant(self, load: Load, own: Collection[str]) -> bool:
        """Whether every step of the loop reads the same, at places known beforehand: those that
        a kernel's `own` axes say, but no counter of a loop.
        """
        direct = all(isinstance(i, Affine) for i in load.index) and load.guard is None
        here = root_name(self.table, load.buffer) not in self.written
        fixed = all(axis in own for axis in axes_of(load))
        return direct and here and fixed and load.buffer not in self.copies

    def packed(self, kernel: Kernel, columns: Axis, width: int, factors: list[Load]) -> _Panels:
        """The kernel over panels of `width` columns of its `factors`."""
        outer, inner = fresh(columns.name, kernel)
        parts = Axis(outer, columns.extent // width), Axis(inner, width)
        sizes = extents(kernel) | {a.name: a.extent for a in parts}
        body = split_axis(kernel.body, columns.name, parts)
        whole = {columns.name: Affine.axis(outer) * width + Affine.axis(inner)}
        panels, buffers, copies = dict[Expr, Load](), dict[str, Buffer](), dict[str, Kernel]()
        for load in factors:
            index = tuple(i.substitute(whole) for i in load.index if isinstance(i, Affine))
            source = replace(load, index=index)
            between = [x for x in sizes if x in axes_of(load) and x != columns.name]
            axes = tuple(Axis(x, sizes[x]) for x in (outer, *between, inner))
            name, copy = self.copy(source, axes, copies)
            copies[name] = copy
            shape = tuple(a.extent for a in axes)
            buffers[name] = Buffer(name, TensorType(load.dtype, shape), "arena")
            panels[source] = Load(name, _at(axes), load.dtype)
        body = changed(body, lambda e: panels.get(e, e))
        return _Panels(replace(kernel, body=body), buffers, copies)

    def copy(
        self, source: Load, axes: tuple[Axis, ...], more: Mapping[str, Kernel]
    ) -> tuple[str, Kernel]:
        """The kernel that fills panels, and their name: the same for the same panels."""
        names = {a.name: f"x{n}" for n, a in enumerate(axes)}
        index = tuple(i.rename(names) for i in source.index if isinstance(i, Affine))
        axes = tuple(Axis(names[a.name], a.extent) for a in axes)
        for n in count(1):
            name = f"{source.buffer}.panels{n if n > 1 else ''}"
            store = Store(name, _at(axes), replace(source, index=index))
            made = Kernel(name, (For(axes, (store,)),), nodes=(source.buffer,))
            known = {**self.copies, **more}
            if known.get(name) == made or not (name in known or name in self.table):
                return name, made
        raise AssertionError


def _at(axes: tuple[Axis, ...]) -> tuple[Affine, ...]:
    return tuple(Affine.axis(a.name) for a in axes)
