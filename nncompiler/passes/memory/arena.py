"""Offsets for the arena: lifetimes (`ir.lifetimes`), writes in place, then packing.

buffer %2 f32[64,512] arena      ──▶   buffer %2 f32[64,512] @0       live k0..k6
buffer %9 f32[64,512] arena            buffer %9 f32[64,512] @0       live k6..k7   in place of %2
"""

from __future__ import annotations

from collections.abc import Sequence

from nncompiler.ir.body import reads_and_writes, step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Kernel, Plan, Step
from nncompiler.ir.lifetimes import Lifetime, lifetimes, outermost_loops, placed, roots_of
from nncompiler.ir.model import align
from nncompiler.passes.lowering.hazards import may_overwrite, may_overwrite_stepwise
from nncompiler.passes.memory.allocation import Interval, Problem, allocate, live_bound
from nncompiler.record import dataclass, replace

#: Search steps for the offsets (`allocation.allocate`), where greedy placement is further from the
#: bound than this part of it: plans of models almost never are.
BUDGET, NEAR = 2_000, 1 / 256


@dataclass(slots=True)
class _Lifetimes:
    """The lifetime of every arena buffer, and who takes over whose bytes."""

    live: dict[str, Lifetime]
    heir_of: dict[str, str]


def place(plan: Plan) -> Plan:
    """`plan` with live ranges, in-place partners, offsets, arena size and the live-byte bound."""
    buffers = plan.table()
    live = lifetimes(plan.steps, roots_of(buffers))
    arena = {n: t for n, t in sorted(live.items()) if buffers[n].space == "arena"}
    times = _Lifetimes(dict(sorted(arena.items(), key=lambda item: item[1].first)), {})
    _share(plan.steps, buffers, times)
    _share_stacks(plan.steps, buffers, times)
    problem, chains = _problem(buffers, times)
    bound = live_bound(problem)
    solution = allocate(problem, budget=0)
    if solution.peak > bound * (1 + NEAR):
        solution = allocate(problem, budget=BUDGET)
    offset_of = {
        name: at for chain, at in zip(chains, solution.offsets, strict=True) for name in chain
    }
    placed = [
        replace(
            b,
            offset=offset_of[b.name],
            live=(times.live[b.name].first, times.live[b.name].last),
            in_place_of=times.heir_of.get(b.name),
        )
        if b.space == "arena" and b.name in offset_of
        else b
        for b in plan.buffers
        if b.space != "arena" or b.name in offset_of
    ]
    return replace(
        plan, buffers=tuple(placed), arena_bytes=align(solution.peak), bound=bound
    )


def _share(steps: Sequence[Step], buffers: dict[str, Buffer], times: _Lifetimes) -> None:
    """Let a result take over the bytes of an operand that dies in the same kernel, largest
    first."""
    taken: set[str] = set()
    viewed = {root for name, root in roots_of(buffers).items() if name != root}
    for t, (kernel, loops) in enumerate(placed(steps)):
        reads, writes = reads_and_writes(kernel)
        # what lives through every step of a loop around the kernel neither begins nor ends in it
        here = {n for n in reads | writes if n in times.live and times.live[n].home == loops}
        born = sorted(
            (n for n in writes & here if times.live[n].first == t),
            key=lambda n: (-buffers[n].nbytes, n),
        )
        dying = [n for n in sorted(reads & here) if times.live[n].last == t and n not in viewed]
        for new in born:
            for old in dying:
                if old in taken or old == new or not _fits(buffers[old], buffers[new]):
                    continue
                if not _only_after(kernel, old, new):
                    continue
                times.heir_of[new] = old
                taken.add(old)
                break


def _share_stacks(steps: Sequence[Step], buffers: dict[str, Buffer], times: _Lifetimes) -> None:
    """Let a stack take over the bytes of one that dies in the same loop, step by step."""
    taken = set(times.heir_of.values())
    viewed = {root for name, root in roots_of(buffers).items() if name != root}
    for loop, first, last in outermost_loops(steps):
        reads, writes = step_reads_and_writes(loop)
        plain = {n for n in reads | writes if n in times.live and not times.live[n].home} - viewed
        born = [n for n in sorted(writes & plain) if times.live[n].first == first]
        dying = [n for n in sorted(reads & plain) if times.live[n].last == last]
        for new in sorted(set(born) - set(times.heir_of), key=lambda n: (-buffers[n].nbytes, n)):
            for old in dying:
                if old in taken or old == new or not _fits(buffers[old], buffers[new]):
                    continue
                if times.live[old].first < first and may_overwrite_stepwise(loop, old, new):
                    times.heir_of[new] = old
                    taken.add(old)
                    break


def _fits(old: Buffer, new: Buffer) -> bool:
    same = old.type.shape == new.type.shape and old.layout == new.layout
    return same and old.type.dtype.bytes == new.type.dtype.bytes and old.nbytes > 0


def _only_after(kernel: Kernel, old: str, new: str) -> bool:
    """`new` may be stored over `old`, which nothing stores again after that."""
    return may_overwrite(kernel, old, new) and may_overwrite(kernel, new, old)


def _problem(buffers: dict[str, Buffer], times: _Lifetimes) -> tuple[Problem, list[list[str]]]:
    """One interval for every chain of buffers that hand their bytes on."""
    heirs = {old: new for new, old in times.heir_of.items()}
    intervals, chains = [], []
    for name in times.live:
        if name in times.heir_of:
            continue
        chain = [name]
        while chain[-1] in heirs:
            chain.append(heirs[chain[-1]])
        start, end = times.live[chain[0]].first, times.live[chain[-1]].last + 1
        intervals.append(Interval(name, max(align(buffers[n].nbytes) for n in chain), start, end))
        chains.append(chain)
    return Problem(tuple(intervals), 64), chains
