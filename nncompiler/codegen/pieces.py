"""A vector axis in pieces: wide vectors, single registers, and a masked last one."""

from __future__ import annotations

from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a vector axis: steps of `lanes` from `start` to `stop`, the last `active` lanes
    wide.
    """

    start: int
    stop: int
    lanes: int
    active: int

    @property
    def trips(self) -> int:
        return -(-(self.stop - self.start) // self.lanes)


def pieces(extent: int, lanes: int, interleave: int) -> tuple[Piece, ...]:
    """Cut an axis into a wide part, a part of single registers and a masked rest."""
    found, start = [], 0
    for width in (lanes * interleave, lanes):
        whole = (extent - start) // width * width
        if whole and (width == lanes or interleave > 1):
            found.append(Piece(start, start + whole, width, width))
            start += whole
    if rest := extent - start:
        width = min(lanes, max(2, 1 << (rest - 1).bit_length()))
        found.append(Piece(start, extent, width, rest))
    return tuple(found)
