"""Share the work of a plan among workers: which loops they split, and where they meet.

    kernel k0                                  kernel k0
      for i < 64, j < 512 { … %1[i,j] … }        …
      schedule contract: … order j i | k  ──▶    schedule contract: … order j i | k, parallel j i,
    kernel k1                                                  parts 64
      for i < 64 { … %1[i,j] … }               barrier
                                               kernel k1
                                                 …
                                                 schedule loops: vector j, parallel i

Only steps of independent loops are shared out, by their number: every sum is added up by one
worker in the same order as ever, so the bits are the same for any number of workers. A kernel that
takes long falls into more parts than there are workers, so that nobody waits long for one whose
core does something else. A loop whose rounds are independent is shared as a whole. What is too
small to share is left to worker 0; a barrier stands only where a kernel touches bytes that another
worker may have written or still needs since the last one. Needs the places of all buffers
(`memory/`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nncompiler.ir.body import expressions
from nncompiler.ir.fingerprint import alike
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Loop, Plan, Schedule, Step, Stmt
from nncompiler.ir.scalar import PRIMITIVES, Apply, Expr, children
from nncompiler.ir.workers import (
    MOST_PARTS,
    Touched,
    Unit,
    accessed,
    chain,
    first_kernel,
    independent,
    is_split,
    shared_loops,
    units,
)
from nncompiler.record import dataclass, replace

#: Cycles (about) below which a kernel, or a part of one, is not worth sharing, and a whole plan.
KERNEL, PLAN = 2_000.0, 20_000.0
#: Loops are split from the outside in until there are so many steps to share out.
STEPS = 32
#: Workers that share out what is inside a packed block each pack it: so many blocks are enough.
PACKED_STEPS = 16
#: Cycles of an expression on all lanes: in a register tile, over lanes, in a turned copy, one by
#: one; and of a transcendental function over any other.
_TILE, _VECTOR, _TURNED, _SCALAR, _TRANSCENDENTAL = 1 / 64, 1 / 12, 1 / 4, 1.0, 12
#: What every worker does itself must be less than this part of a kernel.
_BESIDE = 1 / 16
#: Rounds of a loop from which on they are shared.
ROUNDS = 3
#: Parts of a kernel: with fewer each worker has one, with more they are not even at the end.
_FEW, _MANY = 8, 64
#: Steps in a packed block from which on it may be packed a few times.
_DEEP = 64


def share(plan: Plan, kernel: float = KERNEL, whole: float = PLAN) -> Plan:
    """The plan with loops to split and barriers; unchanged where one worker does as well: where
    what can be shared of the `whole` takes less than so many cycles, with no `kernel` below that.
    """
    buffers = plan.table()
    found: list[float] = []

    def visit(step: Step, times: int) -> Step:
        if isinstance(step, Loop) and _alike(step, buffers) and _cycles(step) >= kernel:
            found.append(_cycles(step) * times)
            return replace(step, parallel=True)
        if isinstance(step, Loop):
            inner = tuple(visit(s, times * step.extent) for s in step.body)
            return replace(step, body=inner)
        work = _work(step.body)
        cycles = work * _speed(step)
        if cycles < kernel or not (split := _split(step, work, buffers)):
            return step
        found.append(cycles * times)
        parts = split.parts(cycles / kernel if kernel else math.inf)
        return replace(step, schedule=replace(step.schedule, parallel=split.axes, parts=parts))

    steps = tuple(visit(s, 1) for s in plan.steps)
    if not found or sum(found) < whole:
        return plan
    accesses = {first_kernel(u): accessed(u, buffers) for u in units(steps)}
    return replace(plan, steps=_Barriers(accesses).place(steps, {})[0])


def _alike(loop: Loop, buffers: Mapping[str, Buffer]) -> bool:
    """Whether the rounds of a loop can be shared out, and are enough for some workers."""
    return ROUNDS <= loop.extent <= MOST_PARTS and independent(loop, buffers)


def _cycles(step: Step) -> float:
    if isinstance(step, Loop):
        return step.extent * sum(map(_cycles, step.body))
    return _work(step.body) * _speed(step)


@dataclass(frozen=True, slots=True)
class _Split:
    """The loops to split, from the outside in, and the number of their steps. Every call for a
    part does over again what stands beside the loops, and packs the blocks it begins in: then
    there are `blocks` of such steps, or one."""

    axes: tuple[str, ...]
    steps: int
    blocks: int

    def parts(self, most: float) -> int:
        """How many parts, at most so many; 0 where each worker does better with one."""
        count = min(self.blocks or self.steps, _MANY, most)
        if self.steps >= _DEEP * self.blocks > 0:
            count = self.blocks * (min(self.steps, _MANY, most) // self.blocks)
        return int(count) if count >= _FEW else 0


def _split(kernel: Kernel, work: float, buffers: Mapping[str, Buffer]) -> _Split | None:
    """How to split a kernel; None where that is not possible or not enough."""
    loops, schedule = shared_loops(kernel, buffers), kernel.schedule
    if loops != kernel.body and work - _expressions(loops) > _BESIDE * work:
        return None
    names: dict[str, None] = {}
    most, blocks = 0, 0 if loops == kernel.body else 1
    for loop in loops:
        steps = 1
        for axis, size in _sizes(chain(loop, schedule), schedule):
            names[axis.name] = None
            steps *= -(-axis.extent // size)
            over_lanes = schedule.tile is None and axis.name in schedule.vector
            packed = schedule.pack > 0 and axis.name in schedule.vector
            blocks = steps if packed else blocks
            if steps >= (PACKED_STEPS if packed else STEPS) or over_lanes:
                break
        most = max(most, steps)
    return _Split(tuple(names), most, blocks) if most > 1 else None


def _sizes(axes: tuple[Axis, ...], schedule: Schedule) -> list[tuple[Axis, int]]:
    """About how much of each axis one step of its loop takes."""
    rows, columns = schedule.tile or (schedule.unroll, 16)
    columns = max(columns, schedule.pack)
    others = [a.name for a in axes if a.name != schedule.register]
    over = [n for n in others if n in schedule.vector] or others[-1:] * (schedule.tile is not None)
    sizes = dict.fromkeys(over, columns) | ({schedule.register: rows} if schedule.register else {})
    return [(a, sizes.get(a.name, 1)) for a in axes]


def _speed(kernel: Kernel) -> float:
    if kernel.schedule.strategy == "contract":
        return _TILE
    if kernel.schedule.strategy == "turn":
        return _TURNED
    return _VECTOR if kernel.schedule.vector else _SCALAR


@alike
def _work(nest: tuple[Stmt, ...]) -> float:
    """The expressions that a kernel computes, each as often as it runs."""
    return _expressions(nest)


def _expressions(body: tuple[Stmt, ...]) -> float:
    total = 0.0
    for s in body:
        here = _weight(expressions(s))
        if isinstance(s, (For, Fold)):
            points = math.prod(a.extent for a in s.axes)
            total += points * (here + _expressions(s.body) + isinstance(s, Fold))
        else:
            total += here + 1
    return total


def _weight(roots: tuple[Expr, ...]) -> float:
    """Every distinct expression once."""
    total, todo, seen = 0.0, list(roots), set[int]()
    while todo:
        e = todo.pop()
        if id(e) not in seen:
            seen.add(id(e))
            todo += children(e)
            slow = isinstance(e, Apply) and PRIMITIVES[e.op].transcendental
            total += _TRANSCENDENTAL if slow else 1
    return total


@dataclass(frozen=True, slots=True)
class _Barriers:
    """`at_once`, below: what ran since the last barrier, in which other workers may still be, by
    its first kernel."""

    accesses: Mapping[str, Touched]

    def place(
        self, steps: tuple[Step, ...], at_once: dict[str, Unit]
    ) -> tuple[tuple[Step, ...], dict[str, Unit]]:
        """The steps with barriers, and what may run at once with what follows."""
        found: list[Step] = []
        for step in steps:
            if isinstance(step, Loop) and not step.parallel:
                step, at_once = self._loop(step, at_once)
            else:
                if step.barrier or any(self._clash(u, step) for u in at_once.values()):
                    step, at_once = replace(step, barrier=True), {}
                at_once = at_once | {first_kernel(step): step}
            found.append(step)
        return tuple(found), at_once

    def _loop(self, loop: Loop, before: dict[str, Unit]) -> tuple[Loop, dict[str, Unit]]:
        """The first step of a loop follows what is before it, the others follow the last."""
        if loop.extent == 0:
            return loop, before
        at_once = before
        while True:
            body, behind = self.place(loop.body, at_once)
            if body == loop.body and behind.keys() <= at_once.keys():
                return loop, behind
            loop, at_once = replace(loop, body=body), before | at_once | behind

    def _clash(self, a: Unit, b: Unit) -> bool:
        if not (is_split(a) or is_split(b)):
            return False
        return self.accesses[first_kernel(a)].clashes(self.accesses[first_kernel(b)])
