"""The order of the loops around the register tile of a contraction, and what is packed in front of
them.
"""

from __future__ import annotations

import math

from nncompiler.ir.kernel import Schedule
from nncompiler.ir.machine import Machine
from nncompiler.ir.scalar import Expr, axes_of
from nncompiler.passes.tiling.choice import Choice
from nncompiler.passes.tiling.reads import CACHE, LINE, NEAR, Reads, with_columns
from nncompiler.passes.tiling.step_cycles import limit
from nncompiler.passes.tiling.unroll import unrolled
from nncompiler.record import dataclass

#: The factor that varies along the columns is packed when so many tiles read the copy of a tile,
#: and when that is no larger than this; in blocks of several tiles while they fit.
PANEL_READERS = 4
PANEL_BYTES = 64 * 1024
BLOCK_BYTES, BLOCK = 128 * 1024, 4
#: Processors with long vectors have a second-level cache of 1 MiB or more: there a panel may be as
#: large as this, of a larger factor that very many tiles read; or many, where it spares rounds.
LARGE_PANEL, SPARING_READERS = 256 * 1024, 16
#: Vectors of partial sums that are taken at a time, of columns in lines.
LINE_STEPS = 2
#: Bytes of the sums of a block that may wait between rounds, on the stack.
SLOT_BYTES = 512 * 1024
#: Rows run around the tiles of larger blocks where so many tiles of rows read them, or where sums
#: have so few steps that epilogues, which then go along lines of memory, take as long.
BLOCK_READERS, SHORT = 32, 16


