"""Kernels that hand large arrays on, run round by round of the axes they have in common, while a
round's part of an array is in a cache.

    kernel k0                               loop n0 < 8 {
      for i < 8, j < 4, k < 256 …             loop n1 < 4 {
        %1[i,j,k,l] = …                         kernel k0
    kernel k1                        ──▶          for k < 256 … %1[n0,n1,k,l] = …
      for i < 8, k < 256, j < 4 …               kernel k1
        … %1[i,j,k,l] …                           for k < 256 … %1[n0,n1,k,l] …
                                              }
                                            }

The scores of attention are an example: of all images and heads together they come from beyond the
second-level cache in each of the kernels that read them, of one head they do not. Kernels in
between that have no such axes run behind the loop, if they may. Each element is computed as it
was. Worth it where the schedules of all rounds take no more cycles than the whole (`tile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import TypeAlias

from nncompiler.ir.body import accesses, extents, reads_and_writes, step_reads_and_writes
from nncompiler.ir.kernel import Buffer, For, Kernel, Loop, Plan, Schedule, Step
from nncompiler.ir.lifetimes import roots_of
from nncompiler.ir.scalar import Affine
from nncompiler.ir.workers import independent
from nncompiler.passes.lowering.rewriting import numbered, substituted
from nncompiler.passes.memory.array_contraction import contract_arrays
from nncompiler.passes.parallel import ROUNDS
from nncompiler.record import dataclass, field, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]
#: A dimension of a buffer.
_Place: TypeAlias = tuple[str, int]

#: Bytes of an array that leaves too little of the third-level cache to all else of a step (with
#: 2 MiB nothing is gained), and of one round's part, which stays in the second-level cache.
LARGE, ROUND = 3 << 20, 256 * 1024
#: How many kernels may be put off until behind a loop.
PUT_OFF = 8
#: Cycles of all rounds, of those of the whole.
WORSE = 1.01


def fuse_loops(plan: Plan, cost: Cost, large: int = LARGE, part: int = ROUND) -> Plan:
    """The plan with such kernels in loops, for arrays of so many bytes; those of a round are of
    one `part` where that is possible.
    """
    table, steps, fused = plan.table(), list[Step](), set[str]()
    taken = {a for k in plan.kernels() for a in extents(k)} | {x.counter for x in plan.loops()}
    names = (n for x in count() if (n := f"n{x}") not in taken)
    rest = list(plan.steps)
    while rest:
        found = next(_groups(rest, _Arrays(table, large, part), cost), None)
        if found is None:
            steps.append(rest.pop(0))
        else:
            loop = found.loop(names)
            fused.add(loop.counter)
            steps += [loop, *found.put_off]
            del rest[: len(found.kernels) + len(found.put_off)]
    if not fused:
        return plan
    plan = replace(plan, steps=numbered(tuple(steps)))
    return contract_arrays(plan, frozenset(fused))


@dataclass(frozen=True, slots=True)
class _Arrays:
    table: Buffers
    large: int
    part: int

    def large_ones(self, kernel: Kernel) -> list[str]:
        """Those that a kernel touches, the largest first."""
        names = frozenset.union(*reads_and_writes(kernel))
        found = [n for n in names if self.table[n].nbytes >= self.large]
        return sorted(found, key=lambda n: (-self.table[n].nbytes, n))

    def split(self, name: str) -> int:
        """How many dimensions of an array make rounds of its parts."""
        array = self.table[name]
        shape, dims = array.type.shape, 0
        while dims < len(shape) and array.nbytes > self.part * math.prod(shape[:dims]):
            dims += 1
        return dims


def _groups(steps: Sequence[Step], arrays: _Arrays, cost: Cost) -> Iterator[_Group]:
    """Groups that begin with the first step: those of the largest arrays, and of the smallest
    rounds, first.
    """
    first = steps[0]
    if not isinstance(first, Kernel):
        return
    for name in arrays.large_ones(first):
        for dims in range(arrays.split(name), 0, -1):
            group = _Group.of(first, name, dims, arrays)
            if group is not None and group.grow(steps[1:], cost) and group.is_legal():
                yield group


@dataclass(slots=True)
class _Group:
    """Kernels to run round by round, each with its axes by the number of the loop they become, and
    those that are put off; `loops` are the numbers of loops that go along a dimension.
    """

    arrays: _Arrays
    rounds: tuple[int, ...]
    loops: dict[_Place, int]
    kernels: list[tuple[Kernel, tuple[str, ...]]] = field(default_factory=list)
    put_off: list[Step] = field(default_factory=list)

    @staticmethod
    def of(kernel: Kernel, name: str, dims: int, arrays: _Arrays) -> _Group | None:
        """A group that goes along the outermost dimensions of an array."""
        shape = arrays.table[name].type.shape
        group = _Group(arrays, shape[:dims], {(name, d): d for d in range(dims)})
        return group if group._add(kernel) else None

    def grow(self, steps: Sequence[Step], cost: Cost) -> bool:
        """Whether others of the steps that follow join the first kernel, up to the last one that
        finds a large array in a cache.
        """
        put_off, found = list[Step](), (0, 0)
        if not self._cheap(cost):
            return False
        for step in steps:
            if len(put_off) > PUT_OFF:
                break
            if any(self._clash(p, step) for p in put_off) or not self._add(step):
                put_off.append(step)
            elif not self._cheap(cost):
                self.kernels.pop()
                put_off.append(step)
            elif self._shares():
                found = len(self.kernels), len(put_off)
        joined, off = found
        self.kernels, self.put_off = self.kernels[:joined], put_off[:off]
        return joined > 1

    def _add(self, step: Step) -> bool:
        """Whether a kernel has axes along the same dimensions; then it is one of the group."""
        if not isinstance(step, Kernel) or step.schedule != Schedule() or len(step.body) != 1:
            return False
        (nest,) = step.body
        if not isinstance(nest, For) or nest.ordered or len(nest.axes) <= len(self.rounds):
            return False
        extent = {a.name: a.extent for a in nest.axes}
        found: list[set[str]] = [set() for _ in self.rounds]
        places = [
            ((x.buffer, d), i.single if isinstance(i, Affine) else None)
            for x in accesses(step.body)
            for d, i in enumerate(x.index)
        ]
        for place, axis in places:
            n = self.loops.get(place)
            if n is not None and axis in extent and extent[axis] == self.rounds[n]:
                found[n].add(axis)
        axes = tuple(min(names) for names in found if len(names) == 1)
        if len({*axes}) != len(self.rounds):
            return False
        for place, axis in places:
            if axis in axes:
                self.loops.setdefault(place, axes.index(axis))
        self.kernels.append((step, axes))
        return True

    def _shares(self) -> bool:
        """Whether the last kernel touches a large array that others do."""
        *others, (last, _) = self.kernels
        found = {n for k, _ in others for n in self.arrays.large_ones(k)}
        return any(n in found for n in self.arrays.large_ones(last))

    def _cheap(self, cost: Cost) -> bool:
        """Whether rounds of the last kernel take as many cycles as all of it at once."""
        kernel, axes = self.kernels[-1]
        part = _round(kernel, dict(zip(axes, map(str, range(len(axes))), strict=True)))
        rounds = math.prod(self.rounds)
        table = {n: self._part(b) for n, b in self.arrays.table.items()}
        return cost(part, table) * rounds <= WORSE * cost(kernel, self.arrays.table)

    def _part(self, buffer: Buffer) -> Buffer:
        """What one round touches of a buffer."""
        shape = tuple(
            1 if (buffer.name, d) in self.loops else n for d, n in enumerate(buffer.type.shape)
        )
        return replace(buffer, type=replace(buffer.type, shape=shape), strides=buffer.layout)

    def _clash(self, a: Step, b: Step) -> bool:
        """Whether the order of two steps matters."""
        roots = roots_of(self.arrays.table)
        (reads, writes), (others, written) = (
            tuple({roots[n] for n in names} for names in step_reads_and_writes(s)) for s in (a, b)
        )
        return bool(writes & (others | written) or reads & written)

    def is_legal(self) -> bool:
        """Whether no round touches what another writes."""
        loop = self.loop(iter(f"round {n}" for n in count()))
        return all(independent(x, self.arrays.table) for x in _nested(loop))

    def loop(self, names: Iterator[str]) -> Loop:
        """The kernels, round by round."""
        counters = [next(names) for _ in self.rounds]
        steps: tuple[Step, ...] = tuple(
            _round(k, dict(zip(axes, counters, strict=True))) for k, axes in self.kernels
        )
        # The fewest rounds that workers can share are outermost: what is made and used up in a
        # round has room for all of these, but only for one of the others (`contract_arrays`).
        loops = [*zip(counters, self.rounds, strict=True)]
        loops.sort(key=lambda x: x[1] if x[1] >= ROUNDS else math.inf)
        for counter, extent in reversed(loops):
            steps = (Loop(counter, extent, steps),)
        (loop,) = steps
        assert isinstance(loop, Loop)
        return loop


def _round(kernel: Kernel, counters: Mapping[str, str]) -> Kernel:
    """One round of a kernel: axes stand still at the counters of loops around it."""
    (nest,) = substituted(kernel.body, {a: Affine.axis(c) for a, c in counters.items()})
    assert isinstance(nest, For)
    inner = tuple(a for a in nest.axes if a.name not in counters)
    return replace(kernel, body=(replace(nest, axes=inner),))


def _nested(loop: Loop) -> Iterator[Loop]:
    yield loop
    for step in loop.body:
        if isinstance(step, Loop):
            yield from _nested(step)
