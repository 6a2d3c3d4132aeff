"""What several workers may do at once.

All workers run the same plan. A kernel with `Schedule.parallel` is split: the steps of its
outermost loops are shared out by number, any step to any worker. Any other kernel is worker 0's.
Nobody waits for anybody but at the kernels with `barrier`, so two kernels with none between them
must not get in each other's way:

    kernel k0: %1[i] = …        parallel i       a barrier is needed: another worker wrote %1[i]
    barrier
    kernel k1: y[j] = … %1[i]   parallel j
    kernel k2: loss = … y[j]                     missing here: worker 0 reads y of all

The rounds of a `Loop` that is `parallel` are shared out in the same way, and whoever runs a round
runs all of its kernels: no two rounds touch what one of them writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.body import accesses, extents, loads, stores
from nncompiler.ir.kernel import (
    Axis,
    Buffer,
    Fold,
    For,
    Kernel,
    Let,
    Loop,
    Schedule,
    Step,
    Stmt,
    Store,
)
from nncompiler.ir.scalar import Affine, Index, Load
from nncompiler.record import dataclass

#: Bytes of one block of memory: what tells the block apart, from, to.
Stretch = tuple[str, int, int]
#: What workers run between barriers: a kernel, or a loop whose rounds they share out.
Unit: TypeAlias = Kernel | Loop
#: The indices of an access, and the extents of what occurs in them.
_Access: TypeAlias = tuple[tuple[Index, ...], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Touched:
    """The bytes that statements read and write."""

    reads: tuple[Stretch, ...]
    writes: tuple[Stretch, ...]

    def clashes(self, other: Touched) -> bool:
        """Whether one writes what the other touches, so that their order matters."""
        return (
            _overlap(self.writes, other.reads)
            or _overlap(self.writes, other.writes)
            or _overlap(self.reads, other.writes)
        )


def touched(body: tuple[Stmt, ...], buffers: Mapping[str, Buffer]) -> Touched:
    return _touched(accesses(body), buffers)


def _touched(found: Iterable[Load | Store], buffers: Mapping[str, Buffer]) -> Touched:
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for x in found:
        (reads if isinstance(x, Load) else writes)[x.buffer] = None
    return Touched(
        tuple(stretch(buffers[n], buffers) for n in reads),
        tuple(stretch(buffers[n], buffers) for n in writes),
    )


def stretch(buffer: Buffer, buffers: Mapping[str, Buffer]) -> Stretch:
    """Where a buffer's bytes are, views looked through; a block of its own without an offset."""
    start, size = 0, buffer.nbytes
    while buffer.space == "view" and buffer.base is not None:
        start += buffer.offset or 0
        buffer = buffers[buffer.base]
    if buffer.space in ("arena", "state") and buffer.offset is not None:
        return buffer.space, start + buffer.offset, start + buffer.offset + size
    return f"{buffer.space} {buffer.name}", start, start + size


def _overlap(some: tuple[Stretch, ...], others: tuple[Stretch, ...]) -> bool:
    for block, begin, end in some:
        for where, first, behind in others:
            if begin < behind and first < end and block == where:
                return True
    return False


def chain(loop: For, schedule: Schedule) -> tuple[Axis, ...]:
    """The axes of a loop and those directly nested in it, as they run from the outside in; in a
    contraction those outside of all reductions and of turned sums, in a turned copy not those
    inside its squares.
    """
    place = {name: n for n, name in reversed([*enumerate(schedule.order)])}
    axes = tuple(sorted(loop.axes, key=lambda a: place.get(a.name, 0)))
    inner = loop.body
    while len(inner) == 1 and isinstance(inner[0], For) and not inner[0].ordered:
        axes += tuple(sorted(inner[0].axes, key=lambda a: place.get(a.name, 0)))
        inner = inner[0].body
    if schedule.strategy == "turn":
        outer = [a for a in axes if a.name not in (*schedule.vector, schedule.register)]
        return (*outer, *(a for a in axes if a.name in schedule.vector))
    if schedule.strategy == "contract":
        names = {a.name for a in axes}
        inside = next((n for n, x in enumerate(schedule.order) if x not in names), len(place))
        axes = tuple(a for a in axes if place.get(a.name, -1) < inside)
        axes = tuple(a for a in axes if a.name not in schedule.vector[1:])
        return tuple(sorted(axes, key=lambda a: place.get(a.name, -1)))
    return axes


