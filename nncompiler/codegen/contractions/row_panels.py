"""Copies of the factor that has the rows, where its neighbours in memory are rows and the steps of
a reduction lie far apart: for several tiles of rows at a time, so that whole lines are read.

    a[k,i], tiles of 6 rows  ──▶  panel[tile][k][6]   of the tiles of one group

What the next group reads is asked for meanwhile: it lies in short pieces far apart, which no
prefetch of hardware brings in time.
"""

from __future__ import annotations

import math
from collections import Counter as Count
from collections.abc import Callable
from itertools import product as combined

from nncompiler.codegen.contractions.expected import LINE, stride_along
from nncompiler.codegen.contractions.panel import Panel
from nncompiler.codegen.contractions.product import Loops
from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value
from nncompiler.ir.scalar import Load
from nncompiler.record import dataclass, replace

#: Tiles that must read a panel of rows; most tiles of rows that are copied together, and bytes.
_READERS, _GROUP, _BYTES = 6, 10, 64 * 1024
#: Sets of the first-level cache, and the lines that each holds.
_SETS, _WAYS = 64, 8


def packs_rows(tiles: RegisterTiles, block: Tile, loops: Loops) -> bool:
    """Whether so many tiles of a block read the same elements of `a` in the `loops` that a copy of
    them pays: neighbours in memory are rows, the steps of the reduction lie a line apart or more.
    """
    if len(tiles.products) != 1 or tiles.rows is None:
        return False
    (product,) = tiles.products.values()
    load = product.a
    if not isinstance(load, Load) or load.guard is not None:
        return False
    bounded = any(b.low or b.high for _, b in loops)
    steps = [stride_along(tiles.e, load, a.name) or 0 for a, _ in loops]
    many = block.width >= _READERS * tiles.tile[1]
    apart = min(steps, default=0) * tiles.dtype.bytes >= LINE
    return many and apart and not bounded and stride_along(tiles.e, load, tiles.rows) == 1


def collide(tiles: RegisterTiles, loops: Loops) -> bool:
    """Whether the lines of `a` that a tile reads share so few sets of the first-level cache that
    they drive each other out.
    """
    (product,) = tiles.products.values()
    assert isinstance(product.a, Load)
    steps = [(stride_along(tiles.e, product.a, a.name) or 0, a.extent) for a, _ in loops]
    places = combined(*(range(0, step * n, step) for step, n in steps))
    lines = {sum(place) * tiles.dtype.bytes // LINE for place in places}
    return max(Count(line % _SETS for line in lines).values()) > _WAYS


def row_groups(
    tiles: RegisterTiles, pieces: tuple[range, ...], block: Tile, loops: Loops, around: str,
    visit: Callable[[Tile], None],
) -> None:  # fmt: skip
    """`visit` all tiles of rows, or this worker's part of them, with panels of their rows for the
    `loops`: in a round of the axis `around` if there is one.
    """
    number, share, rows = 0, tiles.e.share, tiles.rows or ""
    for starts in pieces:
        begin: Counter = 0
        end: Counter = len(starts)
        if share is not None and rows in share:
            begin, end = share.span(rows, number, len(starts))
        last = starts is pieces[-1]
        groups = _Groups(tiles, starts, begin, end, loops, around if last else "")
        groups.run(block, visit)
        number += len(starts)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Tiles of the rows that begin at `starts`, from number `begin` to `end`, some to a group: the
    last group is of as many tiles too, of which some are done. Behind it follows the next round of
    `around`, or other rows where that is empty.
    """

    tiles: RegisterTiles
    starts: range
    begin: Counter
    end: Counter
    loops: Loops
    around: str

    @property
    def most(self) -> int:
        """Tiles for whose copies there is room."""
        size = math.prod(a.extent for a, _ in self.loops) * self.width * self.tiles.dtype.bytes
        return max(1, min(_GROUP, _BYTES // size))

    @property
    def count(self) -> int:
        """Tiles of a group."""
        return -(-len(self.starts) // -(-len(self.starts) // self.most))

    @property
    def width(self) -> int:
        """Elements of a tile's panel at one step."""
        n = self.tiles.lanes
        return -(-self.tiles.tile[0] // n) * n

    def run(self, block: Tile, visit: Callable[[Tile], None]) -> None:
        tiles, w, n, count = self.tiles, self.tiles.w, len(self.starts), self.count

        def group(first: Counter, _: list[Value]) -> list[Value]:
            begin: Counter = first
            end: Counter = n
            if isinstance(first, str):
                begin = self._least(first, n - count)
                end = self._least(w.assign(f"add nuw nsw i64 {first}, {count}"), self.end)
            panel = self._panel(begin)

            def tile(number: Counter, _: list[Value]) -> list[Value]:
                row, place = self._row(number), number
                if isinstance(number, str):
                    place = w.assign(f"sub nuw nsw i64 {number}, {begin}")
                with tiles.e.scope({tiles.rows or "": row}):
                    visit(replace(
                        block, rows=self.starts.step, row=row, row_panel=(panel, place)
                    ))  # fmt: skip
                return []

            w.some(first, end, [], tile)
            return []

        w.span(self.begin, self.end, [], group, count)

    def _least(self, value: str, most: Counter) -> str:
        return self.tiles.w.intrinsic(
            "llvm.umin.i64", "i64", [("i64", value), ("i64", str(most))]
        )

    def _row(self, number: Counter) -> At:
        """The first row of a tile."""
        return At.of(self.tiles.w.times(number, self.starts.step)) + self.starts.start

    def _panel(self, begin: Counter) -> Panel:
        """The panels of a group, filled."""
        (product,), e, n = self.tiles.products.values(), self.tiles.e, self.tiles.lanes
        assert isinstance(product.a, Load)
        load = product.a
        rows, step, dtype = self.tiles.rows or "", self.starts.step, self.tiles.dtype
        panel = Panel(e, "<rows>", tuple(a for a, _ in self.loops), self.width)
        panel.place(self.most, dtype, LINE // dtype.bytes)
        first, ahead = self._row(begin), self._ahead(begin)

        def body(_: list[Value]) -> list[Value]:
            for row in range(0, self.count * step, LINE // dtype.bytes):
                with e.scope({**ahead, rows: ahead[rows] + row}):
                    e.prefetch(load)
            for tile in range(self.count):
                for row in range(0, step, n):
                    over = Lanes(rows, n, min(n, step - row))
                    with e.scope({rows: first + tile * step + row}, over):
                        panel.store(tile, row, e.value(load))
            return []

        self.tiles.reduce(self.loops, [], body)
        return panel

    def _ahead(self, begin: Counter) -> dict[str, At]:
        """Where the next group is."""
        w, rows, n = self.tiles.w, self.tiles.rows or "", len(self.starts)
        behind = self._row(begin) + self.count * self.starts.step
        if not self.around:
            return {rows: behind}
        now = self.tiles.e.axes[self.around]
        if isinstance(begin, int):
            return {rows: At(), self.around: now + 1}
        last = w.assign(f"icmp eq i64 {begin}, {n - self.count}")
        row = w.assign(f"select i1 {last}, i64 {-behind.plus}, i64 {behind.base}")
        more = w.assign(f"zext i1 {last} to i64")
        turn = w.assign(f"add nuw nsw i64 {now.base or 0}, {more}")
        return {rows: At(row, behind.plus), self.around: At(turn, now.plus)}
