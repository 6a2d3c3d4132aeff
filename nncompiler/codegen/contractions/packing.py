"""Fill panels: copies of what varies along the columns of a block of tiles.

Where neighbours in memory are columns, vectors are copied as they are. Where they follow each
other along a reduction axis, squares are loaded along that and turned in registers. Where lanes
are partial sums, it is columns that are turned, to lines along the reduction axis.
"""

from __future__ import annotations

from nncompiler.codegen.contractions.expected import stride_along
from nncompiler.codegen.contractions.panel import Panel
from nncompiler.codegen.contractions.product import Loops, Roles
from nncompiler.codegen.contractions.register_tile import RegisterTiles
from nncompiler.codegen.contractions.tile import Tile
from nncompiler.codegen.instructions.address import At, Lanes
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, literal
from nncompiler.codegen.nests.turn import squares, turned
from nncompiler.ir.kernel import Axis
from nncompiler.ir.scalar import Load, walk
from nncompiler.record import replace


def packed(tiles: RegisterTiles, block: Tile, inside: int) -> Tile:
    """The block with panels of `b` for the reduction loops from number `inside` on."""
    block = with_panels(tiles, block, inside)
    for (_, panel), product in zip(block.panels, tiles.products.values(), strict=True):
        loops = product.loops_of_b[inside:]
        along = _along(tiles, product, loops)
        if along is None or not tiles.reduced and tiles.lanes_of(block) < tiles.lanes:
            _copy(tiles, product, block, panel, loops)
        else:
            _turn(tiles, product, block, panel, along, tuple(x for x in loops if x[0] != along))
    return block


def with_panels(tiles: RegisterTiles, block: Tile, inside: int) -> Tile:
    """The block with panels that are still to be filled."""
    panels = []
    for n, (key, product) in enumerate(tiles.products.items()):
        lanes, width = tiles.lanes_of(block), min(tiles.tile[1], block.width)
        axes = tuple(a for a, _ in product.loops[inside:])
        if tiles.reduced:
            length = -(-axes[-1].extent // tiles.lanes) * tiles.lanes
            axes = (*axes[:-1], Axis(axes[-1].name, length))
        else:
            width = -(-width // lanes) * lanes
        panel = Panel(tiles.e, f"<panel {n}>", axes, width, tiles.reduced)
        panel.place(-(-block.width // width), tiles.dtype)
        panels.append((key, panel))
    return replace(block, panels=tuple(panels))


def turns(tiles: RegisterTiles) -> bool:
    """Whether panels are filled by squares."""
    return any(_along(tiles, p, p.loops_of_b) for p in tiles.products.values())


def _copy(tiles: RegisterTiles, product: Roles, block: Tile, panel: Panel, loops: Loops) -> None:
    lanes = tiles.lanes_of(block)

    def body(_: list[Value]) -> list[Value]:
        for first in range(0, block.width, lanes):
            number, column = divmod(first, panel.width)
            panel.store(number, column, tiles.direct(product, block, first, lanes))
        return []

    tiles.reduce(loops, [], body)


def _along(tiles: RegisterTiles, product: Roles, loops: Loops) -> Axis | None:
    """The reduction axis along which `b` is contiguous, if its columns are not; where lanes are
    partial sums, their axis.
    """
    if tiles.reduced:
        return next(axis for axis, _ in loops if axis.name == tiles.vector)
    loads = [x for x in walk(product.b) if isinstance(x, Load)]
    if {stride_along(tiles.e, x, tiles.columns) for x in loads} <= {0, 1}:
        return None
    for axis, bounds in loops:
        steps = {stride_along(tiles.e, x, axis.name) for x in loads}
        if not bounds.low and not bounds.high and 1 in steps and steps <= {0, 1}:
            return axis
    return None


def _turn(
    tiles: RegisterTiles, product: Roles, block: Tile, panel: Panel, along: Axis, loops: Loops
) -> None:
    """Tiles by squares of their columns; inside a square's columns all others `loops`, then
    `along`.
    """
    e, n, width = tiles.e, tiles.lanes, panel.width
    whole = block.width // width

    def square(number: Counter, column: int, at: At, count: int) -> None:
        lines = [literal(tiles.zero, n)] * n
        left = block.width - whole * width if number == whole else width
        first, across = tiles.column_at(block, number) + column, min(n, left - column)
        if panel.lines:
            for k in range(count):
                over = Lanes(tiles.columns, n, across)
                with e.scope({tiles.columns: first, along.name: at + k}, over):
                    lines[k] = e.w.splat(e.value(product.b), n)
            for c, line in enumerate(turned(e.w, lines)[:across]):
                with e.scope({along.name: at}):
                    panel.store(number, column + c, line)
            return
        for c in range(across):
            with e.scope({tiles.columns: first + c, along.name: at}, Lanes(along.name, n, count)):
                lines[c] = e.w.splat(e.value(product.b), n)
        for k, line in enumerate(turned(e.w, lines)[:count]):
            with e.scope({along.name: at + k}):
                panel.store(number, column, line)

    def tile(number: Counter, _: list[Value], across: int = width) -> list[Value]:
        for column in range(0, across, n):

            def body(_: list[Value], column: int = column) -> list[Value]:
                squares(e.w, along, n, lambda at, count: square(number, column, at, count))
                return []

            tiles.reduce(loops, [], body)
        return []

    e.w.loop(0, whole, 1, [], tile)
    tile(whole, [], block.width % width)
