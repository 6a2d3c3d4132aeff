"""The order of kernels: any order that respects the data is right, and one that keeps little
alive is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from nncompiler.ir.body import step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Step
from nncompiler.ir.model import align
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class _Flow:
    """Per kernel: the root buffers it reads and writes, and the kernels it must follow."""

    reads: tuple[frozenset[str], ...]
    writes: tuple[frozenset[str], ...]
    after: tuple[frozenset[int], ...]
    sizes: Mapping[str, int]


def root_name(buffers: Mapping[str, Buffer], name: str) -> str:
    """The buffer that owns the bytes of `name`."""
    while (base := buffers[name].base) is not None:
        name = base
    return name


def best_order(
    steps: Sequence[Step], after: Sequence[frozenset[int]], buffers: Mapping[str, Buffer]
) -> list[Step]:
    """`steps`, of which number k must follow those in `after[k]`, reordered for a low peak.

    The given order (made legal) and a greedy one, which always takes the ready kernel that frees
    most, are compared.
    """
    reads, writes = [], []
    for step in steps:
        r, w = step_reads_and_writes(step)
        reads.append(frozenset(root_name(buffers, b) for b in r))
        writes.append(frozenset(root_name(buffers, b) for b in w))
    sizes = {n: align(b.nbytes) for n, b in buffers.items() if b.space == "arena"}
    flow = _Flow(tuple(reads), tuple(writes), tuple(after), sizes)
    candidates = [_list_order(flow, greedy=False), _list_order(flow, greedy=True)]
    best = min(candidates, key=lambda order: _peak(flow, order))
    return [steps[k] for k in best]


def _list_order(flow: _Flow, greedy: bool) -> list[int]:
    """List scheduling: the first ready kernel, or with `greedy` the one after which fewest bytes
    are alive."""
    order: list[int] = []
    waiting = list(range(len(flow.reads)))
    uses: dict[str, int] = {}
    for r in flow.reads:
        for b in r:
            uses[b] = uses.get(b, 0) + 1
    placed: set[int] = set()

    def growth(k: int) -> int:
        made = sum(flow.sizes.get(b, 0) for b in flow.writes[k])
        freed = sum(flow.sizes.get(b, 0) for b in flow.reads[k] if uses[b] == 1)
        return made - freed

    while waiting:
        ready = [k for k in waiting if flow.after[k] <= placed]
        k = min(ready, key=lambda k: (growth(k), k)) if greedy else ready[0]
        waiting.remove(k)
        placed.add(k)
        order.append(k)
        for b in flow.reads[k]:
            uses[b] -= 1
    return order


def _peak(flow: _Flow, order: Sequence[int]) -> int:
    """The largest sum of live arena bytes, no two buffers sharing."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for t, k in enumerate(order):
        for b in flow.reads[k] | flow.writes[k]:
            if b in flow.sizes:
                first.setdefault(b, t)
                last[b] = t
    change = [0] * (len(order) + 1)
    for b, size in flow.sizes.items():
        if b in first:
            change[first[b]] += size
            change[last[b] + 1] -= size
    return max(accumulate(change), default=0)
