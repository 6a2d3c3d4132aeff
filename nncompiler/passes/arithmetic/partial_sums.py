"""Sums over rows begin in the kernel that has the rows in cache: of each of its steps a part.

    kernel k0                                      kernel k0
      for i < 8, j < 64 {                            for i < 8 {
        …                                              for j < 64 {
        %1[i,j,k] = …                                    …
      }                                                  %1[i,j,k] = …
    …                                                  }
    kernel k9                                          for k0 < 128 {
      for k < 128 {                         ──▶          v = sum j0 < 64 { %1[i,j0,k0] }
        v = sum i < 8, j < 64 { %1[i,j,k] }              v.parts[i,k0] = v
        …                                              }
      }                                              }
                                                   …
                                                   kernel k9
                                                     for k < 128 {
                                                       v = sum i < 8 { v.parts[i,k] }
                                                       …

So the gradients of a bias, of a gain and a shift do not read again what lies in a far cache by
then, and arrays that only they need do not live as long. The order of additions is the same for
any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from itertools import count
from typing import TypeAlias

from nncompiler.ir.body import (
    accesses,
    extents,
    local_types,
    reads_and_writes,
    step_reads_and_writes,
)
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Plan, Step, Store
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Load, Ref, walk
from nncompiler.ir.types import TensorType
from nncompiler.passes.lowering.order import root_name
from nncompiler.passes.lowering.rewriting import numbered, placed
from nncompiler.passes.tiling.accesses import loads_below, stride_of
from nncompiler.passes.tiling.reads import NEAR
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]

#: Steps of a kernel with parts of their own: some for each worker, few to add up. Terms of a part.
_PARTS, _TERMS = range(8, 65), 16


def begin_sums(plan: Plan, near: int = NEAR) -> Plan:
    """The plan with sums over rows begun where these are at hand, if so many bytes do not hold
    them."""
    table = plan.table()
    sums = {n: found for n, s in enumerate(plan.steps) if (found := _sum_of(s, table, near))}
    if not sums:
        return plan
    where = _Places.of(plan.steps, table)
    begun: dict[int, list[_Sum]] = {}
    places = [[s] for s in plan.steps]
    for n, found in sums.items():
        m = where.host(found, n, sums)
        if m is None:
            continue
        found = replace(found, place=_free(f"{found.fold.names[0]}.parts", table))
        begun.setdefault(m, []).append(found)
        places[n].pop(0)
        places[max(m, n)].append(found.ended())
        table[found.parts.name] = found.parts
    for m, mine in begun.items():
        places[m][0] = _with_parts(places[m][0], mine)
    if not begun:
        return plan
    steps = numbered(tuple(s for place in places for s in place))
    return replace(plan, buffers=tuple(table.values()), steps=steps)


@dataclass(frozen=True, slots=True)
class _Places:
    """Which `steps` touch, and which write, the bytes of each buffer, by its root's name."""

    steps: tuple[Step, ...]
    buffers: Buffers
    touching: dict[str, set[int]]
    writing: dict[str, set[int]]

    @classmethod
    def of(cls, steps: tuple[Step, ...], buffers: Buffers) -> _Places:
        places = cls(steps, buffers, {}, {})
        for n, step in enumerate(steps):
            reads, writes = step_reads_and_writes(step)
            for x in reads | writes:
                places.touching.setdefault(root_name(buffers, x), set()).add(n)
            for x in writes:
                places.writing.setdefault(root_name(buffers, x), set()).add(n)
        return places

    def host(self, found: _Sum, n: int, sums: Container[int]) -> int | None:
        """The nearest kernel that has the rows of a sum in place `n`: in front of it, or behind
        it, where the sum may wait for that kernel."""
        roots = {root_name(self.buffers, x.buffer) for x in found.loads}
        reads, writes = reads_and_writes(found.kernel)
        made = {m for r in roots for m in self.writing.get(r, ())}
        first = max((m for m in made if m < n), default=0)
        after = {m for x in writes for m in self.touching[root_name(self.buffers, x)]}
        after |= {m for x in reads for m in self.writing.get(root_name(self.buffers, x), ())}
        last = min((m for m in after if m > n), default=len(self.steps))
        near = set.intersection(*(self.touching[r] for r in roots))
        before, behind = (m for m in near if first <= m < n), (m for m in near if n < m < last)
        for m in (*sorted(before, reverse=True), *sorted(behind)):
            step = self.steps[m]
            if m not in sums and isinstance(step, Kernel) and found.fits(step, self.buffers):
                return m
        return None


