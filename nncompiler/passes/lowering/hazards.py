"""When a kernel, or a loop step by step, may write over bytes that it also reads."""

from __future__ import annotations

from collections.abc import Iterator

from nncompiler.ir.body import expressions, step_reads_and_writes
from nncompiler.ir.kernel import Fold, For, Kernel, Loop, Stmt, Store
from nncompiler.ir.once import once
from nncompiler.ir.scalar import Affine, Index, Load, walk
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class _Access:
    """`path` are the loops around it, outermost first: (number of the loop, its axes); `order` is
    its place in the text."""

    index: tuple[Index, ...]
    path: tuple[tuple[int, tuple[str, ...]], ...]
    order: int


def may_overwrite(kernel: Kernel, old: str, new: str) -> bool:
    """Whether every load from `old` sees the old bytes when `new`, of the same shape, lies at the
    same place.

    True where each element is loaded only by the iteration that stores it, no later in the text
    than the store.
    """
    loads: list[_Access] = []
    stores: list[_Access] = []
    for access, buffer, is_store in _accesses(kernel.body):
        if is_store and buffer == new:
            stores.append(access)
        elif not is_store and buffer == old:
            loads.append(access)
    return all(_safe(load, store) for store in stores for load in loads)


def may_overwrite_stepwise(loop: Loop, old: str, new: str) -> bool:
    """Whether each step of a loop may store its part of `new` over that of `old`, of the same
    shape: no step touches any part but its own, or loads from `old` after it stored to `new`."""
    counter, parts, stored = Affine.axis(loop.counter), set[int](), False
    for step in loop.body:
        reads, writes = step_reads_and_writes(step)
        if not {old, new} & (reads | writes):
            continue
        if isinstance(step, Loop) or old in writes or (old in reads and stored):
            return False
        stored = stored or new in writes
        if (new in reads and not stored) or not may_overwrite(step, old, new):
            return False
        for access, buffer, _ in _accesses(step.body):
            if buffer in (old, new):
                own = {d for d, i in enumerate(access.index) if i == counter}
                parts = parts & own if parts else own
                if not parts:
                    return False
    return stored


@once
def _accesses(body: tuple[Stmt, ...]) -> tuple[tuple[_Access, str, bool], ...]:
    """The accesses of a nest, their buffers, and which of them store."""
    return tuple(_along(body, (), [0]))


def _along(
    body: tuple[Stmt, ...], path: tuple[tuple[int, tuple[str, ...]], ...], clock: list[int]
) -> Iterator[tuple[_Access, str, bool]]:
    for s in body:
        clock[0] += 1
        if isinstance(s, (For, Fold)):
            inner = (*path, (clock[0], tuple(a.name for a in s.axes)))
            yield from _along(s.body, inner, clock)
            clock[0] += 1
            path_of = inner
        else:
            path_of = path
        for e in expressions(s):
            for x in walk(e):
                if isinstance(x, Load):
                    yield _Access(x.index, path_of, clock[0]), x.buffer, False
        if isinstance(s, Store):
            yield _Access(s.index, path, clock[0]), s.buffer, True


def _safe(load: _Access, store: _Access) -> bool:
    if load.order > store.order:
        return False
    shared = [a for a, b in zip(load.path, store.path, strict=False) if a == b]
    common = {name for _, axes in shared for name in axes}
    used = set()
    for at_load, at_store in zip(load.index, store.index, strict=True):
        if not isinstance(at_load, Affine) or not isinstance(at_store, Affine):
            return False
        written = set(at_store.axes)
        used |= written
        if written & common and at_load != at_store:
            return False
        if not written & common and set(at_load.axes) & common:
            return False
    return common <= used
