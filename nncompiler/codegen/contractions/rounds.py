"""A reduction whose loop runs around those of tiles: their accumulators wait in scratch memory.

    clear every tile;  for k { every tile adds what it has at k };  finish every tile
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.slots import Slots
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.ir.kernel import Axis, Schedule
from nncompiler.ir.nests import Contraction
from nncompiler.ir.scalar import Affine
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Around:
    """A reduction axis whose loop runs around those of the parallel axes `inside`."""

    axis: Axis
    inside: tuple[Axis, ...]


def around_of(
    form: Contraction, schedule: Schedule, parallel: tuple[Axis, ...]
) -> Around | None:
    """The reduction axis that the order puts before parallel axes, if there is one."""
    place = {name: n for n, name in enumerate(schedule.order)}
    for axis in form.products[0].reduction if len(form.products) == 1 else ():
        first = place.get(axis.name, len(place))
        inside = tuple(a for a in parallel if place.get(a.name, -1) > first)
        if inside:
            return Around(axis, inside)
    return None


class Rounds:
    """What each tile of a block does before, in and after the rounds."""

    def __init__(self, tiles: RegisterTiles, around: Around, block: Tile) -> None:
        self._tiles, self._around = tiles, around
        (self._product,) = tiles.products.values()
        #: Rows that have accumulators at each step of the innermost loop inside a round.
        self.rows = 1 if around.inside[-1].name == tiles.rows else tiles.tile[0]
        across = min(tiles.tile[1], tiles.extents[tiles.columns])
        vectors = across if tiles.reduced else -(-across // tiles.lanes)
        steps = math.prod(a.extent for a in around.inside)
        #: Elements of the accumulators of a whole tile at one step, and of its columns at all.
        self._step = self.rows * vectors * tiles.lanes
        self._elements = steps * self._step
        blocks = max(1, -(-block.width // tiles.tile[1]))
        size = self._elements * blocks * tiles.dtype.bytes
        if size not in tiles.waiting:
            tiles.waiting[size] = tiles.w.scratch(size)
        self._memory = tiles.waiting[size]

    def clear(self, tile: Tile) -> None:
        if self._tiles.reduced and tile.rows > 1:
            self._by_rows(tile, lambda slots, _: slots.store(self._zeros(slots)))
            return
        slots = self._slots(tile)
        slots.store(self._zeros(slots))

    def _zeros(self, slots: Slots) -> list[Value]:
        return [literal(self._tiles.zero, slots.lanes)] * slots.count

    def expect_and_clear(self, tile: Tile) -> None:
        self._tiles.expect(tile)
        self.clear(tile)

    def add_and_finish(self, tile: Tile) -> None:
        """One round; in the last one the epilogue too, whose lines of memory are asked for before
        the sums are added up.
        """
        tiles, axis = self._tiles, self._around.axis
        last, now = axis.extent - 1, tiles.e.integer(Affine.axis(axis.name))

        def expect(_: Counter, __: list[Value]) -> list[Value]:
            tiles.expect(tile)
            return []

        def row(n: Counter, _: list[Value]) -> list[Value]:
            at = tiles.row_at(tile, n)
            with tiles.e.scope({tiles.rows or "": at}):
                self.finish(replace(tile, rows=1, row=at))
            return []

        def finish(_: Counter, __: list[Value]) -> list[Value]:
            return tiles.w.loop(0, tile.rows, 1, [], row)

        if tiles.expected:
            tiles.w.when(now, last, axis.extent, expect)
        self.add(tile)
        tiles.w.when(now, last, axis.extent, finish)

    def add(self, tile: Tile) -> None:
        """One round: the loops further in, where the bounds of this one have it."""
        tiles, axis = self._tiles, self._around.axis
        slots = self._slots(tile)
        (_, bounds), *inside = self._product.loops
        start, stop = bounds.ends(axis.extent, tiles.w, tiles.e.integer)
        now = tiles.e.integer(Affine.axis(axis.name))
        across = tiles.vectors_of(tile)

        def body(_: Counter, __: list[Value]) -> list[Value]:
            slots.store(tiles.reduce(
                tuple(inside), slots.load(),
                lambda acc: tiles.step(self._product, tile, across, acc),
                1 if inside[-1][0].name == tiles.rows else tiles.together(tile),
            ))  # fmt: skip
            return []

        tiles.w.when(now, start, stop, body)

    def finish(self, tile: Tile) -> None:
        tiles = self._tiles
        slots, key = self._slots(tile), id(self._product.fold)
        if not tiles.reduced and tiles.by_row(tile, slots.lanes):
            tiles.finish_rows(tile, {key: slots})
            return
        if tiles.reduced and tile.rows > 1:
            self._by_rows(tile, self._finish_row)
            return
        found = slots.load()
        sums = tiles.joined(found, tiles.vectors_of(tile)) if tiles.reduced else found
        tiles.finish(tile, {key: sums})

    def _by_rows(self, tile: Tile, visit: Callable[[Slots, Tile], None]) -> None:
        """A loop over the rows of a tile: less code than all at once, and seldom run."""
        tiles, slots = self._tiles, self._slots(tile)
        across = tiles.vectors_of(tile)

        def row(n: Counter, _: list[Value]) -> list[Value]:
            visit(slots.group(n, across), replace(tile, rows=1, row=tiles.row_at(tile, n)))
            return []

        tiles.w.loop(0, tile.rows, 1, [], row)

    def _finish_row(self, slots: Slots, tile: Tile) -> None:
        """Lanes added up, and the epilogue."""
        sums = self._tiles.joined(slots.load(), slots.count)
        self._tiles.finish(tile, {id(self._product.fold): sums})

    def _slots(self, tile: Tile) -> Slots:
        """Where the accumulators of a tile are."""
        tiles = self._tiles
        lanes, vectors = tiles.lanes_of(tile), tiles.vectors_of(tile)
        place, (*outer, last) = Affine(), self._around.inside
        for axis in outer:
            place = place * axis.extent + Affine.axis(axis.name)
        # The rows of a tile follow each other without gaps, however narrow it is.
        step = lanes * vectors if last.name == tiles.rows else self._step
        place = place * (last.extent * self._step) + Affine.axis(last.name) * step
        first = tiles.e.integer(place), tiles.w.times(tile.number, self._elements)
        return Slots(tiles.w, self._memory, tiles.dtype, lanes, tile.rows * vectors, first)
