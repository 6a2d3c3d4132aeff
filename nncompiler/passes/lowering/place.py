"""Where the elements of a value are."""

from __future__ import annotations

from nncompiler.ir.scalar import Affine, Index
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value's elements are: in a buffer, at the value's own index with `inserts` put in
    one after the other.

    An insert (axis, position) says that the value is one step of a stack along that axis; the
    position is an affine form of an enclosing loop's counter.
    """

    buffer: str
    inserts: tuple[tuple[int, Affine], ...] = ()

    def step(self, axis: int, position: Affine) -> Place:
        """Where one step of this value is."""
        return Place(self.buffer, ((axis, position), *self.inserts))

    def index(self, index: tuple[Index, ...]) -> tuple[Index, ...]:
        for axis, position in self.inserts:
            index = (*index[:axis], position, *index[axis:])
        return index
