"""The kernels of Winograd's F(2x2, 3x3): four results of a window of three by three from sixteen
products instead of thirty-six.

    weights    U = G g Gᵗ          for each pair of channels, once
    image      V = Bᵗ d B          for each channel: d are the 4 x 4 elements under a tile of 2 x 2
    products   M[e] = Σ U[e] V[e]  over the channels, for each of the sixteen elements e
    results    y = Aᵗ M A          and what the convolution's kernel does with them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TypeAlias

from nncompiler.ir.kernel import Axis, Buffer, Fold, For, Kernel, Let, Stmt, Store, local_types
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply, const
from nncompiler.ir.types import DType, TensorType
from nncompiler.passes.rewriting import renamed, substituted
from nncompiler.passes.tidy import tidy
from nncompiler.record import dataclass, replace

Grid: TypeAlias = list[list[Expr]]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]

_B: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))

ELEMENTS = Axis("e", 16)
_LINE = 64


@dataclass(frozen=True, slots=True)
class Convolution:
    """A 3 x 3 convolution: a contraction of `image` with `weights` over `channels`, for a `batch`
    and `filters`; `rows` and `columns` of the result run with the `taps` of the window, a tap of
    sign -1 from the far end.
    """

    kernel: Kernel
    form: Contraction
    image: Load
    weights: Load
    batch: Axis
    filters: Axis
    channels: Axis
    rows: Axis
    columns: Axis
    taps: tuple[tuple[str, int], tuple[str, int]]

    def tap(self, which: int, position: int) -> Affine:
        """The value of a tap's axis where the window is at `position`."""
        return Affine((), position if self.taps[which][1] > 0 else 2 - position)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where the tiles of a step are: `along` of them in each, at these counters; each `part` of
    the image is so many tiles in `height`."""

    part: Axis
    height: int
    down: str
    across: str
    along: Axis

    def row(self, offset: int) -> Affine:
        first = Affine.axis(self.part.name) * (2 * self.height)
        return first + Affine.axis(self.down) * 2 + offset

    def column(self, offset: int) -> Affine:
        first = Affine.axis(self.across) * (2 * self.along.extent)
        return first + Affine.axis(self.along.name) * 2 + offset


@dataclass(frozen=True, slots=True)
class Transformed:
    """The kernels in their order, `weights` to be run once, and the buffers between them."""

    weights: Kernel
    steps: tuple[Kernel, Kernel, Kernel]
    buffers: tuple[Buffer, ...]


def transformed(c: Convolution, tiles: Tiles, name: str) -> Transformed:
    """The kernels for a convolution, their buffers called after `name`."""
    dtype = c.image.dtype
    u = _Array(f"{name}.U", (ELEMENTS, c.filters, c.channels))
    v = _Array(f"{name}.V", (tiles.along, ELEMENTS, c.channels, c.batch), (tiles.part,))
    m = _Array(f"{name}.M", (tiles.along, ELEMENTS, c.filters, c.batch), (tiles.part,))
    weights = Kernel(c.kernel.name, tidy(_transform_weights(c, u)), nodes=(c.weights.buffer,))
    image = replace(c.kernel, body=tidy(_transform_image(c, tiles, v)))
    a, b = (Load(x.name, x.index({}), dtype) for x in (u, v))
    total = Fold(("acc",), "sum", (c.channels,), (apply("mul", b, a),))
    stored = Store(m.name, m.index({}), Ref("acc", dtype))
    products = replace(c.kernel, body=(For(m.axes, (total, stored)),))
    results = replace(c.kernel, body=tidy(_results(c, tiles, m)))
    made = (u.buffer(dtype), v.buffer(dtype), m.buffer(dtype))
    return Transformed(weights, (image, products, results), made)


@dataclass(frozen=True, slots=True)
class _Array:
    """A buffer between the kernels; one of its axes are the sixteen elements `e` of a tile. Loops
    over `outer` are around the kernels."""

    name: str
    axes: tuple[Axis, ...]
    outer: tuple[Axis, ...] = ()

    def index(self, at: Mapping[str, int]) -> tuple[Affine, ...]:
        return tuple(
            Affine((), at[a.name]) if a.name in at else Affine.axis(a.name)
            for a in (*self.outer, *self.axes)
        )

    def buffer(self, dtype: DType) -> Buffer:
        """A kernel touches all elements of a tile at once: a line between them keeps them out of
        the same set of a cache.
        """
        strides, step = list[int](), 1
        for axis in reversed((*self.outer, *self.axes)):
            if axis.name == "e":
                step += _LINE // dtype.bytes
            strides.insert(0, step)
            step *= axis.extent
        type = TensorType(dtype, tuple(a.extent for a in (*self.outer, *self.axes)))
        return Buffer(self.name, type, "arena", strides=tuple(strides))

    def tiles(self) -> tuple[Axis, ...]:
        """All axes but that of the elements."""
        return tuple(a for a in self.axes if a != ELEMENTS)


def _transform_weights(c: Convolution, u: _Array) -> tuple[Stmt, ...]:
    grid = [
        [_at(c.weights, {c.taps[0][0]: c.tap(0, a), c.taps[1][0]: c.tap(1, b)}) for b in range(3)]
        for a in range(3)
    ]
    return (For(u.tiles(), tuple(_stored(grid, _G, u))),)


def _transform_image(c: Convolution, tiles: Tiles, v: _Array) -> tuple[Stmt, ...]:
    first = {c.taps[0][0]: c.tap(0, 0), c.taps[1][0]: c.tap(1, 0)}
    grid = [
        [
            _at(c.image, {**first, c.rows.name: tiles.row(a), c.columns.name: tiles.column(b)})
            for b in range(4)
        ]
        for a in range(4)
    ]
    return (For(v.tiles(), tuple(_stored(grid, _B, v))),)


def _stored(grid: Grid, matrix: Matrix, to: _Array) -> list[Stmt]:
    """``matrix grid matrixᵗ`` stored element by element."""
    body, found = _product(matrix, grid, "d", set())
    for n, value in enumerate(x for row in found for x in row):
        body.append(Store(to.name, to.index({"e": n}), value))
    return body


def _results(c: Convolution, tiles: Tiles, m: _Array) -> tuple[Stmt, ...]:
    """What the convolution's kernel does at each of the four places of a tile."""
    (fold,) = (p.fold for p in c.form.products)
    grid: Grid = [
        [Load(m.name, m.index({"e": 4 * a + b}), c.image.dtype) for b in range(4)]
        for a in range(4)
    ]
    taken = set(local_types(c.kernel))
    body, found = _product(_A, grid, "m", taken)
    for a, row in enumerate(found):
        for b, value in enumerate(row):
            here = {c.rows.name: tiles.row(a), c.columns.name: tiles.column(b)}
            one = [Let(fold.names[0], value) if s is fold else s for s in c.form.body]
            own = [s.name for s in one if isinstance(s, Let)]
            names = {name: _fresh(f"{name}_{a}{b}", taken) for name in own}
            body += renamed(substituted(tuple(one), here), names)
    return (*c.form.before, For(m.tiles(), tuple(body)))


