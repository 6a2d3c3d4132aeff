"""Bytes a kernel moves: the distinct elements it reads and writes of each buffer, counted once.

This is the traffic of one call of a kernel whose data stays in cache while it runs: the least that
memory must deliver, exact for affine indices. A guarded load counts as if its guard always held; a
gather counts one element for each iteration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from nncompiler.ir.body import extents, loads, stores
from nncompiler.ir.kernel import Fold, For, Kernel, Let, Loop, Plan, Step, Stmt, Store
from nncompiler.ir.scalar import Affine, Expr, Index, Ref, axes_of, walk
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes read and written, by the buffer that owns them (views looked through)."""

    read: Mapping[str, int]
    written: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.read.values()) + sum(self.written.values())


def traffic(kernel: Kernel, plan: Plan) -> Traffic:
    """What `kernel`, a step of `plan`, reads and writes."""
    # A counter of a loop around the kernel stands still during one call.
    sizes = dict.fromkeys(_counters(plan.steps), 1) | extents(kernel)
    locals = local_axes(kernel.body)
    reads, writes = _Regions(plan, sizes, locals), _Regions(plan, sizes, locals)
    for load in loads(kernel):
        reads.touch(load.buffer, load.index)
    for store in stores(kernel):
        writes.touch(store.buffer, store.index)
    return Traffic(reads.bytes(), writes.bytes())


def distances(plan: Plan) -> tuple[int, dict[str, int]]:
    """The bytes that all kernels of `plan` touch, and of each kernel outside loops, by its name,
    those that it reads of parameters and arguments which no other one touches.
    """
    moved = {k.name: traffic(k, plan) for k in plan.kernels()}
    sizes: dict[str, int] = {}
    users = Counter[str]()
    for t in moved.values():
        for name in t.read.keys() | t.written.keys():
            users[name] += 1
            most = max(t.read.get(name, 0), t.written.get(name, 0))
            sizes[name] = max(most, sizes.get(name, 0))
    arena = {n for n in sizes if plan.buffer(n).space == "arena"}
    given = sum(size for n, size in sizes.items() if n not in arena)
    alone = {n for n in sizes if users[n] == 1} - arena
    far = {
        k.name: sum(size for n, size in moved[k.name].read.items() if n in alone)
        for k in plan.steps if isinstance(k, Kernel)
    }  # fmt: skip
    return given + min(plan.arena_bytes, sum(sizes[n] for n in arena)), far


def _counters(steps: Iterable[Step]) -> list[str]:
    found = []
    for step in steps:
        if isinstance(step, Loop):
            found += [step.counter, *_counters(step.body)]
    return found


@dataclass(slots=True)
class _Regions:
    """The distinct regions touched of every root buffer, and how many elements each has."""

    plan: Plan
    extents: Mapping[str, int]
    locals: Mapping[str, frozenset[str]]
    found: dict[str, dict[object, int]] = field(default_factory=dict)

    def touch(self, name: str, index: tuple[Index, ...]) -> None:
        shape = self.plan.buffer(name).type.shape
        ranges = tuple(self.range(i, n) for i, n in zip(index, shape, strict=True))
        axes = frozenset[str]().union(*(self.axes(i) for i in index))
        count = min(math.prod(r[0] for r in ranges), self.points(axes))
        self.found.setdefault(self.plan.root(name).name, {})[name, ranges] = count

    def range(self, index: Index, extent: int) -> tuple[int, int, int]:
        """How many values an index takes in a dimension of `extent`, its least and greatest."""
        if not isinstance(index, Affine):
            return min(extent, self.points(self.axes(index))), 0, extent - 1
        low, high = index.bounds(self.extents)
        low, high = max(low, 0), min(high, extent - 1)
        return max(0, min(self.points(index.axes), high - low + 1)), low, high

    def axes(self, index: Index) -> frozenset[str]:
        return frozenset(index.axes) if isinstance(index, Affine) else _axes(index, self.locals)

    def points(self, axes: Iterable[str]) -> int:
        return math.prod(self.extents[a] for a in axes)

    def bytes(self) -> dict[str, int]:
        totals = {}
        for name, regions in self.found.items():
            type = self.plan.buffer(name).type
            totals[name] = min(sum(regions.values()), type.size) * type.dtype.bytes
        return totals


def local_axes(body: tuple[Stmt, ...]) -> dict[str, frozenset[str]]:
    """For every local the axes its value depends on."""
    known: dict[str, frozenset[str]] = {}

    def visit(statements: tuple[Stmt, ...]) -> None:
        for s in statements:
            match s:
                case Let(name, value):
                    known[name] = _axes(value, known)
                case For(body=inner):
                    visit(inner)
                case Fold(names, _, axes, values, inner):
                    visit(inner)
                    used = frozenset[str]().union(*(_axes(v, known) for v in values))
                    known.update(dict.fromkeys(names, used - {a.name for a in axes}))
                case Store():
                    pass

    visit(body)
    return known


def _axes(expr: Expr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The axes an expression depends on, locals looked through."""
    inner = (known.get(e.name, frozenset()) for e in walk(expr) if isinstance(e, Ref))
    return axes_of(expr).union(*inner)