def shared_loops(kernel: Kernel, buffers: Mapping[str, Buffer]) -> tuple[For, ...]:
    """The loops that make up a kernel if their steps may be shared out; else none.

    What stands beside them is run by every worker: it must not store, nor read what the loops
    write; and no loop may touch what another writes.
    """
    loops = tuple(s for s in kernel.body if isinstance(s, For))
    beside = tuple(s for s in kernel.body if isinstance(s, (Let, Fold)))
    if len(loops) + len(beside) < len(kernel.body) or any(loop.ordered for loop in loops):
        return ()
    if len(kernel.body) == 1:
        return loops
    parts = [touched((loop,), buffers) for loop in loops]
    rest = touched(beside, buffers)
    if rest.writes or any(rest.clashes(p) for p in parts):
        return ()
    return loops if _apart(parts) else ()


def _apart(parts: Sequence[Touched]) -> bool:
    """Whether no part writes what another touches: a sweep over memory, as there may be many."""
    found = [(*x, n, False) for n, part in enumerate(parts) for x in part.reads]
    found += [(*x, n, True) for n, part in enumerate(parts) for x in part.writes]
    around: list[tuple[str, int, int, int, bool]] = []
    for here in sorted(found):
        around = [x for x in around if x[0] == here[0] and here[1] < x[2]]
        if any(x[3] != here[3] and (x[4] or here[4]) for x in around):
            return False
        around.append(here)
    return True


#: Parts of a kernel, at most: the workers count them in bytes.
MOST_PARTS = 255


def units(steps: tuple[Step, ...]) -> Iterator[Unit]:
    """Every unit in order, those of a loop that all run together once."""
    for step in steps:
        if isinstance(step, Loop) and not step.parallel:
            yield from units(step.body)
        else:
            yield step


def is_split(unit: Unit) -> bool:
    return unit.parallel if isinstance(unit, Loop) else bool(unit.schedule.parallel)


def accessed(unit: Unit, buffers: Mapping[str, Buffer]) -> Touched:
    """The bytes that a unit reads and writes."""
    return _touched([x for k, _ in _inside(unit, {}) for x in accesses(k.body)], buffers)


def first_kernel(unit: Unit) -> str:
    """The name of a unit's first kernel, which tells it apart."""
    return next((k.name for k, _ in _inside(unit, {})), "")


def _inside(step: Step, counters: Mapping[str, int]) -> Iterator[tuple[Kernel, Mapping[str, int]]]:
    """The kernels of a step, each with the extents of the loops around it."""
    if isinstance(step, Kernel):
        yield step, counters
        return
    for s in step.body:
        yield from _inside(s, {**counters, step.counter: step.extent})


def independent(loop: Loop, buffers: Mapping[str, Buffer]) -> bool:
    """Whether no round of a loop touches what another one writes: along some dimension of every
    buffer that is written, the rounds go on by as much as one of them reaches."""
    accesses: dict[str, list[_Access]] = {}
    written: dict[str, None] = {}
    for kernel, counters in _inside(loop, {}):
        sizes = {**extents(kernel), **counters}
        found = stores(kernel)
        touching = [(x.buffer, x.index) for x in loads(kernel)]
        for name, index in touching + [(s.buffer, s.index) for s in found]:
            accesses.setdefault(name, []).append((index, sizes))
        written |= dict.fromkeys(s.buffer for s in found)
    places = {name: stretch(buffers[name], buffers) for name in accesses}
    for name in written:
        if any(_overlap((places[name],), (p,)) for n, p in places.items() if n != name):
            return False
        rank = buffers[name].type.rank
        if not any(_at_others(loop.counter, accesses[name], d) for d in range(rank)):
            return False
    return True


def _at_others(counter: str, accesses: list[_Access], dimension: int) -> bool:
    """Whether different rounds are surely at different places along a dimension."""
    strides, low, high = set[int](), 0, 0
    for n, (index, sizes) in enumerate(accesses):
        place = index[dimension]
        if not isinstance(place, Affine) or not set(place.axes) <= sizes.keys():
            return False  # a computed place, or one that follows a loop around this one
        strides.add(place.coefficient(counter))
        least, most = place.bounds({**sizes, counter: 1})
        low, high = (min(low, least), max(high, most)) if n else (least, most)
    return len(strides) == 1 and abs(strides.pop()) > high - low


def split_problem(kernel: Kernel, buffers: Mapping[str, Buffer]) -> str | None:
    """Why the steps of a kernel cannot be shared out as its schedule says, if they cannot."""
    if kernel.schedule.parts > MOST_PARTS:
        return f"expected at most {MOST_PARTS} parts, but found {kernel.schedule.parts}"
    wanted = set(kernel.schedule.parallel)
    loops = shared_loops(kernel, buffers)
    if not loops:
        return "its statements do not allow that workers share it"
    for loop in loops:
        names = [a.name for a in chain(loop, kernel.schedule)]
        count = len(wanted.intersection(names))
        if not count or set(names[:count]) - wanted:
            return f"workers share outermost loops, but here they are {' '.join(names)}"
    return None
