"""Gradients of the weights of 3 x 3 convolutions of stride 1 by Winograd's transforms, where they
cost less.

    kernel k0                                     loop t0 < 4 {
      for i < 32, j < 32, k < 3, l < 3 {            kernel k0: W.V = 4 x 4 elements, transformed
        acc = sum m < 32, n < 16, p < 16 {          kernel k1: W.Z = 2 x 2 gradients, transformed
          g[m,i,n,p] * x[m,j,k+n-1,l+p-1]           kernel k2: W.M[t0,e,i,j] =
        }                                     ──▶     sum y < 2, x < 8, m < 32 { W.Z[…] * W.V[…] }
        W[i,j,k,l] = W[i,j,k,l] - acc             }
      }
                                                  kernel k3: W.S = sums of M over the steps
                                                  kernel k4: W.D = S, transformed
                                                  kernel k5: W[i,j,k,l] = W[i,j,k,l] - W.D[k,l,i,j]

A result of F(2x2, 3x3) is y = Aᵗ ((G g Gᵗ) (Bᵗ d B)) A, with products element by element, so the
gradient of g is Gᵗ (Σ (A y′ Aᵗ) (Bᵗ d B)) G: sixteen products for a tile in place of thirty-six.
For images whose batch lies last in memory, and even numbers of rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeAlias

from nncompiler.ir.fingerprint import fingerprint
from nncompiler.ir.kernel import (
    Axis,
    Buffer,
    Fold,
    For,
    Kernel,
    Let,
    Loop,
    Plan,
    Step,
    Stmt,
    Store,
)
from nncompiler.ir.nests import Contraction, contraction
from nncompiler.ir.scalar import Affine, Load, Ref, apply
from nncompiler.ir.types import TensorType
from nncompiler.passes.arithmetic.winograd import divisor, inside, slides
from nncompiler.passes.arithmetic.winograd_kernels import (
    ELEMENTS,
    B,
    Between,
    Grid,
    Matrix,
    Tiles,
    product,
    stored,
)
from nncompiler.passes.lowering.rewriting import fresh, numbered
from nncompiler.passes.lowering.tidy import tidy
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

#: A, and Gᵗ, both with the sign of the last point changed: no sum begins with a minus.
_A: Matrix = ((1, 0), (1, 1), (1, -1), (0, 1))
_GT: Matrix = ((1, 0.5, 0.5, 0), (0, 0.5, -0.5, 0), (0, 0.5, 0.5, -1))
#: Tiles of a step at least, for lanes are added up in each.
_STEP = 16
#: Products to be spared for each element that is transformed: it goes to memory and back.
_PRODUCTS = 15


def winograd_gradients(plan: Plan, cost: Cost) -> Plan:
    """The plan with those gradients transformed whose kernels then take fewer cycles."""
    table, steps = plan.table(), list[Step]()
    known: dict[Hashable, bool] = {}
    for step in plan.steps:
        c = gradient(step, table) if isinstance(step, Kernel) else None
        if c is None or not _pays(c):
            steps.append(step)
            continue
        made = transformed(c, _name(c, table))
        key = fingerprint(c.kernel, table)
        if key not in known:
            more = {**table, **{b.name: b for b in made.buffers}}
            known[key] = made.cycles(more, cost) < cost(c.kernel, table)
        if known[key]:
            steps += made.steps
            table |= {b.name: b for b in made.buffers}
        else:
            steps.append(step)
    if len(table) == len(plan.buffers):
        return plan
    return replace(plan, buffers=tuple(table.values()), steps=numbered(tuple(steps)))


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of weights: a contraction of what comes back, `back`, with the `image` over the
    `batch`, `rows` and `columns`, for `filters`, `channels` and the `taps` of the window.
    """

    kernel: Kernel
    form: Contraction
    back: Load
    image: Load
    batch: Axis
    filters: Axis
    channels: Axis
    rows: Axis
    columns: Axis
    taps: tuple[Axis, Axis]


