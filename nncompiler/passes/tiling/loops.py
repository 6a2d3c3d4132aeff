"""Which axes of a nest run over SIMD lanes, and the order of its loops.

Candidates are compared by cycles: of instructions, of lanes gathered one by one, of partial
vectors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.body import expressions, statements
from nncompiler.ir.kernel import Buffer, Fold, For, Kernel, Let, Schedule, Stmt, Store
from nncompiler.ir.once import once
from nncompiler.ir.scalar import PRIMITIVES, Affine, Apply, Index, Load, axes_of
from nncompiler.passes.tiling.accesses import nodes, stride_of
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]

#: Cycles of a transcendental primitive, and of a partial vector over a whole one.
_TRANSCENDENTAL, _MASKED = 15.0, 1.5
#: Cycles of gathering or scattering one lane.
LANE = 1.5
#: Cycles of an element of a transposition.
_TURNED = 0.5
#: Least extent of both axes of a transposition.
_SQUARE = 4


@dataclass(frozen=True, slots=True)
class LoopLanes:
    """Picks at most one axis on each path of nesting, if told, `among` these."""

    buffers: Buffers
    lanes: int
    among: frozenset[str] | None = None

    def chosen(self, body: Sequence[Stmt]) -> tuple[float, tuple[str, ...]]:
        """Least cycles of `body`, and the axes: those that are best for each loop or, where one
        loop has two of them, since loops side by side share axes, the one that is best for all.
        """
        cycles, names = self.best(body, None)
        names = tuple(dict.fromkeys(names))
        if not _meet(body, names):
            return cycles, names
        found = (replace(self, among=frozenset({n})).best(body, None) for n in names)
        cycles, names = min(found, key=lambda option: option[0])
        return cycles, tuple(dict.fromkeys(names))

    def best(self, body: Iterable[Stmt], lane: str | None) -> tuple[float, tuple[str, ...]]:
        """Least cycles of one run of `body` with `lane` over lanes already, and the axes chosen
        inside.
        """
        cycles, names = 0.0, tuple[str, ...]()
        for s in body:
            if isinstance(s, (For, Fold)):
                more, inner = self.loop(s, lane)
                cycles, names = cycles + more, (*names, *inner)
            else:
                cycles += self.cost(s, lane)
        return cycles, names

    def loop(self, s: For | Fold, lane: str | None) -> tuple[float, tuple[str, ...]]:
        points = math.prod(a.extent for a in s.axes)
        inside, names = self.inside(s, lane)
        options = [(points * (inside + 1), names)]
        ordered = isinstance(s, For) and s.ordered
        for axis in s.axes if lane is None and not ordered else ():
            if axis.extent < 2 or (self.among is not None and axis.name not in self.among):
                continue
            trips = axis.extent // self.lanes + (_MASKED if axis.extent % self.lanes else 0)
            inside, names = self.inside(s, axis.name)
            finish = 4 * math.log2(self.lanes) if isinstance(s, Fold) else 0
            cycles = points / axis.extent * trips * (inside + 1) + finish
            options.append((cycles, (axis.name,)))
        return min(options, key=lambda option: option[0])

    def inside(self, s: For | Fold, lane: str | None) -> tuple[float, tuple[str, ...]]:
        cycles, names = self.best(s.body, lane)
        return cycles + (self.cost(s, lane) if isinstance(s, Fold) else 0.0), names

    def cost(self, s: Stmt, lane: str | None) -> float:
        """Instructions of the statement's own expressions and store."""
        cycles, places = _instructions(s)
        return cycles + sum([self.access(x.index, self.buffers[x.buffer], lane) for x in places])

    def access(self, index: tuple[Index, ...], buffer: Buffer, lane: str | None) -> float:
        if lane is None or stride_of(index, buffer, lane) in (0, 1):
            return 1.0
        return LANE * self.lanes


def _meet(body: Iterable[Stmt], names: Collection[str], around: int = 0) -> bool:
    """Whether a path of nesting, with so many of the axes `around` it, has two of them."""
    for s in body:
        if isinstance(s, (For, Fold)):
            count = around + sum(a.name in names for a in s.axes)
            if count > 1 or _meet(s.body, names, count):
                return True
    return False


@once
def _instructions(s: Stmt) -> tuple[float, tuple[Load | Store, ...]]:
    """Cycles of a statement's own instructions, and its accesses, which the lanes decide on."""
    places: list[Load | Store] = [s] if isinstance(s, Store) else []
    cycles = 0.01 if isinstance(s, Let) else len(s.values) if isinstance(s, Fold) else 0.0
    for e in nodes(expressions(s)):
        match e:
            case Apply(op):
                cycles += _TRANSCENDENTAL if PRIMITIVES[op].transcendental else 1.0
            case Load():
                places.append(e)
            case _:
                cycles += 0.1
    return cycles, tuple(places)


def transposition(kernel: Kernel, buffers: Buffers) -> tuple[float, Schedule] | None:
    """The schedule of a copy that is contiguous along one axis where it reads and along another
    where it writes, and its cycles; None for everything else.
    """
    match kernel.body:
        case (For(axes, (Store(target, to, Load(source, origin, dtype, None)),)),):
            pass
        case _:
            return None
    if dtype.bytes < 4:
        return None
    steps = {
        a: (stride_of(to, buffers[target], a), stride_of(origin, buffers[source], a))
        for a in (axis.name for axis in axes if axis.extent >= _SQUARE)
    }
    written = [n for n, (w, r) in steps.items() if w == 1 and r not in (0, 1, None)]
    read = [n for n, (w, r) in steps.items() if r == 1 and w not in (0, 1, None)]
    if not written or not read:
        return None
    points = math.prod(a.extent for a in axes)
    order = [a.name for a in axes if a.name not in (written[0], read[0])]
    order += [written[0], read[0]]
    return _TURNED * points, Schedule("turn", (written[0],), read[0], order=tuple(order))


def loop_order(kernel: Kernel, buffers: Buffers) -> tuple[str, ...]:
    """All axes, the one with the longest strides outermost; empty when that is how they are
    written.
    """
    strides: dict[str, int] = {}
    for s in statements(kernel.body):
        for x in _instructions(s)[1]:
            for i, step in zip(x.index, buffers[x.buffer].layout, strict=True):
                for axis in i.axes if isinstance(i, Affine) else axes_of(i):
                    strides[axis] = max(strides.get(axis, 0), step)

    order: list[str] = []
    changed = False
    for s in statements(kernel.body):
        if isinstance(s, (For, Fold)):
            ordered = isinstance(s, For) and s.ordered
            axes = list(s.axes)
            if not ordered:
                axes.sort(key=lambda a: -strides.get(a.name, 0))
            changed = changed or axes != list(s.axes)
            order += [a.name for a in axes]
    return tuple(dict.fromkeys(order)) if changed else ()
