"""Windows of the next step, asked for while this one computes.

    for m, x, i { … = d[i,m,2*y,2*x-1] + d[i,m,2*y,2*x] + … }

The steps of the outermost loop, `m`, are pages apart, and each reads or writes short pieces of
some rows: too short for a prefetcher of hardware, which does not look beyond a page, or within
one if they are short and rows many.
Where a window is taken line by line each line asks for its own in the next step. They are asked
for in the second-level cache: a core waits for few lines of the first level at a time (24 on
Zen 4), as few as a step of the loop has, so that the next loads would stand behind them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from nncompiler.codegen.instructions.address import At
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.ir.body import accesses
from nncompiler.ir.kernel import Axis, Let, Stmt, Store
from nncompiler.ir.scalar import Affine, Index, Load
from nncompiler.record import dataclass

#: Bytes of a cache line; of what is asked for, so that it stays in cache.
_LINE, _NEAR = 64, 16 * 1024
#: Bytes between steps from which on hardware loses track; the same in a buffer larger than these,
#: of which the second-level cache does not have what an earlier kernel left.
_PAGE, _STEP, _LARGE = 4096, 512, 1024 * 1024
#: Places of one buffer that make a window.
_PLACES = 4


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is asked for: one element each of the pieces along the axis of the lanes, one step of
    the `outermost` axis ahead."""

    outermost: str
    lanes: Axis
    pieces: tuple[Load, ...]

    def ask(self, e: Emitter) -> None:
        """In front of the loop over lanes."""
        after = e.axes[self.outermost] + 1
        for x in self.pieces:
            for first in range(0, self.lanes.extent, _LINE // x.dtype.bytes):
                with e.scope({self.outermost: after, self.lanes.name: At.of(first)}):
                    e.prefetch(x, level=2)


def ahead_of(
    around: Sequence[Axis],
    axes: Sequence[Axis],
    body: tuple[Stmt, ...],
    vector: frozenset[str],
    e: Emitter,
) -> Ahead | None:
    """What to ask for in loops over `axes`, from the outside in; two of them may be lines of one
    step of the loops `around` them.
    """
    if len(axes) == 2:
        axes = (*around[-1:], *axes)
    if len(axes) < 3 or axes[-1].name not in vector or axes[0].extent < 2:
        return None
    if not all(isinstance(s, (Let, Store)) for s in body):
        return None
    outermost, lanes, found = axes[0], axes[-1], dict[object, tuple[Load, bool]]()
    here = set[tuple[str, tuple[Index, ...]]]()
    for x in accesses(body):
        place, steps = e.places[x.buffer], Counter[str]()
        for i, stride in zip(x.index, place.strides, strict=True):
            if not isinstance(i, Affine):
                return None
            for axis in i.axes:
                steps[axis] += i.coefficient(axis) * stride
        here.add((x.buffer, x.index))
        step = abs(steps[outermost.name]) * place.dtype.bytes
        far = step >= (_STEP if place.nbytes > _LARGE else _PAGE)
        if far and steps[lanes.name] == 1:
            written = isinstance(x, Store)
            found[x.buffer, x.index, written] = Load(x.buffer, x.index, place.dtype), written
    windows = Counter((x.buffer, written) for x, written in found.values())
    pieces = [x for x, written in found.values() if windows[x.buffer, written] >= _PLACES]
    pieces = [x for x in pieces if (x.buffer, _after(x, outermost.name)) not in here]
    inside = math.prod(a.extent for a in axes[1:])
    size = sum(inside * x.dtype.bytes for x in pieces)
    # Windows overlap: about half of what they read is new.
    return Ahead(outermost.name, lanes, tuple(pieces)) if 0 < size // 2 <= _NEAR else None


def _after(x: Load, axis: str) -> tuple[Index, ...]:
    """Its place in the next step of an axis."""
    return tuple(i + i.coefficient(axis) if isinstance(i, Affine) else i for i in x.index)