@dataclass(frozen=True, slots=True)
class Transformed:
    """The kernels of a step, and those behind the loops around it."""

    tiles: Tiles
    step: tuple[Kernel, ...]
    behind: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        steps: tuple[Step, ...] = self.step
        down = self.tiles.down
        if down.extent > 1:
            steps = (Loop(down.name, down.extent, steps),)
        return *steps, *self.behind

    def cycles(self, table: Buffers, cost: Cost) -> float:
        count = self.tiles.down.extent
        step = sum(cost(inside(k), table) for k in self.step)
        return count * step + sum(cost(k, table) for k in self.behind)


def transformed(c: Gradient, name: str) -> Transformed:
    """The kernels for a gradient, their buffers called after `name`."""
    tiles, dtype = _tiles(c), c.image.dtype
    e, along = (ELEMENTS,), (tiles.high, tiles.along)
    v = Between(f"{name}.V", (e, along, (c.channels,), (c.batch,)))
    z = Between(f"{name}.Z", (e, along, (c.filters,), (c.batch,)))
    m = Between(f"{name}.M", (e, (c.filters,), (c.channels,)), (tiles.down,))
    s = Between(f"{name}.S", (e, (c.filters,), (c.channels,)))
    step = (
        replace(c.kernel, body=_image(c, tiles, v)),
        replace(c.kernel, body=_back(c, tiles, z)),
        replace(c.kernel, body=_products(c, z, v, m)),
    )
    behind = list[Kernel]()
    if tiles.down.extent > 1:
        behind.append(replace(c.kernel, body=_total(c, m, s)))
    else:
        s = m
    weights = TensorType(dtype, (3, 3, c.filters.extent, c.channels.extent))
    d = Buffer(f"{name}.D", weights, "arena")
    behind.append(replace(c.kernel, body=_weights(c, s, d)))
    behind.append(replace(c.kernel, body=_epilogue(c, d)))
    middle = dict.fromkeys((v, z, m, s))
    buffers = (*(x.buffer(dtype) for x in middle), d)
    return Transformed(tiles, step, tuple(behind), buffers)


def _image(c: Gradient, tiles: Tiles, v: Between) -> tuple[Stmt, ...]:
    """V = Bᵗ d B of the 4 x 4 elements under a tile of 2 x 2."""
    (y, x), first = c.taps, Affine()
    down = tuple(((y.name, first), (c.rows.name, tiles.row(a))) for a in range(4))
    across = tuple(((x.name, first), (c.columns.name, tiles.column(b))) for b in range(4))
    return stored(c.image, down, across, B, v)


def _back(c: Gradient, tiles: Tiles, z: Between) -> tuple[Stmt, ...]:
    """Z = A y′ Aᵗ of the 2 x 2 gradients of a tile."""
    down = tuple(((c.rows.name, tiles.row(a)),) for a in range(2))
    across = tuple(((c.columns.name, tiles.column(b)),) for b in range(2))
    return stored(c.back, down, across, _A, z)


def _products(c: Gradient, z: Between, v: Between, m: Between) -> tuple[Stmt, ...]:
    """M = Σ Z V over the tiles and images of a step."""
    dtype = c.image.dtype
    a, b = (Load(x.name, x.index(whole=True), dtype) for x in (z, v))
    _, along, _, batch = v.whole()
    total = Fold(("acc",), "sum", (along, batch), (apply("mul", a, b),))
    return (For(m.whole(), (total, Store(m.name, m.index(whole=True), Ref("acc", dtype)))),)


def _total(c: Gradient, m: Between, s: Between) -> tuple[Stmt, ...]:
    """The sums of all steps."""
    steps = tuple(a for a in m.outer if a.extent > 1)
    dtype = c.image.dtype
    total = Fold(("acc",), "sum", steps, (Load(m.name, m.index(whole=True), dtype),))
    return (For(s.whole(), (total, Store(s.name, s.index(whole=True), Ref("acc", dtype)))),)


