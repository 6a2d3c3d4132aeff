"""Which part of a product a register tile is, and how an axis falls into tiles."""

from __future__ import annotations

from nncompiler.codegen.contractions.panel import Panel
from nncompiler.codegen.instructions.address import At
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """One register tile, or a block of them side by side: its size, its first row and column, and
    of a tile its number in the block.

    `width` counts elements along the columns; `panels` are the packed copies of `b` by identity of
    the fold; a tile that `fills` them reads what they are copies of. `row_panel` is a copy of
    `a`, and the number of the tile in it.
    """

    rows: int
    width: int
    row: At
    column: At
    number: Counter = 0
    panels: tuple[tuple[int, Panel], ...] = ()
    fills: bool = False
    row_panel: tuple[Panel, Counter] | None = None


def evenly(extent: int, step: int) -> tuple[range, range]:
    """Steps of at most `step` over an axis, as few and as equal as can be: the longer ones and
    those that are one shorter.
    """
    less, more = divmod(extent, -(-extent // step))
    middle = more * (less + 1)
    return range(0, middle, less + 1), range(middle, extent, less)