def _at(load: Load, values: Mapping[str, Affine]) -> Expr:
    """A load with other forms in place of axes."""
    (let,) = substituted((Let("", load),), values)
    assert isinstance(let, Let)
    return let.value


def _product(
    matrix: Matrix, grid: Grid, name: str, taken: set[str]
) -> tuple[list[Stmt], Grid]:
    """``matrix grid matrixᵗ``: statements, and the result in terms of the locals they bind."""
    body: list[Stmt] = []

    def bound(values: Grid, step: str) -> Grid:
        refs: Grid = []
        for r, row in enumerate(values):
            names = [_fresh(f"{name}{step}{r}{k}", taken) for k in range(len(row))]
            body.extend(map(Let, names, row))
            refs.append([Ref(n, value.dtype) for n, value in zip(names, row, strict=True)])
        return refs

    columns = _transposed(bound(grid, ""))
    half = bound(_transposed([[_sum(row, x) for row in matrix] for x in columns]), "h")
    return body, [[_sum(row, x) for row in matrix] for x in half]


def _fresh(hint: str, taken: set[str]) -> str:
    """A name that no local has yet."""
    names = (hint if n < 2 else f"{hint}_{n}" for n in count(1))
    name = next(x for x in names if x not in taken)
    taken.add(name)
    return name


def _transposed(grid: Grid) -> Grid:
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
