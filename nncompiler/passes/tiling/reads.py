"""How the factors of a contraction lie in memory, for the choice of its register tile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from nncompiler.ir.body import expressions
from nncompiler.ir.kernel import Axis, Buffer, Fold, Store
from nncompiler.ir.nests import Contraction, Product
from nncompiler.ir.scalar import Affine, Expr, Load, axes_of
from nncompiler.passes.tiling.accesses import loads_below, stride_of
from nncompiler.passes.tiling.guards import edges
from nncompiler.record import dataclass, field

Buffers: TypeAlias = Mapping[str, Buffer]

#: Bytes that hardware prefetches along: rows further apart come late.
PAGE = 4096
#: Bytes of the first-level data cache, and of what it loads at a time.
CACHE, LINE = 32 * 1024, 64
#: Bytes that stay in the second-level cache beside all else.
NEAR = 192 * 1024


@dataclass(frozen=True, slots=True)
class Reads:
    """The loads and stores of a contraction on a machine with `lanes` elements to a vector."""

    form: Contraction
    buffers: Buffers
    lanes: int
    #: What every candidate asks for again: steps by factor and axis, axes of guards by factor,
    #: edges, whether the columns' factors are near, and dense as a whole.
    _found: dict[tuple[int, str], frozenset[int | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _guards: dict[int, frozenset[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _edges: dict[tuple[int, str, int], float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _near: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    _whole: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def apart(self, expr: Expr, size: int) -> bool:
        """Whether every step of the reduction reads `expr` so many bytes away, or further."""
        reduced = {k.name for p in self.form.products for k in p.reduction} & axes_of(expr)
        steps = [self.stride(expr, k) or 0 for k in reduced]
        return min(steps, default=0) * expr.dtype.bytes >= size

    def dense(self, columns: str, width: int) -> bool:
        """Whether tiles of so many columns read panels as they are: one byte after the other."""
        if width < (n := self.extent(columns)) or n % self.lanes:
            return False
        if columns not in self._whole:
            self._whole[columns] = all(
                self._dense(with_columns(p, columns)[1], columns, p.reduction)
                for p in self.form.products
            )
        return self._whole[columns]

    def _dense(self, expr: Expr, columns: str, reduction: tuple[Axis, ...]) -> bool:
        sizes = {columns: self.extent(columns), **{k.name: k.extent for k in reduction}}
        size = 1
        for step, n in sorted((self.stride(expr, x) or 0, n) for x, n in sizes.items()):
            if step != size:
                return False
            size *= n
        plain = isinstance(expr, Load) and expr.guard is None
        return plain and self.stride(expr, columns) == 1

    def near(self, products: list[tuple[Expr, Expr]], columns: str) -> bool:
        """Whether the columns' factors are small, contiguous along them, and read at every place
        of an image: tiles then find them in the second-level cache, and packing gains nothing.
        """
        if columns not in self._near:
            self._near[columns] = self._is_near(products, columns)
        return self._near[columns]

    def _is_near(self, products: list[tuple[Expr, Expr]], columns: str) -> bool:
        if not all(self.shifted(a) and not self.shifted(b) for a, b in products):
            return False
        steps = max(self.size(p.reduction) for p in self.form.products)
        size = steps * self.extent(columns) * products[0][1].dtype.bytes
        return size <= NEAR and all(self.stride(b, columns) == 1 for _, b in products)

    def edges(self, expr: Expr, axis: str | None, width: int = 1) -> float:
        """The part of an axis, cut into pieces of `width`, at which guards must be looked at."""
        if axis is None or not self.guarded(expr, axis):
            return 0.0
        key = id(expr), axis, width
        if key not in self._edges:
            axes = [*self.form.parallel, *(a for p in self.form.products for a in p.reduction)]
            self._edges[key] = edges(expr, axis, width, {a.name: a.extent for a in axes})
        return self._edges[key]

    @property
    def stores(self) -> int:
        """How many elements the epilogue stores at each point."""
        return sum(isinstance(s, Store) for s in self.form.body)

    def reach(self, expr: Expr, axis: str) -> int:
        """The largest step in memory of a load when `axis` moves by one; 0 for a gather."""
        return max((step or 0 for step in self._steps(expr, axis)), default=0)

    def bytes_of(self, expr: Expr) -> int:
        """The size of all that an expression reads."""
        return sum(self.buffers[x].nbytes for x in {x.buffer for x in loads_below(expr)})

    def extent(self, name: str | None) -> int:
        return next((a.extent for a in self.form.parallel if a.name == name), 1)

    def size(self, axes: Iterable[Axis]) -> int:
        return math.prod(a.extent for a in axes)

    def stride(self, expr: Expr, axis: str) -> int | None:
        """The step in memory of every load that moves with `axis`; None when they differ or are
        gathered.
        """
        moving = self._steps(expr, axis) - {0}
        return next(iter(moving)) if len(moving) == 1 else None

    def _steps(self, expr: Expr, axis: str) -> frozenset[int | None]:
        """The steps of all loads."""
        key = id(expr), axis
        if key not in self._found:
            self._found[key] = frozenset(
                stride_of(x.index, self.buffers[x.buffer], axis) for x in loads_below(expr)
            )
        return self._found[key]

    def guarded(self, expr: Expr, axis: str | None) -> bool:
        """Whether a guard tells apart what `axis` runs over; others become bounds of loops."""
        key = id(expr)
        if key not in self._guards:
            guards = (x.guard for x in loads_below(expr))
            self._guards[key] = frozenset(a for g in guards if g is not None for a in axes_of(g))
        return axis in self._guards[key]

    def shifted(self, expr: Expr) -> set[str]:
        """Axes in a sum of one that is reduced and one that is not, as positions in a window."""
        reduced = {k.name for p in self.form.products for k in p.reduction}
        found: set[str] = set()
        for i in [i for x in loads_below(expr) for i in x.index]:
            axes = axes_of(i) if not isinstance(i, Affine) else set(i.axes)
            if not isinstance(i, Affine) or (axes & reduced and axes - reduced):
                found |= axes
        return found

    def scattered(self, axis: str) -> int:
        """How many accesses of the epilogue go lane by lane when `axis` runs over lanes."""
        places = [(s.index, s.buffer) for s in self.form.body if isinstance(s, Store)]
        for s in self.form.body:
            if not isinstance(s, Fold):
                loads = [x for e in expressions(s) for x in loads_below(e)]
                places += [(x.index, x.buffer) for x in loads]
        return sum(stride_of(i, self.buffers[b], axis) not in (0, 1) for i, b in places)


def with_columns(product: Product, columns: str) -> tuple[Expr, Expr]:
    """The factors, the one that has the columns last."""
    a, b = product.a, product.b
    return (b, a) if columns in axes_of(a) else (a, b)
