"""Cache lines that a register tile asks for ahead of time, so that its sums do not wait for them:

- of columns that lie as they are, what comes some steps later;
- of rows whose steps lie lines apart, the line behind the one in use: tiles soon get there, and
  steps that lie powers of two apart share so few sets of the second-level cache that it was
  driven out since another tile of columns had it;
- of the epilogue, one row after the other while the sums are added up. A core waits for few lines
  at a time (24 on Zen 4): all at once, the first steps would stand behind them.
"""

from __future__ import annotations

from collections.abc import Callable

from nncompiler.codegen.contractions.epilogues import Epilogues
from nncompiler.codegen.contractions.expected import LINE, stride_along
from nncompiler.codegen.contractions.product import Roles
from nncompiler.codegen.contractions.tile import Tile, evenly
from nncompiler.codegen.instructions.address import At
from nncompiler.codegen.instructions.blocks import Body, Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value
from nncompiler.ir.kernel import Schedule
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine, Load, walk

#: Steps of a reduction between asking for a cache line and using it: so few that lines whose
#: distance is a power of two, which share a set of the cache, do not drive each other out.
_AHEAD = 8
#: Bytes of a factor that may have left the first-level cache.
_FIRST = 32 * 1024
#: Accumulators whose steps follow each other one by one.
_LONG = 8
#: Parts of a loop over steps, a row of the epilogue asked for in front of each; and most steps of
#: a loop around others that does the same.
_PARTS, _MOST = 8, 16


class Requests(Epilogues):
    """Writes what tiles ask for."""

    def __init__(self, form: Contraction, schedule: Schedule, emitter: Emitter) -> None:
        super().__init__(form, schedule, emitter)
        assert schedule.tile is not None
        self.unroll = schedule.unroll
        #: Rows of most tiles.
        starts = evenly(self.extents[self.rows], schedule.tile[0]) if self.rows else [range(1)]
        self.often = max(starts, key=len).step
        #: Whether a step takes long enough for requests to cost next to nothing.
        self.requests = emitter.target.vector_bytes >= LINE and not self.reduced
        self.far = {key for key, p in self.products.items() if self._far(p)}

    def _far(self, product: Roles) -> bool:
        """Whether rows lie side by side in memory, and steps lines apart."""
        a = product.a
        if not (self.requests and self.rows and product.reduction and isinstance(a, Load)):
            return False
        step = (stride_along(self.e, a, product.reduction[-1].name) or 0) * self.dtype.bytes
        apart = step >= LINE and self.e.places[a.buffer].nbytes > _FIRST
        return a.guard is None and apart and stride_along(self.e, a, self.rows) == 1

    def ask_column(self, product: Roles, column: At) -> None:
        """What `b` reads some steps further on: strides may be too large for hardware."""
        if not product.reduction:
            return
        axis = product.reduction[-1].name
        with self.e.scope({self.columns: column, axis: self.e.axes[axis] + _AHEAD}):
            for x in walk(product.b):
                if isinstance(x, Load) and all(isinstance(i, Affine) for i in x.index):
                    self.e.prefetch(x)

    def ask_rows(self, product: Roles, tile: Tile) -> None:
        """The line behind the one in which `a` has this step of a tile."""
        usual = tile.rows == self.often and tile.row_panel is None
        if id(product.fold) in self.far and usual and isinstance(product.a, Load):
            with self.e.scope({self.rows or "": tile.row + LINE // self.dtype.bytes}):
                self.e.prefetch(product.a, level=2)

    def asks_by_row(self, tile: Tile) -> bool:
        """Whether a tile asks for the rows of its epilogue one by one."""
        usual = tile.rows == self.often and not tile.fills
        long = tile.rows * (tile.width // self.lanes) >= _LONG
        if not (self.requests and self.expected and usual and long and tile.rows <= _PARTS):
            return False
        if len(self.products) != 1:
            return False
        (product,) = self.products.values()
        if product.fold.within:  # the bounds are those of a tile
            return False
        ends = [b.ends(k.extent, self.w, self.e.integer) for k, b in product.loops]
        if ends != [(0, k.extent) for k in product.reduction]:
            return False
        (outermost, _), *inside = product.loops
        if inside:
            return tile.rows <= outermost.extent <= _MOST
        return outermost.extent % (_PARTS * self.unroll) == 0

    def ask_by_row(self, tile: Tile, number: Counter) -> None:
        """A row of the epilogue; more than there are, the last one again."""
        last = tile.rows - 1
        if isinstance(number, str):
            least = [("i64", number), ("i64", str(last))]
            self.expect_row(tile, self.w.intrinsic("llvm.umin.i64", "i64", least))
        else:
            self.expect_row(tile, min(number, last))

    def in_parts(
        self, extent: int, steps: int, acc: list[Value], body: Body, ask: Callable[[Counter], None]
    ) -> list[Value]:
        """A loop over steps, so many together, with something to `ask` for before each part."""
        part = extent // _PARTS

        def several(number: Counter, inside: list[Value]) -> list[Value]:
            ask(number)
            start = self.w.times(number, part)
            stop = start + part if isinstance(start, int) else self.w.assign(
                f"add nuw nsw i64 {start}, {part}"
            )
            return self.w.some(start, stop, inside, body, steps)

        return self.w.loop(0, _PARTS, 1, acc, several)
