"""Choose where the batch and the channels of images lie in memory.

    buffer %4: f32[64,6,30,30] arena  ──▶  buffer %4: f32[64,6,30,30] strides {1,57600,1920,64}
    buffer %4: f32[1,16,32,32] arena  ──▶  buffer %4: f32[1,16,32,32] strides {16384,1,512,16}

With the batch last (`batch_last`), or where it is small with the channels last (`channels_last`),
kernels of a convolutional network run over whole vectors. Only the strides of arena buffers
change, and inputs or weights are copied; the meaning of the plan is the same.

A region is what is connected to a windowed contraction through kernels; the layout is chosen for
the whole region by the cycles of its schedules (`tile`), so that nothing is reordered inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from nncompiler.ir.body import loads, reads_and_writes, step_reads_and_writes
from nncompiler.ir.kernel import Buffer, Kernel, Plan
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine
from nncompiler.passes.layout.batch_last import batch_last
from nncompiler.passes.layout.channels_last import channels_last
from nncompiler.passes.layout.strides import Buffers
from nncompiler.passes.lowering.order import root_name

Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: Batches below this do not fill vectors.
_SMALL = 8


def choose_layouts(plan: Plan, cost: Cost) -> Plan:
    """The plan with those layouts whose schedules take the fewest cycles, region by region."""
    for region in regions(plan):
        plan = min([plan, *_others(plan, region)], key=lambda p: _cycles(p, cost))
    return plan


def _others(plan: Plan, region: frozenset[str]) -> Iterator[Plan]:
    """The plan with other layouts of a region."""
    table = plan.table()
    batch = {table[name].type.shape[0] for name in region}.pop()
    if batch > 1 and (moved := batch_last(plan, region)) is not None:
        yield moved
    if batch < _SMALL and (moved := channels_last(plan, region)) is not None:
        yield moved


def _cycles(plan: Plan, cost: Cost) -> float:
    buffers = plan.table()
    return sum(cost(k, buffers) for k in _top(plan))


# --- regions ---


def regions(plan: Plan) -> Iterator[frozenset[str]]:
    """Arena buffers with the batch as first dimension, connected from windowed contractions."""
    buffers = plan.table()
    looped = {
        root_name(buffers, n)
        for s in plan.steps
        if not isinstance(s, Kernel)
        for part in step_reads_and_writes(s)
        for n in part
    }
    touched = {k.name: _images(k, buffers) - looped for k in _top(plan)}
    seeds = [k for k in _top(plan) if _windowed(k)]
    done: set[str] = set()
    for seed in seeds:
        for root in sorted(touched[seed.name] - done):
            region, batch = {root}, buffers[root].type.shape[0]
            grown = True
            while grown:
                near = (t for t in touched.values() if t & region)
                more = {n for t in near for n in t if buffers[n].type.shape[0] == batch}
                grown = not more <= region
                region |= more
            done |= region
            yield frozenset(region)


def _top(plan: Plan) -> list[Kernel]:
    return [s for s in plan.steps if isinstance(s, Kernel)]


def _windowed(kernel: Kernel) -> bool:
    """A contraction that reads at sums of axes: a convolution."""
    form = contraction(kernel)
    found = [x for x in loads(kernel) if any(_several(i) for i in x.index)]
    return form is not None and bool(form.products) and bool(found)


def _several(index: object) -> bool:
    return not isinstance(index, Affine) or len(index.terms) > 1


def _images(kernel: Kernel, buffers: Buffers) -> set[str]:
    """Arena buffers a kernel touches as a batch of tensors of rank 2 or more."""
    found = set()
    for name in sorted(frozenset().union(*reads_and_writes(kernel))):
        root = buffers[root_name(buffers, name)]
        if buffers[name].type.rank >= 3 and root.space == "arena" and _batch(root) > 0:
            found.add(root.name)
    return found


def _batch(buffer: Buffer) -> int:
    return buffer.type.shape[0] if buffer.type.rank >= 2 else 0