@dataclass(frozen=True, slots=True)
class Order(Reads):
    machine: Machine

    def schedule(self, choice: Choice) -> Schedule:
        """Loops from the outside in: what the panel of `b` depends on, columns, what shares the
        panel, rows.
        """
        varying = {
            x
            for p in self.form.products
            for e in (p.a, p.b)
            if choice.columns in axes_of(e)
            for x in axes_of(e)
        }
        rest = [a.name for a in self.form.parallel if a.name not in (choice.columns, choice.rows)]
        outer = [x for x in rest if x in varying]
        inner = [x for x in rest if x not in varying]
        reduction = [a.name for p in self.form.products for a in p.reduction]
        # Positions outside, channels inside: bounds of padded positions are then looked at rarely.
        products = [with_columns(p, choice.columns) for p in self.form.products]
        shifted = {x for pair in products for e in pair for x in self.shifted(e)}
        far = {x: max(self.reach(a, x) for a, _ in products) for x in reduction}
        reduction.sort(key=lambda x: (x == choice.vector, x not in shifted, -far[x]))
        rows = [choice.rows] if choice.rows else []
        order = (*outer, choice.columns, *inner, *rows, *dict.fromkeys(reduction))
        if (around := self.around(choice, shifted, reduction)) is not None:
            order = around
        elif choice.vector == choice.columns and not choice.turned and (
            first := self.round_of(products, self.panel_bytes(choice), choice.rows, choice.columns)
        ):
            inside = *rows, *(x for x in reduction if x != first)
            if self.side_by_side(products[0][0], choice.rows):
                order = (*outer, *inner, choice.columns, first, *inside)
            else:
                order = (*outer, choice.columns, first, *inner, *inside)
        order, pack = self.packed(choice, products, order)
        if pack and choice.vector != choice.columns:
            unroll = LINE_STEPS
        else:
            unroll = unrolled(
                self.form, order[-1], self.lanes if choice.vector == order[-1] else 1
            )
        lanes = choice.vector, *(rows if choice.turned else ())
        roles = lanes, choice.rows, choice.tile
        return Schedule("contract", *roles, order, pack, unroll)

    def packed(
        self, choice: Choice, products: list[tuple[Expr, Expr]], order: tuple[str, ...]
    ) -> tuple[tuple[str, ...], int]:
        """Columns to pack at a time, 0 where that is not worth it; and the order. Where many tiles
        make up a block, the rows run around them: the epilogue then goes along lines of memory;
        and where the rows' factor comes from further than the second-level cache, once a block.
        Where few rows read a panel it is of one tile, which the first rows fill as they read.
        """
        if choice.turned:
            return order, 0
        names = [a.name for a in self.form.parallel]
        place = order.index(choice.columns)
        inside = [x for x in order[place + 1 :] if x in names]
        steps = {choice.rows: choice.tile[0]}
        readers = math.prod(-(-self.extent(x) // steps.get(x, 1)) for x in inside)
        varies = any(x in axes_of(b) for x in inside for _, b in products)
        around = order[place + 1] if order[place + 1] not in names else None
        size = self.panel_bytes(choice) * len(products)
        size //= next((k.extent for k in self.form.products[0].reduction if k.name == around), 1)
        if choice.vector != choice.columns:
            turned = any(self.stride(b, choice.vector) != 1 for _, b in products)
            return order, choice.tile[1] * turned
        as_is = self.as_is(products, choice.columns, choice.tile[1], around)
        whole = max(self.bytes_of(b) for _, b in products)
        if varies or as_is or not self.pays(size, readers, whole):
            return order, 0
        every, tiles = -(-self.extent(choice.columns) // choice.tile[1]), BLOCK_BYTES // size
        turned = any(self.stride(b, choice.columns) != 1 for _, b in products)
        far = every > BLOCK and max(self.bytes_of(a) for a, _ in products) > NEAR
        short = every >= 2 * BLOCK and self.size(self.form.products[0].reduction) <= SHORT
        many = tiles > BLOCK and not turned or tiles > 1 and far
        many = short or many and readers >= BLOCK_READERS
        if around is None and many and every > 1:
            blocks = max(-(-every // tiles), 1 + short)  # of few rows, a half for each thread
            last = place + 1 + len(inside)
            order = (*order[:last], choice.columns, *order[last:])
            return order, choice.tile[1] * -(-every // blocks)
        if turned or around is None and inside == [choice.rows] and readers < BLOCK_READERS:
            tiles = 1
        a, most = products[0][0], BLOCK
        if around is not None and self.side_by_side(a, inside[-1]):
            # Rows are copied too, for half of all columns at most if these alone can be shared.
            waiting = self.extent(choice.rows) * choice.tile[1] * a.dtype.bytes
            all_or_half = every if place else -(-every // 2)
            most = min(all_or_half, max(BLOCK, SLOT_BYTES // waiting))
        return order, choice.tile[1] * max(1, min(tiles, most, every))

    def pays(self, size: int, readers: int, whole: int) -> bool:
        """Whether a panel of so many bytes, of a factor of `whole`, is worth a copy that so many
        tiles read.
        """
        rounds = len(self.form.products[0].reduction) > 1
        many = SPARING_READERS if rounds else BLOCK_READERS
        large = self.long and readers >= many and whole > LARGE_PANEL
        return readers >= PANEL_READERS and size <= (LARGE_PANEL if large else PANEL_BYTES)

    def side_by_side(self, a: Expr, rows: str | None) -> bool:
        """Whether neighbours in memory are rows, and steps of the reduction lie lines apart."""
        return rows is not None and self.apart(a, LINE) and self.stride(a, rows) == 1

    def around(
        self, choice: Choice, shifted: set[str], reduction: list[str]
    ) -> tuple[str, ...] | None:
        """The order in which the outermost reduction loop, over positions, runs around the loops
        over places in the window: these read the same rows, which are then still in cache. Worth
        it where the factors of one tile are too large for that as a whole.
        """
        if choice.vector not in reduction or len(self.form.products) != 1:
            return None
        product, names = self.form.products[0], [a.name for a in self.form.parallel]
        first = next((x for x in reduction if x != choice.vector and x in shifted), None)
        inside = [x for x in names if x in shifted and x not in (choice.columns, choice.rows)]
        if first is None or not inside:
            return None
        lines = sum(choice.tile) * self.size(product.reduction) * product.a.dtype.bytes
        slots = math.prod(choice.tile) * math.prod(map(self.extent, inside))
        slots *= self.machine.vector_bytes
        if lines < CACHE or slots > CACHE // 2:
            return None
        outside = [choice.columns, *([choice.rows] if choice.rows else [])]
        outside = [x for x in names if x not in (*inside, *outside)] + outside
        return (*outside, first, *inside, *(x for x in reduction if x != first))

    def as_is(
        self, products: list[tuple[Expr, Expr]], columns: str, width: int, around: str | None
    ) -> bool:
        """Whether tiles read their columns where they are: what rounds read in windows, the next
        place finds in cache again, where a copy for each would be read by few tiles.
        """
        if self.dense(columns, width) or self.near(products, columns):
            return True
        return around is not None and all(
            self.stride(b, columns) == 1 and self.shifted(b) for _, b in products
        )

    @property
    def long(self) -> bool:
        """Whether vectors are whole lines: a step of a tile then takes so many cycles, one or
        more for each of its accumulators, that its lines may come from the second-level cache,
        and rounds pay only where there are enough tiles to copy rows for.
        """
        return self.machine.vector_bytes >= LINE

    def panel_bytes(self, choice: Choice) -> int:
        across = -(-choice.tile[1] // self.lanes) * self.machine.vector_bytes
        return max(self.size(p.reduction) for p in self.form.products) * across

    def round_of(
        self, products: list[tuple[Expr, Expr]], panel: int, row: str | None, columns: str
    ) -> str | None:
        """The reduction axis to run around the rows, where a panel is too large as a whole and
        has several axes: the one along which the rows' factor lies furthest apart.
        """
        reduction = self.form.products[0].reduction
        if len(products) != 1 or len(reduction) < 2 or row is None:
            return None
        if self.near(products, columns):
            return None
        a, b = products[0]
        lines = self.size(reduction) * LINE
        if panel <= PANEL_BYTES and lines + panel <= CACHE:
            return None
        if self.long and lines + panel <= NEAR and not (self.shifted(a) or self.shifted(b)):
            every = self.extent(columns) * self.size(reduction) * b.dtype.bytes / panel
            vectors = panel // (self.size(reduction) * self.machine.vector_bytes)
            readers = self.extent(row) // max((limit(self.machine) - 1) // vectors - 1, 1)
            copied = self.pays(panel, readers, self.bytes_of(b)) and self.stride(b, columns) == 1
            if every <= BLOCK or copied:
                return None
        first = max(reduction, key=lambda k: self.reach(a, k.name))
        if self.guarded(a, first.name) or self.guarded(b, first.name):
            return None
        slots = self.extent(row) * 16 * self.machine.vector_bytes // self.lanes
        fits = panel // first.extent <= PANEL_BYTES and slots <= 2 * PANEL_BYTES
        return first.name if fits else None