def _weights(c: Gradient, s: Between, d: Buffer) -> tuple[Stmt, ...]:
    """D = Gᵗ S G, the channels side by side."""
    dtype = c.image.dtype
    grid: Grid = [[Load(s.name, s.index(4 * a + b), dtype) for b in range(4)] for a in range(4)]
    body, found = product(_GT, grid, "d", set())
    place = Affine.axis(c.filters.name), Affine.axis(c.channels.name)
    stores = [
        Store(d.name, (Affine((), a), Affine((), b), *place), value)
        for a, row in enumerate(found)
        for b, value in enumerate(row)
    ]
    return tidy((For((c.filters, c.channels), (*body, *stores)),))


def _epilogue(c: Gradient, d: Buffer) -> tuple[Stmt, ...]:
    """What the gradient's kernel does with it."""
    (fold,) = (p.fold for p in c.form.products)
    index = tuple(Affine.axis(a.name) for a in (*c.taps, c.filters, c.channels))
    found = Let(fold.names[0], Load(d.name, index, c.image.dtype))
    body = tuple(found if s is fold else s for s in c.form.body)
    return tidy((*c.form.before, For(c.form.parallel, body)))


def _tiles(c: Gradient) -> Tiles:
    """Whole rows of tiles in each step, so many that lanes are seldom added up."""
    height, width = c.rows.extent // 2, c.columns.extent // 2
    steps = divisor(height, max(1, height * width // _STEP))
    (down, _) = fresh("t", c.kernel)
    return Tiles(
        Axis("p", 1), Axis(down, steps), Axis("t", 1), Axis("y", height // steps), Axis("x", width)
    )


def _pays(c: Gradient) -> bool:
    """Whether there are channels enough: a pair of them has sixteen products, not thirty-six, each
    of them sixteen elements.
    """
    pairs, both = c.filters.extent * c.channels.extent, c.filters.extent + c.channels.extent
    return (36 - 16) * pairs >= _PRODUCTS * 16 * both


def _name(c: Gradient, table: Buffers) -> str:
    """What its buffers are called after: the first value that the kernel makes."""
    name = c.kernel.nodes[0] if c.kernel.nodes else c.kernel.name
    while f"{name}.V" in table or f"{name}.U" in table:
        name += "."
    return name


def gradient(kernel: Kernel, buffers: Buffers) -> Gradient | None:
    """The kernel as the gradient of 3 x 3 weights that can be transformed, else None."""
    form = contraction(kernel)
    if form is None or len(form.products) != 1 or len(form.parallel) != 4:
        return None
    (p,) = form.products
    if len(p.reduction) != 3 or p.fold.within:
        return None
    for back, image in ((p.a, p.b), (p.b, p.a)):
        match back, image:
            case (
                Load(index=(Affine(), Affine(), Affine(), Affine()), guard=None),
                Load(index=(Affine(), Affine(), Affine(), Affine())),
            ):
                found = _matched(kernel, form, back, image)
                last = all(buffers[x.buffer].layout[0] == 1 for x in (back, image))
                if found is not None and last:
                    return found
    return None


def _matched(kernel: Kernel, form: Contraction, back: Load, image: Load) -> Gradient | None:
    """The kernel with the roles of its axes, if its indices are those of such a gradient."""
    free = {a.name: a for a in form.parallel}
    summed = {a.name: a for a in form.products[0].reduction}
    names = [str(i.single) if isinstance(i, Affine) else "" for i in back.index]
    n, c, *places = (i for i in image.index if isinstance(i, Affine))
    if str(n.single) != names[0] or names[0] not in summed:
        return None
    batch, filters = summed.pop(names[0]), free.pop(names[1], None)
    channels = free.pop(str(c.single), None)
    if filters is None or channels is None:
        return None
    windows = []
    for name, place in zip(names[2:], places, strict=True):
        along, taps = summed.pop(name, None), [free.pop(x) for x in place.axes if x in free]
        if along is None or len(taps) != 1 or {*place.axes} != {name, taps[0].name}:
            return None
        if place.coefficient(taps[0].name) != 1 or not slides(image, place, along, taps[0]):
            return None
        windows.append((along, taps[0]))
    (rows, y), (columns, x) = windows
    return Gradient(
        kernel, form, back, image, batch, filters, channels, rows, columns, (y, x)
    )
