"""Winograd's F(4x4, 3x3) or F(2x2, 3x3) for 3 x 3 convolutions of stride 1, tile by tile, where it
costs less.

    kernel k0                                  kernel k0: %2.U = the weights, transformed
      for i < 32, j < 64, k < 8, l < 8 {       loop t0 < 2 {
        acc = sum m < 64, n < 3, p < 3 {         loop t1 < 2 {
          %1[i,m,k+n-1,l+p-1] * W[j,m,n,p]         kernel k1: %2.V = 6 x 6 elements, transformed
        }                                  ──▶     kernel k2: %2.M[x,e,j,i] =
        %2[i,j,k,l] = max(acc, 0)                    sum m < 64 { %2.V[x,e,m,i] * %2.U[e,j,m] }
      }                                            kernel k3: %2 at 4 x 4 places
                                                 }
                                               }

Thirty-six products stand for 144, or sixteen for thirty-six, and what a step makes stays in cache
until it is read. The same holds for the gradient of the input, which is a convolution as well. The
results are rounded otherwise than those of the direct form: those of F(2x2) with an error of the
same order, of F(4x4) with two to three times that.

For images whose batch lies last in memory, whose lanes all do the same, or whose channels lie
last; what neither tile covers without a rest stays direct.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import TypeAlias

from nncompiler.ir.body import extents
from nncompiler.ir.fingerprint import fingerprint, signature, with_names
from nncompiler.ir.kernel import Axis, Buffer, Kernel, Loop, Plan, Step
from nncompiler.ir.nests import contraction
from nncompiler.ir.scalar import Affine, Expr, Iota, Load, Ref, walk
from nncompiler.passes.arithmetic.winograd_kernels import (
    Convolution,
    Tiles,
    Transformed,
    transformed,
)
from nncompiler.passes.arithmetic.winograd_transforms import Transform, fitting
from nncompiler.passes.lowering.rewriting import changed, fresh, numbered
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: Bytes that a step may fill and read again: half of a second level of cache.
_STEP = 256 * 1024
#: What a loop that transforms takes of the cycles of its instructions: loads, additions and stores
#: have units of their own, and hardly any of its instructions waits for another, but for memory.
_TRANSFORM = 0.75
#: Parts of an image, up to twice as many where they divide it: loops over them are shared.
_PARTS = 4


def winograd(plan: Plan, cost: Cost) -> Plan:
    """The plan with those convolutions transformed whose kernels then take fewer cycles."""
    table, steps = plan.table(), list[Step]()
    known: dict[Hashable, _Known | None] = {}
    for step in plan.steps:
        c = convolution(step, table) if isinstance(step, Kernel) else None
        found = None if c is None else _better(c, table, cost, known)
        if found is None:
            steps.append(step)
        else:
            steps += _steps(found.tiles, found.made)
            table |= {b.name: b for b in found.made.buffers}
    if len(table) == len(plan.buffers):
        return plan
    return replace(plan, buffers=tuple(table.values()), steps=numbered(tuple(steps)))


@dataclass(frozen=True, slots=True)
class _Known:
    """A convolution that is better transformed."""

    convolution: Convolution
    tiles: Tiles
    made: Transformed


def _better(
    c: Convolution, table: Buffers, cost: Cost, known: dict[Hashable, _Known | None]
) -> _Known | None:
    """The convolution transformed, None where that is not better; `known` are those seen before,
    whatever their names are.
    """
    key, name = fingerprint(c.kernel, table), _name(c, table)
    if key not in known:
        known[key], least = None, cost(c.kernel, table) * _within(c, table)
        for transform in fitting(c.rows, c.columns):
            tiles = _tiles(c, transform)
            made = transformed(c, tiles, name)
            more = {**table, **{b.name: b for b in made.buffers}}
            if (cycles := _cycles(c, tiles, made, more, cost)) < least:
                known[key], least = _Known(c, tiles, made), cycles
        return known[key]
    if (before := known[key]) is None:
        return None
    made = _alike(before, c, name) or transformed(c, before.tiles, name)
    return _Known(c, before.tiles, made)


def _alike(before: _Known, c: Convolution, name: str) -> Transformed | None:
    """The kernels for a convolution that differs from one `before` in names alone, their buffers
    called after `name`; None where a local would be called like something else.
    """
    made, kernel = before.made, c.kernel
    was, now = signature(before.convolution.kernel.body), signature(kernel.body)
    own = dict(zip(was.locals, now.locals, strict=True))
    locals_ = {n: own[x] + n.removeprefix(x) for n, x in made.locals.items()}
    image, products, results = made.steps
    others = {n for n in signature(results.body).locals if n not in locals_}
    others |= {*extents(image), *extents(products), *extents(results), *before.tiles.names}
    if len({*locals_.values(), *others}) != len(locals_) + len(others):
        return None
    buffers = [replace(b, name=name + b.name[b.name.rindex(".") :]) for b in made.buffers]
    places = dict(zip(was.buffers, now.buffers, strict=True))
    places |= {b.name: new.name for b, new in zip(made.buffers, buffers, strict=True)}
    weights = Kernel(
        kernel.name, with_names(made.weights.body, {}, places), nodes=(c.weights.buffer,)
    )
    steps = (
        replace(kernel, body=with_names(image.body, {}, places)),
        replace(kernel, body=with_names(products.body, {}, places)),
        replace(kernel, body=with_names(results.body, locals_, places)),
    )
    return Transformed(weights, steps, tuple(buffers))


def _cycles(
    c: Convolution, tiles: Tiles, made: Transformed, table: Buffers, cost: Cost
) -> float:
    """Of all kernels, those of a step as often as they run."""
    count = math.prod(loop.extent for loop in (tiles.part, tiles.down, tiles.across))
    image, products, results = (cost(inside(k), table) for k in made.steps)
    step = _TRANSFORM * (image + results) + products
    return _TRANSFORM * cost(made.weights, table) + count * step


def _within(c: Convolution, table: Buffers) -> float:
    """The part of a convolution's products that are not on padding: no others are computed."""
    share = 1.0
    extents = table[c.image.buffer].type.shape
    for along, (tap, _) in zip((c.rows, c.columns), c.taps, strict=True):
        for form, extent in zip(c.image.index, extents, strict=True):
            if isinstance(form, Affine) and form.coefficient(tap):
                first = form.bounds({along.name: 1, tap: 3})[0]
                windows = range(first, first + along.extent)
                found = sum(0 <= w + t < extent for w in windows for t in range(3))
                share *= found / (3 * along.extent)
    return share


