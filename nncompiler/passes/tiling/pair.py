"""Which axes of a contraction are the columns and rows of its tiles, and what follows from that
before a size is chosen.
"""

from __future__ import annotations

from nncompiler.ir.nests import abreast
from nncompiler.ir.scalar import Expr
from nncompiler.passes.tiling.choice import Choice
from nncompiler.passes.tiling.masked import Masked, masked
from nncompiler.passes.tiling.order import Order
from nncompiler.passes.tiling.step_cycles import WIDEST, least_step, limit
from nncompiler.record import dataclass

#: Cycles of scattering one lane in an epilogue, which is not a loop: its size counts too; and of
#: one lane that is turned in registers.
_SCATTERED, TURNED_LANE = 4.0, 0.4


@dataclass(frozen=True, slots=True)
class Pair:
    """Columns and rows to choose tiles for. Of each product, the second factor has the columns;
    so many accesses of the epilogue are `scattered` along them, or none where sums are `turned`.
    """

    order: Order
    products: list[tuple[Expr, Expr]]
    columns: str
    row: str | None
    scattered: int
    turned: bool = False
    runs_on: Choice | None = None

    @property
    def m(self) -> int:
        """How many rows."""
        return self.order.extent(self.row)

    @property
    def n(self) -> int:
        """How many columns."""
        return self.order.extent(self.columns)

    def least(self) -> float:
        """No tile of these rows and columns takes fewer cycles, lanes over columns."""
        if self.runs_on is not None:
            return self.runs_on.cycles
        o, n = self.order, self.n
        points, across = o.size(o.form.parallel) / n, -(-n // o.lanes)
        steps = sum(o.size(p.reduction) for p in o.form.products)
        widest = min(across * self.abreast(), WIDEST)
        step = least_step(o.machine, min(self.m, WIDEST), widest)
        return steps * points * across * step * self.computed(o.lanes) + self.stored()

    def masked(self, vector: str | None = None) -> Masked | None:
        """What tells which tiles take no steps, if any, or only some; lanes along this axis."""
        return masked([p.fold for p in self.order.form.products], self.row, self.columns, vector)

    def computed(self, lanes: int, vector: str | None = None) -> float:
        """The part of the vectors of results that take steps, or of the steps that they take."""
        if (bounds := self.masked(vector)) is None:
            return 1.0
        m, n = self.m, self.n
        return bounds.over_tiles(m, 1, n, lanes, lambda r, w: 1) / (m * -(-n // lanes))

    def stored(self) -> float:
        """The cycles of all stores."""
        lane = self.scattered * _SCATTERED + self.turned * TURNED_LANE
        return self.order.size(self.order.form.parallel) * (1 / self.order.lanes + lane)

    def abreast(self) -> int:
        """How many products one tile takes steps of at a time."""
        form = self.order.form
        few = len(form.products) < min(limit(self.order.machine), WIDEST)
        return len(form.products) if self.row is None and few and abreast(form) else 1
