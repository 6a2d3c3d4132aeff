"""Choose where the batch of a tensor lies in memory: first, as it is written, or last.

    buffer %4: f32[64,6,30,30] arena  ──▶  buffer %4: f32[64,6,30,30] strides {1,57600,1920,64}

With the batch last every kernel of a convolutional network runs over whole vectors of the batch,
however few the channels and whatever the window: neighbouring lanes do the same, and what lies
outside a padded image is outside for all of them. Only the strides of arena buffers change, and
inputs are copied once; the meaning of the plan is the same.

A region is what is connected to a windowed contraction through kernels; the layout is chosen for
the whole region by the cycles of its schedules (`tile`), so that nothing is reordered inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from nncompiler.ir.kernel import (
    Argument,
    Axis,
    Buffer,
    For,
    Kernel,
    Plan,
    Step,
    Store,
    loads,
    reads_and_writes,
    step_reads_and_writes,
)
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Load
from nncompiler.passes.order import root_name
from nncompiler.passes.rewriting import numbered, reading

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: Strides that are a multiple of this many bytes meet in few sets of a cache.
_SETS = 512
_LINE = 64


def choose_layouts(plan: Plan, cost: Cost) -> Plan:
    """The plan with the batch last where the schedules of a region take fewer cycles that way."""
    for region in _regions(plan):
        moved = _batch_last(plan, region)
        if moved is not None and _cycles(moved, region, cost) < _cycles(plan, region, cost):
            plan = moved
    return plan


def _cycles(plan: Plan, region: frozenset[str], cost: Cost) -> float:
    """Cycles of all kernels that touch the region or a copy made for it."""
    buffers = plan.table()
    names = {n for n in buffers if root_name(buffers, n) in region or n.endswith(_PACKED)}
    touching = (k for k in _top(plan) if any(names & part for part in reads_and_writes(k)))
    return sum(cost(k, buffers) for k in touching)


# --- regions ---


def _regions(plan: Plan) -> Iterator[frozenset[str]]:
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
        if buffers[name].type.rank >= 3 and root.space == "arena" and _batch(root) > 1:
            found.add(root.name)
    return found


def _batch(buffer: Buffer) -> int:
    return buffer.type.shape[0] if buffer.type.rank >= 2 else 0


# --- the other layout ---

_PACKED = ".packed"


def _batch_last(plan: Plan, region: frozenset[str]) -> Plan | None:
    """The plan with the region's buffers moved and its inputs copied; None where a view cannot
    follow.
    """
    for padded in (True, False):
        table = plan.table()
        for name in region:
            table[name] = _moved(table[name], padded and not _viewed(name, table))
        if all(_follow(b, table) for b in plan.buffers if b.space == "view"):
            batch = {table[n].type.shape[0] for n in region}
            return _pack_inputs(plan, table, region, batch.pop())
    return None


def _viewed(name: str, table: Buffers) -> bool:
    return any(b.base == name for b in table.values())


def _moved(buffer: Buffer, padded: bool) -> Buffer:
    shape, size = buffer.type.shape, buffer.type.dtype.bytes
    strides, step = [1], shape[0]
    for n in reversed(shape[1:]):
        if padded and step * size % _SETS == 0 and n > 1:
            step += _LINE // size
        strides.insert(1, step)
        step *= n
    return replace(buffer, strides=tuple(strides))


def _follow(view: Buffer, table: dict[str, Buffer]) -> bool:
    """Give a view the strides that its base's imply; False where there are none."""
    assert view.base is not None
    base = table[view.base]
    if base.strides is None:
        return True
    strides = reshaped(base.type.shape, base.strides, view.type.shape)
    if strides is None:
        return False
    table[view.name] = replace(view, strides=strides)
    return True


def reshaped(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The strides under which the elements of a tensor, read in row-major order as `new`, stay
    where they are.
    """
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    size, stride = 1, 0
    for n in reversed(new):
        if n == 1:
            found.insert(0, 0)
            continue
        if size == 1:
            if not old:
                return None
            size, stride = old.pop()
        while size % n:  # needs more dimensions, which must lie one within the other
            if not old or old[-1][1] != size * stride:
                return None
            more, _ = old.pop()
            size *= more
        found.insert(0, stride)
        size, stride = size // n, stride * n
    return tuple(found) if size == 1 and not old else None


# --- inputs ---


def _pack_inputs(
    plan: Plan, table: dict[str, Buffer], region: frozenset[str], batch: int
) -> Plan:
    """Copy arguments that kernels of the region read as images, once, in front of everything."""
    names = {n for n in table if root_name(table, n) in region}
    given = [a for a in plan.arguments if a.role != "output"]
    images = {a.buffer for a in given if _is_image(table, a, batch)}
    copies: dict[str, str] = {}
    steps: list[Step] = []
    for step in plan.steps:
        if isinstance(step, Kernel) and any(names & p for p in reads_and_writes(step)):
            wanted = {n: n + _PACKED for n in sorted(images & reads_and_writes(step)[0])}
            copies |= wanted
            step = replace(step, body=reading(step.body, wanted))
        steps.append(step)
    made = []
    for n, (name, copy) in enumerate(sorted(copies.items())):
        table[copy] = _moved(Buffer(copy, table[name].type, "arena"), True)
        made.append(_copy(f"p{n}", table[name], table[copy]))
    return replace(plan, buffers=tuple(table.values()), steps=numbered((*made, *steps)))


def _is_image(table: Buffers, argument: Argument, batch: int) -> bool:
    """Whether it has the batch as first of three or more dimensions."""
    shape = table[argument.buffer].type.shape
    return len(shape) >= 3 and shape[0] == batch


def _copy(name: str, source: Buffer, target: Buffer) -> Kernel:
    axes = tuple(Axis(f"x{d}", n) for d, n in enumerate(source.type.shape))
    index = tuple(Affine.axis(a.name) if a.extent > 1 else Affine() for a in axes)
    store = Store(target.name, index, Load(source.name, index, source.type.dtype))
    loops = tuple(a for a in axes if a.extent > 1)
    return Kernel(name, (For(loops, (store,)),), nodes=(source.name,))