def inside(kernel: Kernel) -> Kernel:
    """The kernel for tiles inside of the image: guards are alike in all lanes, and cost little."""

    def change(e: Expr) -> Expr:
        return replace(e, guard=None, fill=None) if isinstance(e, Load) else e

    return replace(kernel, body=changed(kernel.body, change))


def _name(c: Convolution, table: Buffers) -> str:
    """What its buffers are called after: the first value that the kernel makes."""
    name = c.kernel.nodes[0] if c.kernel.nodes else c.kernel.name
    while f"{name}.U" in table:
        name += "."
    return name


def _tiles(c: Convolution, transform: Transform) -> Tiles:
    """As many tiles in each step as stay in cache."""
    height, width = c.rows.extent // transform.tile, c.columns.extent // transform.tile
    elements = transform.side**2
    size, images = c.image.dtype.bytes, math.prod(a.extent for a in c.images)
    fits = _STEP
    if not c.batch_last:  # each step reads all weights again
        fits = min(fits, elements * c.channels.extent * c.filters.extent * size)
    fits //= elements * (c.channels.extent + c.filters.extent) * images * size
    parts = _parts(height)
    along = divisor(width, fits * _PARTS // max(parts, _PARTS))
    high = 1
    if along == width and not c.batch_last:
        parts = 1 if fits * 2 > height * width else parts
        high = divisor(height // parts, fits // width)
    (part, _), (down, across) = fresh("p", c.kernel), fresh("t", c.kernel)
    return Tiles(
        transform,
        Axis(part, parts),
        Axis(down, height // parts // high),
        Axis(across, width // along),
        Axis("y", high),
        Axis("x", along),
    )


def _parts(height: int) -> int:
    """So many parts that loops over them are shared, where there are divisors for that."""
    shared = (d for d in range(_PARTS, 2 * _PARTS + 1) if height % d == 0)
    return next(shared, divisor(height, _PARTS))


def divisor(n: int, most: int) -> int:
    """The largest divisor that is no larger than `most`, at least 1."""
    return max(d for d in range(1, n + 1) if n % d == 0 and (d <= most or d == 1))


def _steps(tiles: Tiles, made: Transformed) -> tuple[Step, ...]:
    """The weights once, and loops over the steps."""
    steps: tuple[Step, ...] = made.steps
    for axis in (tiles.across, tiles.down, tiles.part):
        if axis.extent > 1:
            steps = (Loop(axis.name, axis.extent, steps),)
    return made.weights, *steps


def convolution(kernel: Kernel, buffers: Buffers) -> Convolution | None:
    """The kernel as a 3 x 3 convolution of stride 1 that can be transformed, else None."""
    form = contraction(kernel)
    if form is None or len(form.products) != 1 or len(form.parallel) not in (3, 4):
        return None
    (p,) = form.products
    for image, weights in ((p.a, p.b), (p.b, p.a)):
        match image, weights:
            case Load(index=(Affine(), Affine(), Affine(), Affine())), Load(guard=None):
                layout = buffers[image.buffer].layout
                found = _matched(kernel, image, weights, batch_last=layout[0] == 1)
                if found is not None and layout[0 if found.batch_last else 1] == 1:
                    return found
    return None


def _matched(
    kernel: Kernel, image: Load, weights: Load, batch_last: bool
) -> Convolution | None:
    """The kernel with the roles of its axes, if its indices are those of such a convolution."""
    form = contraction(kernel)
    assert form is not None
    free = {a.name: a for a in form.parallel}
    summed = {a.name: a for a in form.products[0].reduction}
    n, c, *places = (i for i in image.index if isinstance(i, Affine))
    batch, channels = free.pop(str(n.single), None), summed.pop(str(c.single), None)
    batch_last = batch_last and batch is not None
    windows = []
    for place in places:
        along = [free.pop(x) for x in place.axes if x in free]
        tap = [summed.pop(x) for x in place.axes if x in summed]
        if len(along) != 1 or len(tap) != 1 or not slides(image, place, along[0], tap[0]):
            return None
        windows.append((along[0], (tap[0].name, place.coefficient(tap[0].name))))
    if (batch is None and n.axes) or channels is None or summed or len(free) != 1:
        return None
    (rows, tap_y), (columns, tap_x) = windows
    (filters,) = free.values()
    named = {str(i.single) if isinstance(i, Affine) else "" for i in weights.index}
    if named != {filters.name, channels.name, tap_y[0], tap_x[0]}:
        return None
    taps = tap_y, tap_x
    return Convolution(
        kernel, form, image, weights, batch, filters, channels, rows, columns, taps, batch_last
    )


def slides(image: Load, place: Affine, along: Axis, tap: Axis) -> bool:
    """Whether a window of three moves by one along an axis, and all that the load
    asks of both, its guard included, is their sum.
    """
    sign = place.coefficient(tap.name)
    if tap.extent != 3 or abs(sign) != 1:
        return False
    forms = [i for i in image.index if isinstance(i, Affine)]
    for e in walk(image):
        if isinstance(e, Ref) or (isinstance(e, Load) and e is not image):
            return False
        if isinstance(e, Iota):
            forms.append(e.index)
    whole = place.coefficient(along.name) == 1
    return whole and all(
        f.coefficient(tap.name) == sign * f.coefficient(along.name) for f in forms
    )
