"""Arrays of fused loops get no more room than their rounds need at a time.

    loop n0 < 8 {                                     loop n0 < 8 {
      loop n1 < 4 {                                     loop n1 < 4 {
        kernel k0                                         kernel k0
          … %1[n0,n1,k,l] = …                               … %1[n0,k,l] = …
        kernel k1                              ──▶        kernel k1
          … %2[n0,n1,k,l] = exp(%1[n0,n1,k,l]) …            … %1[n0,k,l] = exp(%1[n0,k,l]) …
        kernel k2                                         kernel k2
          … %2[n0,n1,k,m] …                                 … %1[n0,k,m] …

A result takes the place, and the name, of an operand that is read for the last time: within a loop
all rounds of which must find their operands, it could not be placed there later (`arena`). What
nothing outside of a loop touches has no dimensions along its counters, but for the outermost one
with rounds enough for workers to share out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from nncompiler.ir.body import accesses, reads_and_writes, step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Fold, For, Kernel, Let, Loop, Plan, Step, Stmt, Store
from nncompiler.ir.scalar import Affine, Expr, Index, Load
from nncompiler.passes.lowering.hazards import may_overwrite
from nncompiler.passes.lowering.rewriting import changed, over
from nncompiler.passes.parallel import ROUNDS
from nncompiler.record import replace

Table: TypeAlias = Mapping[str, Buffer]


def contract_arrays(plan: Plan, fused: frozenset[str]) -> Plan:
    """The plan with such arrays in the loops with these counters."""
    plan = _in_place(plan, fused)
    for loop in [x for x in plan.steps if isinstance(x, Loop) and x.counter in fused]:
        plan = _smaller(plan, loop)
    return plan


def _in_place(plan: Plan, fused: frozenset[str]) -> Plan:
    """The plan with results of loops in place of operands that die."""
    kernels = [(k, loop) for step in plan.steps for k, loop in _placed(step)]
    uses: dict[str, list[int]] = {}
    for n, (kernel, _) in enumerate(kernels):
        for name in sorted(frozenset.union(*reads_and_writes(kernel))):
            uses.setdefault(name, []).append(n)
    table, bases = plan.table(), {b.base for b in plan.buffers}
    names: dict[str, str] = {}
    for n, (kernel, loop) in enumerate(kernels):
        if loop is None or loop.counter not in fused:
            continue
        reads, writes = reads_and_writes(kernel)
        dying = [x for x in sorted(reads) if uses[x][-1] == n and x not in bases]
        inside = {x for x in reads | writes if all(kernels[u][1] is loop for u in uses[x])}
        for new in sorted(x for x in writes if uses[x][0] == n):
            for old in dying:
                if old in (new, *names) or not _fits(table[old], table[new]):
                    continue
                # What is only needed inside had better stay small than lie where a result stays.
                small = old in inside and new not in inside and _local(loop)
                if not small and _may_overwrite(loop, kernel, old, new):
                    names[old] = new
                    break
    for old in reversed(names):
        names[old] = names.get(names[old], names[old])
    steps = tuple(_each(s, lambda k: replace(k, body=over(k.body, names))) for s in plan.steps)
    buffers = tuple(b for b in plan.buffers if b.name not in names)
    return replace(plan, steps=steps, buffers=buffers) if names else plan


def _placed(step: Step, around: Loop | None = None) -> Iterator[tuple[Kernel, Loop | None]]:
    """The kernels of a step, each with the outermost loop around it."""
    if isinstance(step, Kernel):
        yield step, around
    else:
        for s in step.body:
            yield from _placed(s, around or step)


def _fits(old: Buffer, new: Buffer) -> bool:
    same = old.type == new.type and old.layout == new.layout
    return same and old.space == new.space == "arena"


def _may_overwrite(loop: Loop, kernel: Kernel, old: str, new: str) -> bool:
    """Whether a kernel may store an array over another one: so each of its rounds may, and no
    round touches the part of another.
    """
    counters = _counters(loop)
    if len(_along(loop, counters, (old, new))) < len(counters):
        return False
    return may_overwrite(kernel, old, new) and may_overwrite(kernel, new, old)


def _along(loop: Loop, counters: Iterable[str], names: Sequence[str]) -> frozenset[int]:
    """The dimensions at which all accesses to arrays are where one of the counters is."""
    places = [Affine.axis(c) for c in counters]
    found = [
        {(d, i) for d, i in enumerate(x.index) if i in places}
        for k, _ in _placed(loop) for x in accesses(k.body) if x.buffer in names
    ]  # fmt: skip
    return frozenset(d for d, _ in set.intersection(*found))


def _each(step: Step, change: Callable[[Kernel], Kernel]) -> Step:
    if isinstance(step, Kernel):
        return change(step)
    return replace(step, body=tuple(_each(s, change) for s in step.body))


def _smaller(plan: Plan, loop: Loop) -> Plan:
    """The plan with arrays of a loop without the dimensions that differ from round to round."""
    reads, writes = step_reads_and_writes(loop)
    elsewhere = [step_reads_and_writes(s) for s in plan.steps if s is not loop]
    outside = {n for names in elsewhere for part in names for n in part}
    outside |= {b.base for b in plan.buffers if b.base is not None}
    gone = {
        b.name: _along(loop, _local(loop), (b.name,))
        for b in plan.buffers
        if b.name in writes - outside and b.space == "arena" and b.strides is None
    }
    steps = tuple(_each(s, lambda k: _without(k, gone)) if s is loop else s for s in plan.steps)
    buffers = tuple(_part(b, gone.get(b.name, frozenset())) for b in plan.buffers)
    return replace(plan, steps=steps, buffers=buffers)


def _counters(loop: Loop) -> dict[str, int]:
    """The counters of loops that have nothing else in them, and their extents."""
    (first, *_) = loop.body
    return {loop.counter: loop.extent, **(_counters(first) if isinstance(first, Loop) else {})}


def _local(loop: Loop) -> list[str]:
    """The counters of loops whose rounds follow each other, even among workers."""
    counters = _counters(loop)
    shared = next((c for c, n in counters.items() if n >= ROUNDS), None)
    return [c for c in counters if c != shared]


def _part(buffer: Buffer, gone: frozenset[int]) -> Buffer:
    shape = tuple(n for d, n in enumerate(buffer.type.shape) if d not in gone)
    return replace(buffer, type=replace(buffer.type, shape=shape)) if gone else buffer


def _without(kernel: Kernel, gone: Mapping[str, frozenset[int]]) -> Kernel:
    """A kernel that names no dimensions which are gone."""

    def part(buffer: str, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(i for d, i in enumerate(index) if d not in gone.get(buffer, ()))

    def load(e: Expr) -> Expr:
        return replace(e, index=part(e.buffer, e.index)) if isinstance(e, Load) else e

    def visit(s: Stmt) -> Stmt:
        match s:
            case For() | Fold():
                return replace(s, body=tuple(visit(x) for x in s.body))
            case Store():
                return replace(s, index=part(s.buffer, s.index))
            case Let():
                return s

    return replace(kernel, body=tuple(visit(s) for s in changed(kernel.body, load)))
