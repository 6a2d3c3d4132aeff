"""A vector axis in pieces: wide vectors, single registers, and a masked last one."""

from __future__ import annotations

from collections.abc import Callable, Container

from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.codegen.nests.clip import Bounds, Edge, extreme
from nncompiler.ir.scalar import Affine
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a vector axis: steps of `lanes` from `start` to `stop`, the last `active` lanes
    wide. Steps at which a form `within` is negative all over are `outside`, and may be left out.
    """

    start: int
    stop: int
    lanes: int
    active: int
    within: tuple[Affine, ...] = ()
    outside: bool = False

    @property
    def trips(self) -> int:
        return -(-(self.stop - self.start) // self.lanes)

    def inside(
        self, axis: str, known: Container[str], w: Writer, value: Callable[[Affine], Counter]
    ) -> tuple[Counter, Counter] | None:
        """Where the steps start and stop that may not be left out, by the `value` of a form of
        axes that are `known`; None where nothing may be left out.
        """
        bounds = Bounds()
        for form in self.within if self.active == self.lanes else ():
            k = form.coefficient(axis)
            edge = (form + Affine.axis(axis) * -k) * -k
            if abs(k) == 1 and all(x in known for x in edge.axes):
                bounds += (
                    Bounds(low=(Edge(edge),)) if k == 1 else Bounds(high=(Edge(edge + 1),))
                )
        if bounds == Bounds():
            return None
        start, stop = bounds.ends(self.stop, w, value)
        start = _whole(w, extreme(w, "smin", start, self.stop), self.lanes)
        stop = extreme(w, "smax", start, stop)
        more = self.lanes - 1
        beyond = stop + more if isinstance(stop, int) else w.assign(f"add i64 {stop}, {more}")
        return start, _whole(w, beyond, self.lanes)


def _whole(w: Writer, at: Counter, lanes: int) -> Counter:
    """The last multiple of `lanes`, a power of two, up to `at`."""
    return at // lanes * lanes if isinstance(at, int) else w.assign(f"and i64 {at}, {-lanes}")


def pieces(
    extent: int, lanes: int, interleave: int, within: tuple[Affine, ...] = ()
) -> tuple[Piece, ...]:
    """Cut an axis into a wide part, a part of single registers and a masked rest."""
    found, start = [], 0
    for width in (lanes * interleave, lanes):
        whole = (extent - start) // width * width
        if whole and (width == lanes or interleave > 1):
            found.append(Piece(start, start + whole, width, width, within))
            start += whole
    if rest := extent - start:
        width = min(lanes, max(2, 1 << (rest - 1).bit_length()))
        found.append(Piece(start, extent, width, rest))
    return tuple(found)
