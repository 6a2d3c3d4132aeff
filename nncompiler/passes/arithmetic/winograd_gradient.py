"""Gradients of the weights of 3 x 3 convolutions of stride 1 by Winograd's transforms, where they
cost less.

    kernel k0                                     loop t0 < 4 {
      for i < 32, j < 32, k < 3, l < 3 {            kernel k0: W.V = 6 x 6 elements, transformed
        acc = sum m < 32, n < 16, p < 16 {          kernel k1: W.Z = 4 x 4 gradients, transformed
          g[m,i,n,p] * x[m,j,k+n-1,l+p-1]           kernel k2: W.M[t0,e,i,j] =
        }                                     ──▶     sum y < 4, x < 4, m < 32 { W.Z[…] * W.V[…] }
        W[i,j,k,l] = W[i,j,k,l] - acc             }
      }
                                                  kernel k3: W.S = sums of M over the steps
                                                  kernel k4: W.D = S, transformed
                                                  kernel k5: W[i,j,k,l] = W[i,j,k,l] - W.D[k,l,i,j]

A result is y = Aᵗ ((G g Gᵗ) (Bᵗ d B)) A, with products element by element, so the gradient of g is
Gᵗ (Σ (A y′ Aᵗ) (Bᵗ d B)) G: thirty-six products for a tile of 4 x 4 in place of 144, or sixteen
for one of 2 x 2 in place of thirty-six. For images whose batch lies last in memory, and numbers of
rows and columns that tiles divide.
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
from nncompiler.ir.scalar import Affine, Expr, Load, Ref, apply
from nncompiler.ir.types import TensorType
from nncompiler.passes.arithmetic.winograd import divisor, inside, slides
from nncompiler.passes.arithmetic.winograd_kernels import Between, Tiles, stored
from nncompiler.passes.arithmetic.winograd_lines import FIRST, Lines
from nncompiler.passes.arithmetic.winograd_transforms import (
    Transform,
    fitting,
    transposed_stages,
)
from nncompiler.passes.lowering.rewriting import fresh, numbered
from nncompiler.passes.lowering.tidy import tidy
from nncompiler.record import dataclass, replace

Buffers: TypeAlias = Mapping[str, Buffer]
Cost: TypeAlias = Callable[[Kernel, Buffers], float]

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
        tiles = () if c is None else fitting(c.rows, c.columns)
        transform = next((t for t in tiles if c is not None and _pays(c, t)), None)
        if c is None or transform is None:
            steps.append(step)
            continue
        made = transformed(c, transform, _name(c, table))
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


def transformed(c: Gradient, transform: Transform, name: str) -> Transformed:
    """The kernels for a gradient, their buffers called after `name`."""
    tiles, dtype = _tiles(c, transform), c.image.dtype
    e, along = (transform.elements,), (tiles.high, tiles.along)
    v = Between(f"{name}.V", (e, along, (c.channels,), (c.batch,)))
    z = Between(f"{name}.Z", (e, along, (c.filters,), (c.batch,)))
    m = Between(f"{name}.M", (e, (c.filters,), (c.channels,)), (tiles.down,))
    s = Between(f"{name}.S", (e, (c.filters,), (c.channels,)))
    of_image = v.lines(transform.image)
    of_back = z.lines(transposed_stages(transform.results))
    of_sums = s.lines(transposed_stages(transform.weights))
    step = (
        replace(c.kernel, body=_image(c, tiles, of_image, v)),
        replace(c.kernel, body=_back(c, tiles, of_back, z)),
        replace(c.kernel, body=_products(c, z, v, m)),
    )
    behind = list[Kernel]()
    if tiles.down.extent > 1:
        behind.append(replace(c.kernel, body=_total(c, m, s)))
    else:
        s = m
    weights = TensorType(dtype, (3, 3, c.filters.extent, c.channels.extent))
    d = Buffer(f"{name}.D", weights, "arena")
    behind.append(replace(c.kernel, body=_weights(c, transform, of_sums, s, d)))
    behind.append(replace(c.kernel, body=_epilogue(c, d)))
    middle = dict.fromkeys((v, z, m, s))
    halves = (x.buffer(dtype) for x in (of_image, of_back, of_sums))
    buffers = (*(x.buffer(dtype) for x in middle), *halves, d)
    return Transformed(tiles, step, tuple(behind), buffers)


def _image(c: Gradient, tiles: Tiles, lines: Lines, v: Between) -> tuple[Stmt, ...]:
    """V = Bᵗ d B of the elements under a tile."""
    (y, x), first, line = c.taps, Affine(), Affine.axis(FIRST)
    down = (y.name, first), (c.rows.name, tiles.row(0) + line)
    side = range(tiles.transform.side)
    across = tuple(((x.name, first), (c.columns.name, tiles.column(k))) for k in side)
    return stored(c.image, down, across, lines, v)


def _back(c: Gradient, tiles: Tiles, lines: Lines, z: Between) -> tuple[Stmt, ...]:
    """Z = A y′ Aᵗ of the gradients of a tile."""
    down = ((c.rows.name, tiles.row(0) + Affine.axis(FIRST)),)
    side = range(tiles.transform.tile)
    across = tuple(((c.columns.name, tiles.column(k)),) for k in side)
    return stored(c.back, down, across, lines, z)


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


def _weights(
    c: Gradient, transform: Transform, lines: Lines, s: Between, d: Buffer
) -> tuple[Stmt, ...]:
    """D = Gᵗ S G, the channels side by side."""
    dtype, side = c.image.dtype, transform.side
    place = Affine.axis(c.filters.name), Affine.axis(c.channels.name)

    def element(line: Affine, k: int) -> Load:
        return Load(s.name, s.index(line + side * k), dtype)

    def sink(line: Affine, k: int, value: Expr) -> list[Stmt]:
        return [Store(d.name, (line, Affine((), k), *place), value)]

    return tidy(lines.nest(dtype, element, sink, "d", set()))


def _epilogue(c: Gradient, d: Buffer) -> tuple[Stmt, ...]:
    """What the gradient's kernel does with it."""
    (fold,) = (p.fold for p in c.form.products)
    index = tuple(Affine.axis(a.name) for a in (*c.taps, c.filters, c.channels))
    found = Let(fold.names[0], Load(d.name, index, c.image.dtype))
    body = tuple(found if s is fold else s for s in c.form.body)
    return tidy((*c.form.before, For(c.form.parallel, body)))


def _tiles(c: Gradient, transform: Transform) -> Tiles:
    """Whole rows of tiles in each step, so many that lanes are seldom added up."""
    height, width = c.rows.extent // transform.tile, c.columns.extent // transform.tile
    steps = divisor(height, max(1, height * width // _STEP))
    (down, _) = fresh("t", c.kernel)
    return Tiles(
        transform,
        Axis("p", 1),
        Axis(down, steps),
        Axis("t", 1),
        Axis("y", height // steps),
        Axis("x", width),
    )


def _pays(c: Gradient, transform: Transform) -> bool:
    """Whether there are channels enough: a pair of them has a product for each element of a tile,
    not nine for each place, and each of them is transformed.
    """
    elements, places = transform.side**2, transform.tile**2
    pairs, both = c.filters.extent * c.channels.extent, c.filters.extent + c.channels.extent
    return (9 * places - elements) * pairs >= _PRODUCTS * elements * both


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