@dataclass(frozen=True, slots=True)
class _Sum:
    """The sum over rows that a `kernel` begins with: of each column, first along the axis
    `outer`, of what `loads` read. Its parts go to the buffer `place`."""

    kernel: Kernel
    loop: For
    fold: Fold
    loads: tuple[Load, ...]
    place: str = ""

    @property
    def columns(self) -> Axis:
        return self.loop.axes[0]

    @property
    def outer(self) -> Axis:
        return self.fold.axes[0]

    @property
    def parts(self) -> Buffer:
        """Where the parts are."""
        shape = self.outer.extent, self.columns.extent
        type = TensorType(self.fold.values[0].dtype, shape)
        return Buffer(self.place, type, "arena")

    def fits(self, host: Kernel, buffers: Buffers) -> bool:
        """Whether each step of the outermost loop of `host` has the rows of a part at hand: it
        reads them at its own place, or makes them there.
        """
        loop = _outermost(host)
        if loop is None or loop.axes[0].extent != self.outer.extent or contraction(host):
            return False
        mine = Affine.axis(loop.axes[0].name)
        for load in self.loads:
            d = load.index.index(Affine.axis(self.outer.name))
            root = root_name(buffers, load.buffer)
            for x in accesses(host.body):
                here = x.buffer == load.buffer and x.index[d] == mine
                if not here and root_name(buffers, x.buffer) == root:
                    return False
        return True

    def ended(self) -> Kernel:
        """The kernel that adds up the parts."""
        index = Affine.axis(self.outer.name), Affine.axis(self.columns.name)
        value = Load(self.parts.name, index, self.parts.type.dtype)
        fold = replace(self.fold, axes=(self.outer,), values=(value,))
        loop = replace(self.loop, body=(fold, *self.loop.body[1:]))
        return replace(self.kernel, body=(*self.kernel.body[:-1], loop))


def _with_parts(host: Step, sums: Sequence[_Sum]) -> Kernel:
    """A kernel that has a part of each sum in every step of its outermost loop."""
    assert isinstance(host, Kernel)
    loop = _outermost(host)
    assert loop is not None
    first, *inner = loop.axes
    taken = {*extents(host), *local_types(host)}
    known = dict[Axis, str]()

    def own(axis: Axis) -> Axis:
        """An axis of the parts: of one name and extent in all of them."""
        if axis not in known:
            free = (name for n in count() if (name := f"{axis.name}{n}") not in taken)
            known[axis] = next(free)
            taken.add(known[axis])
        return Axis(known[axis], axis.extent)

    parts = list[For]()
    for found in sums:
        axes = found.columns, *found.fold.axes[1:]
        column, *rest = map(own, axes)
        forms = {a.name: Affine.axis(known[a]) for a in axes}
        forms[found.outer.name] = Affine.axis(first.name)
        value, name = placed(found.fold.values[0], forms), _free(found.fold.names[0], taken)
        taken.add(name)
        index = Affine.axis(first.name), Affine.axis(column.name)
        parts.append(For((column,), (
            Fold((name,), "sum", tuple(rest), (value,)),
            Store(found.parts.name, index, Ref(name, value.dtype)),
        )))  # fmt: skip
    body = (replace(loop, axes=tuple(inner)),) if inner else loop.body
    return replace(host, body=(*host.body[:-1], For((first,), (*body, *parts))))


def _free(name: str, taken: Container[str]) -> str:
    """The name, or one like it that is not taken."""
    while name in taken:
        name += "_"
    return name


def _outermost(kernel: Kernel) -> For | None:
    """The loop that is a kernel, but for what stands in front of it."""
    *before, last = kernel.body
    if not isinstance(last, For) or last.ordered or last.within:
        return None
    return last if all(isinstance(s, Let) for s in before) else None


def _sum_of(kernel: Step, buffers: Buffers, near: int) -> _Sum | None:
    """The sum over rows of a kernel, where it reads more than stays in the cache that is `near`,
    and what a part reads stays there."""
    loop = _outermost(kernel) if isinstance(kernel, Kernel) else None
    if loop is None or len(loop.axes) != 1 or not isinstance(loop.body[0], Fold):
        return None
    assert isinstance(kernel, Kernel)
    fold = loop.body[0]
    if fold.combine != "sum" or fold.body or fold.within or fold.init or len(fold.axes) < 2:
        return None
    outer, *rest = fold.axes
    if outer.extent not in _PARTS or math.prod(a.extent for a in rest) < _TERMS:
        return None
    (value,) = fold.values
    loads = loads_below(value)
    if any(isinstance(e, Ref) for e in walk(value)):
        return None
    if not all(_by_rows(x, outer.name, loop.axes[0].name, buffers) for x in loads):
        return None
    size = sum(buffers[x].nbytes for x in {x.buffer for x in loads})
    far = size > near >= size // outer.extent
    return _Sum(kernel, loop, fold, loads) if far else None


def _by_rows(load: Load, outer: str, columns: str, buffers: Buffers) -> bool:
    """Whether columns lie side by side, and the longest steps are those along the axis `outer`,
    which is a dimension."""
    buffer = buffers[load.buffer]
    if load.guard is not None or not all(isinstance(i, Affine) for i in load.index):
        return False
    if load.index.count(Affine.axis(outer)) != 1:
        return False
    longest = stride_of(load.index, buffer, outer) == max(buffer.layout)
    return longest and stride_of(load.index, buffer, columns) in (0, 1)
