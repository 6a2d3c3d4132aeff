"""The kernels of Winograd's F(m x m, 3x3): m x m results of a window of three by three from
(m + 2)² products instead of 9 m².

    weights    U = G g Gᵗ          for each pair of channels, once
    image      V = Bᵗ d B          for each channel: d are the m + 2 by m + 2 elements under a tile
    products   M[e] = Σ U[e] V[e]  over the channels, for each of the elements e of a tile
    results    y = Aᵗ M A          and what the convolution's kernel does with them

Lanes of vectors are the images of a batch that lies last, else the channels: the tiles of all
images are then the rows of a product, the filters its columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from nncompiler.ir.body import local_types
from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply
from nncompiler.ir.types import DType, TensorType
from nncompiler.passes.arithmetic.winograd_lines import FIRST, Lines
from nncompiler.passes.arithmetic.winograd_transforms import (
    ELEMENTS,
    Stages,
    Transform,
    fresh_name,
)
from nncompiler.passes.lowering.rewriting import over, placed, renamed, substituted
from nncompiler.passes.lowering.tidy import tidy
from nncompiler.passes.parallel import ROUNDS
from nncompiler.record import dataclass, field, replace

#: What stands in place of axes.
Forms: TypeAlias = tuple[tuple[str, Affine], ...]

_LINE = 64
#: Elements of a tile that registers hold; a processor has no fewer.
_HELD = 16


@dataclass(frozen=True, slots=True)
class Convolution:
    """A 3 x 3 convolution: a contraction of `image` with `weights` over `channels`, for a `batch`
    (None is one image) and `filters`; `rows` and `columns` of the result run with the `taps` of
    the window, a tap of sign -1 from the far end.
    """

    kernel: Kernel
    form: Contraction
    image: Load
    weights: Load
    batch: Axis | None
    filters: Axis
    channels: Axis
    rows: Axis
    columns: Axis
    taps: tuple[tuple[str, int], tuple[str, int]]
    batch_last: bool

    @property
    def images(self) -> tuple[Axis, ...]:
        return () if self.batch is None else (self.batch,)

    def tap(self, which: int, position: int) -> Affine:
        """The value of a tap's axis where the window is at `position`."""
        return Affine((), position if self.taps[which][1] > 0 else 2 - position)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where the tiles of a step are: `high` rows of them, `along` in each. Loops around the steps
    go `down` each `part` of the image, and `across`.
    """

    transform: Transform
    part: Axis
    down: Axis
    across: Axis
    high: Axis
    along: Axis

    @property
    def shared(self) -> tuple[Axis, ...]:
        """The loop whose steps workers may run at once, each in memory of its own, where there are
        enough for that."""
        return (self.part,) if self.part.extent >= ROUNDS else ()

    @property
    def names(self) -> tuple[str, ...]:
        axes = (self.part, self.down, self.across, self.high, self.along)
        return tuple([a.name for a in axes])

    def row(self, offset: int) -> Affine:
        return _place((self.part, self.down, self.high)) * self.transform.tile + offset

    def column(self, offset: int) -> Affine:
        return _place((self.across, self.along)) * self.transform.tile + offset


def _place(axes: Sequence[Axis]) -> Affine:
    """The number of a step of loops inside each other; a loop of one step is none."""
    place = Affine()
    for a in axes:
        place = place if a.extent == 1 else place * a.extent + Affine.axis(a.name)
    return place


@dataclass(frozen=True, slots=True)
class Transformed:
    """The kernels in their order, `weights` to be run once, and the buffers between them; the
    locals of the last that are called after one of the convolution's, with something behind it.
    """

    weights: Kernel
    steps: tuple[Kernel, Kernel, Kernel]
    buffers: tuple[Buffer, ...]
    locals: Mapping[str, str] = field(default_factory=dict)


def transformed(c: Convolution, tiles: Tiles, name: str) -> Transformed:
    """The kernels for a convolution, their buffers called after `name`."""
    dtype, t = c.image.dtype, tiles.transform
    u, v, m = _arrays(c, tiles, name)
    lines = of_weights, of_image, of_results = (
        replace(u.lines(t.weights), at_once=t.elements.extent <= _HELD),
        v.lines(t.image, tiles.shared),
        m.lines(t.results, tiles.shared),
    )
    body = _transform_weights(c, of_weights, u)
    weights = Kernel(c.kernel.name, body, nodes=(c.weights.buffer,))
    image = replace(c.kernel, body=_transform_image(c, tiles, of_image, v))
    a, b = (Load(x.name, x.index(whole=True), dtype) for x in (u, v))
    total = Fold(("acc",), "sum", (c.channels,), (apply("mul", b, a),))
    stored = Store(m.name, m.index(whole=True), Ref("acc", dtype))
    products = replace(c.kernel, body=(For(m.whole(), (total, stored)),))
    body, locals_ = _results(c, tiles, of_results, m)
    results = replace(c.kernel, body=tidy(body))
    halves = (x.buffer(dtype) for x in lines if not x.at_once)
    made = *(x.buffer(dtype) for x in (u, v, m)), *halves
    return Transformed(weights, (image, products, results), made, locals_)


@dataclass(frozen=True, slots=True)
class Between:
    """A buffer between the kernels. Each dimension is one axis or several that follow each other;
    one is the elements `e` of a tile. Loops over `outer` are around the kernels.
    """

    name: str
    dimensions: tuple[tuple[Axis, ...], ...]
    outer: tuple[Axis, ...] = ()

    def index(self, e: Affine | None = None, whole: bool = False) -> tuple[Affine, ...]:
        """Where element `e` of a tile is; each dimension counted by one axis if `whole`."""
        axes = [(a,) for a in self.whole()] if whole else self.dimensions
        return tuple(
            e if e is not None and d[0].name == ELEMENTS else _place(d)
            for d in (*((a,) for a in self.outer), *axes)
        )

    def buffer(self, dtype: DType) -> Buffer:
        """A kernel touches all elements of a tile at once: a line between them keeps them out of
        the same set of a cache.
        """
        strides, step = list[int](), 1
        axes = (*self.outer, *self.whole())
        for axis in reversed(axes):
            if axis.name == ELEMENTS:
                step += _LINE // dtype.bytes
            strides.insert(0, step)
            step *= axis.extent
        type = TensorType(dtype, tuple(a.extent for a in axes))
        return Buffer(self.name, type, "arena", strides=tuple(strides))

    def whole(self) -> tuple[Axis, ...]:
        """One axis for each dimension."""
        return tuple(Axis(d[-1].name, math.prod(a.extent for a in d)) for d in self.dimensions)

    def tiles(self) -> tuple[Axis, ...]:
        """All axes but that of the elements."""
        return tuple(a for d in self.dimensions for a in d if a.name != ELEMENTS and a.extent > 1)

    def lines(self, stages: Stages, shared: tuple[Axis, ...] = ()) -> Lines:
        """How it is transformed, line by line, to or from it."""
        return Lines(f"{self.name}h", stages, self.tiles(), shared)


def _arrays(c: Convolution, tiles: Tiles, name: str) -> tuple[Between, Between, Between]:
    """U, V and M, with the axis of the lanes last."""
    e, along = (tiles.transform.elements,), (tiles.high, tiles.along)
    read, made = (c.channels,), (c.filters,)
    if c.batch_last:
        u = Between(f"{name}.U", (e, made, read))
        v = Between(f"{name}.V", (along, e, read, c.images), (tiles.part,))
        m = Between(f"{name}.M", (along, e, made, c.images), (tiles.part,))
    else:
        rows = (*c.images, *along)
        u = Between(f"{name}.U", (e, read, made))
        v = Between(f"{name}.V", (e, rows, read), (tiles.part,))
        m = Between(f"{name}.M", (e, rows, made), (tiles.part,))
    return u, v, m


def _transform_weights(c: Convolution, lines: Lines, u: Between) -> tuple[Stmt, ...]:
    (y, sign), (x, _) = c.taps
    down = Affine.axis(FIRST) if sign > 0 else Affine.axis(FIRST) * -1 + 2
    across = tuple(((x, c.tap(1, k)),) for k in range(3))
    return stored(c.weights, ((y, down),), across, lines, u)


def _transform_image(
    c: Convolution, tiles: Tiles, lines: Lines, v: Between
) -> tuple[Stmt, ...]:
    (y, _), (x, _) = c.taps
    down = (y, c.tap(0, 0)), (c.rows.name, tiles.row(0) + Affine.axis(FIRST))
    side = range(tiles.transform.side)
    across = tuple(((x, c.tap(1, 0)), (c.columns.name, tiles.column(k))) for k in side)
    return stored(c.image, down, across, lines, v)


def stored(
    load: Load, down: Forms, across: tuple[Forms, ...], lines: Lines, to: Between
) -> tuple[Stmt, ...]:
    """`_stored` from one buffer to another: made once for all that differ in their names."""
    unnamed = replace(lines, half="half"), replace(to, name="to")
    body = _stored(replace(load, buffer="from"), down, across, *unnamed)
    return over(body, {"from": load.buffer, "half": lines.half, "to": to.name})


@lru_cache(maxsize=64)
def _stored(
    load: Load, down: Forms, across: tuple[Forms, ...], lines: Lines, to: Between
) -> tuple[Stmt, ...]:
    """``matrix grid matrixᵗ`` stored element by element: the grid is what is loaded with these
    forms in place of axes, `down` of a line and `across` of each place in it.
    """
    loads = [placed(load, dict((*down, *x))) for x in across]
    side = len(lines.stages[-1])

    def element(line: Affine, k: int) -> Expr:
        return placed(loads[k], {FIRST: line})

    def sink(line: Affine, k: int, value: Expr) -> list[Stmt]:
        return [Store(to.name, to.index(line + side * k), value)]

    return tidy(lines.nest(load.dtype, element, sink, "d", set()))


def _results(
    c: Convolution, tiles: Tiles, lines: Lines, m: Between
) -> tuple[tuple[Stmt, ...], dict[str, str]]:
    """What the convolution's kernel does at each of the places of a tile; the locals called
    after those of its kernel.
    """
    (fold,) = (p.fold for p in c.form.products)
    dtype, side = c.image.dtype, tiles.transform.side
    taken = set(local_types(c.kernel))
    after = {name: name for name in taken}

    def element(line: Affine, k: int) -> Load:
        return Load(m.name, m.index(line + side * k), dtype)

    def sink(line: Affine, k: int, value: Expr) -> tuple[Stmt, ...]:
        here = {c.rows.name: tiles.row(0) + line, c.columns.name: tiles.column(k)}
        one = [Let(fold.names[0], value) if s is fold else s for s in c.form.body]
        own = [s.name for s in one if isinstance(s, Let)]
        names = {name: fresh_name(f"{name}_{k}", taken) for name in own}
        after.update({new: name for name, new in names.items()})
        return renamed(substituted(tuple(one), here), names)

    return (*c.form.before, *lines.nest(dtype, element, sink, "m", taken)), after
