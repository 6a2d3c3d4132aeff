"""The kernels of Winograd's F(2x2, 3x3): four results of a window of three by three from sixteen
products instead of thirty-six.

    weights    U = G g Gᵗ          for each pair of channels, once
    image      V = Bᵗ d B          for each channel: d are the 4 x 4 elements under a tile of 2 x 2
    products   M[e] = Σ U[e] V[e]  over the channels, for each of the sixteen elements e
    results    y = Aᵗ M A          and what the convolution's kernel does with them

Lanes of vectors are the images of a batch that lies last, else the channels: the tiles of all
images are then the rows of a product, the filters its columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store, local_types
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply, const
from nncompiler.ir.types import DType, TensorType
from nncompiler.passes.lowering.rewriting import over, placed, renamed, substituted
from nncompiler.passes.lowering.tidy import tidy
from nncompiler.record import dataclass, field, replace

Grid: TypeAlias = list[list[Expr]]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]
#: What stands in place of axes.
Forms: TypeAlias = tuple[tuple[str, Affine], ...]

B: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))

ELEMENTS = Axis("e", 16)
_LINE = 64


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

    part: Axis
    down: Axis
    across: Axis
    high: Axis
    along: Axis

    @property
    def names(self) -> tuple[str, ...]:
        axes = (self.part, self.down, self.across, self.high, self.along)
        return tuple([a.name for a in axes])

    def row(self, offset: int) -> Affine:
        return _place((self.part, self.down, self.high)) * 2 + offset

    def column(self, offset: int) -> Affine:
        return _place((self.across, self.along)) * 2 + offset


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
    dtype = c.image.dtype
    u, v, m = _arrays(c, tiles, name)
    weights = Kernel(c.kernel.name, _transform_weights(c, u), nodes=(c.weights.buffer,))
    image = replace(c.kernel, body=_transform_image(c, tiles, v))
    a, b = (Load(x.name, x.index(whole=True), dtype) for x in (u, v))
    total = Fold(("acc",), "sum", (c.channels,), (apply("mul", b, a),))
    stored = Store(m.name, m.index(whole=True), Ref("acc", dtype))
    products = replace(c.kernel, body=(For(m.whole(), (total, stored)),))
    body, locals_ = _results(c, tiles, m)
    results = replace(c.kernel, body=tidy(body))
    made = (u.buffer(dtype), v.buffer(dtype), m.buffer(dtype))
    return Transformed(weights, (image, products, results), made, locals_)


@dataclass(frozen=True, slots=True)
class Between:
    """A buffer between the kernels. Each dimension is one axis or several that follow each other;
    one is the sixteen elements `e` of a tile. Loops over `outer` are around the kernels.
    """

    name: str
    dimensions: tuple[tuple[Axis, ...], ...]
    outer: tuple[Axis, ...] = ()

    def index(self, e: int | None = None, whole: bool = False) -> tuple[Affine, ...]:
        """Where element `e` of a tile is; each dimension counted by one axis if `whole`."""
        axes = [(a,) for a in self.whole()] if whole else self.dimensions
        return tuple(
            Affine((), e) if e is not None and d == (ELEMENTS,) else _place(d)
            for d in (*((a,) for a in self.outer), *axes)
        )

    def buffer(self, dtype: DType) -> Buffer:
        """A kernel touches all elements of a tile at once: a line between them keeps them out of
        the same set of a cache.
        """
        strides, step = list[int](), 1
        axes = (*self.outer, *self.whole())
        for axis in reversed(axes):
            if axis == ELEMENTS:
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
        return tuple(a for d in self.dimensions for a in d if a != ELEMENTS and a.extent > 1)


def _arrays(c: Convolution, tiles: Tiles, name: str) -> tuple[Between, Between, Between]:
    """U, V and M, with the axis of the lanes last."""
    e, read, made, along = (ELEMENTS,), (c.channels,), (c.filters,), (tiles.high, tiles.along)
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


def _transform_weights(c: Convolution, u: Between) -> tuple[Stmt, ...]:
    (y, _), (x, _) = c.taps
    down = tuple(((y, c.tap(0, a)),) for a in range(3))
    across = tuple(((x, c.tap(1, b)),) for b in range(3))
    return stored(c.weights, down, across, _G, u)


def _transform_image(c: Convolution, tiles: Tiles, v: Between) -> tuple[Stmt, ...]:
    (y, _), (x, _) = c.taps
    down = tuple(((y, c.tap(0, 0)), (c.rows.name, tiles.row(a))) for a in range(4))
    across = tuple(((x, c.tap(1, 0)), (c.columns.name, tiles.column(b))) for b in range(4))
    return stored(c.image, down, across, B, v)


def stored(
    load: Load, down: tuple[Forms, ...], across: tuple[Forms, ...], matrix: Matrix, to: Between
) -> tuple[Stmt, ...]:
    """`_stored` from one buffer to another: made once for all that differ in their names."""
    unnamed = replace(load, buffer="from"), down, across, matrix, replace(to, name="to")
    return over(_stored(*unnamed), {"from": load.buffer, "to": to.name})


@lru_cache(maxsize=64)
def _stored(
    load: Load, down: tuple[Forms, ...], across: tuple[Forms, ...], matrix: Matrix, to: Between
) -> tuple[Stmt, ...]:
    """``matrix grid matrixᵗ`` stored element by element: the grid is what is loaded with these
    forms in place of axes.
    """
    grid = [[placed(load, dict((*y, *x))) for x in across] for y in down]
    body, found = product(matrix, grid, "d", set())
    for n, value in enumerate(x for row in found for x in row):
        body.append(Store(to.name, to.index(n), value))
    return tidy((For(to.tiles(), tuple(body)),))


def _results(
    c: Convolution, tiles: Tiles, m: Between
) -> tuple[tuple[Stmt, ...], dict[str, str]]:
    """What the convolution's kernel does at each of the four places of a tile; the locals called
    after those of its kernel.
    """
    (fold,) = (p.fold for p in c.form.products)
    grid: Grid = [
        [Load(m.name, m.index(4 * a + b), c.image.dtype) for b in range(4)]
        for a in range(4)
    ]
    taken = set(local_types(c.kernel))
    after = {name: name for name in taken}
    body, found = product(_A, grid, "m", taken)
    for a, row in enumerate(found):
        for b, value in enumerate(row):
            here = {c.rows.name: tiles.row(a), c.columns.name: tiles.column(b)}
            one = [Let(fold.names[0], value) if s is fold else s for s in c.form.body]
            own = [s.name for s in one if isinstance(s, Let)]
            names = {name: fresh_name(f"{name}_{a}{b}", taken) for name in own}
            after |= {new: name for name, new in names.items()}
            body += renamed(substituted(tuple(one), here), names)
    return (*c.form.before, For(m.tiles(), tuple(body))), after


def product(
    matrix: Matrix, grid: Grid, name: str, taken: set[str]
) -> tuple[list[Stmt], Grid]:
    """``matrix grid matrixᵗ``: statements, and the result in terms of the locals they bind."""
    body: list[Stmt] = []

    def bound(values: Grid, step: str) -> Grid:
        refs: Grid = []
        for r, row in enumerate(values):
            names = [fresh_name(f"{name}{step}{r}{k}", taken) for k in range(len(row))]
            body.extend(map(Let, names, row))
            refs.append([Ref(n, value.dtype) for n, value in zip(names, row, strict=True)])
        return refs

    columns = transposed(bound(grid, ""))
    half = bound(transposed([[_sum(row, x) for row in matrix] for x in columns]), "h")
    return body, [[_sum(row, x) for row in matrix] for x in half]


def fresh_name(hint: str, taken: set[str]) -> str:
    """A name that no local has yet."""
    names = (hint if n < 2 else f"{hint}_{n}" for n in count(1))
    name = next(x for x in names if x not in taken)
    taken.add(name)
    return name


def transposed(grid: Grid) -> Grid:
    return [list(x) for x in zip(*grid, strict=True)]


def _sum(factors: Sequence[float], terms: Sequence[Expr]) -> Expr:
    """The sum of the terms times the factors, those of 1 and -1 without a product."""
    total: Expr | None = None
    for factor, term in sorted(zip(factors, terms, strict=True), key=lambda x: -x[0]):
        if not factor:
            continue
        scaled = term if abs(factor) == 1 else apply("mul", term, const(abs(factor), term.dtype))
        if total is None:
            total = scaled
        else:
            total = apply("add" if factor > 0 else "sub", total, scaled)
    assert total is not None
    return total
