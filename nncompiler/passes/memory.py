"""Offsets for the arena: lifetimes, writes in place, then packing.

buffer %2 f32[64,512] arena      ──▶   buffer %2 f32[64,512] @0       live k0..k6
buffer %9 f32[64,512] arena            buffer %9 f32[64,512] @0       live k6..k7   in place of %2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nncompiler.ir.kernel import (
    Buffer,
    Kernel,
    Plan,
    Step,
    reads_and_writes,
    step_reads_and_writes,
)
from nncompiler.ir.model import align
from nncompiler.passes.allocation import Interval, Problem, allocate, live_bound
from nncompiler.passes.hazards import may_overwrite
from nncompiler.passes.order import root_name

#: Search steps for the offsets (`allocation.allocate`); a plan of a model is almost always placed
#: at its bound greedily.
BUDGET = 2_000


@dataclass(slots=True)
class _Lifetimes:
    """First and last step of every arena buffer, and who takes over whose bytes."""

    live: dict[str, tuple[int, int]]
    heir_of: dict[str, str]


def place(plan: Plan) -> Plan:
    """`plan` with live ranges, in-place partners, offsets, arena size and the live-byte bound."""
    buffers = plan.table()
    times = _Lifetimes(_live_ranges(plan.steps, buffers), {})
    _share(plan.steps, buffers, times)
    problem, chains = _problem(buffers, times)
    solution = allocate(problem, budget=BUDGET)
    offset_of = {
        name: at for chain, at in zip(chains, solution.offsets, strict=True) for name in chain
    }
    placed = [
        replace(
            b,
            offset=offset_of[b.name],
            live=times.live[b.name],
            in_place_of=times.heir_of.get(b.name),
        )
        if b.space == "arena" and b.name in offset_of
        else b
        for b in plan.buffers
        if b.space != "arena" or b.name in offset_of
    ]
    return replace(
        plan, buffers=tuple(placed), arena_bytes=align(solution.peak), bound=live_bound(problem)
    )


def _live_ranges(steps: Sequence[Step], buffers: dict[str, Buffer]) -> dict[str, tuple[int, int]]:
    live: dict[str, tuple[int, int]] = {}
    for t, step in enumerate(steps):
        reads, writes = step_reads_and_writes(step)
        for name in sorted(reads | writes):  # the packing depends on the order
            root = root_name(buffers, name)
            if buffers[root].space == "arena":
                live[root] = (live.get(root, (t, t))[0], t)
    return live


def _share(steps: Sequence[Step], buffers: dict[str, Buffer], times: _Lifetimes) -> None:
    """Let a result take over the bytes of an operand that dies in the same kernel, largest
    first."""
    taken: set[str] = set()
    viewed = {root_name(buffers, n) for n, b in buffers.items() if b.space == "view"}
    for t, step in enumerate(steps):
        if not isinstance(step, Kernel):
            continue
        reads, writes = reads_and_writes(step)
        born = sorted(
            (n for n in writes if n in times.live and times.live[n][0] == t),
            key=lambda n: (-buffers[n].nbytes, n),
        )
        dying = [
            n
            for n in sorted(reads)
            if n in times.live and times.live[n][1] == t and n not in viewed
        ]
        for new in born:
            for old in dying:
                if old in taken or old == new or not _fits(buffers[old], buffers[new]):
                    continue
                if not _only_after(step, old, new):
                    continue
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
        start, end = times.live[chain[0]][0], times.live[chain[-1]][1] + 1
        intervals.append(Interval(name, max(align(buffers[n].nbytes) for n in chain), start, end))
        chains.append(chain)
    return Problem(tuple(intervals), 64), chains
