"""Packed copies of a factor: contiguous, so that a reduction reads few cache sets and pages,
whatever the strides it had.
"""

from __future__ import annotations

from nncompiler.codegen.instructions.address import At, Lanes, Place
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value
from nncompiler.ir.kernel import Axis
from nncompiler.ir.scalar import Affine, Load, Ref
from nncompiler.ir.types import DType, row_major
from nncompiler.record import dataclass


@dataclass(frozen=True, slots=True)
class Panel:
    """For each tile of a block and each point of the reduction `axes`, `width` columns; or in
    `lines`, for each of the columns all points, vectors along the last axis.
    """

    e: Emitter
    name: str
    axes: tuple[Axis, ...]
    width: int
    lines: bool = False

    def place(self, tiles: int, dtype: DType, between: int = 0) -> None:
        """Reserve stack for so many tiles, once, with so many elements `between` them."""
        if self.name not in self.e.places:
            sizes = {self.name: self.width, **{a.name: a.extent for a in self.axes}}
            first, *strides = row_major((1, *(sizes[x] for x in self._dims)))
            pointer = self.e.w.scratch(tiles * (first + between) * dtype.bytes)
            self.e.places[self.name] = Place(pointer, 0, dtype, (first + between, *strides))

    def load(self, tile: Counter, column: int, lanes: int) -> Value:
        over = Lanes(self._dims[-1], lanes, lanes)
        with self.e.scope(self._at(tile, column), over):
            return self.e.value(Load(self.name, self._index(), self._dtype))

    def scalar(self, tile: Counter, column: int) -> Value:
        with self.e.scope(self._at(tile, column)):
            return self.e.value(Load(self.name, self._index(), self._dtype))

    def store(self, tile: Counter, column: int, value: Value) -> None:
        over = Lanes(self._dims[-1], value.lanes, value.lanes)
        with self.e.scope(self._at(tile, column), over):
            self.e.locals[self.name] = value
            self.e.store(self.name, self._index(), Ref(self.name, self._dtype))

    @property
    def _dims(self) -> tuple[str, ...]:
        """What the panel of a tile is indexed by."""
        axes = tuple(a.name for a in self.axes)
        return (self.name, *axes) if self.lines else (*axes, self.name)

    @property
    def _dtype(self) -> DType:
        return self.e.places[self.name].dtype

    def _at(self, tile: Counter, column: int) -> dict[str, At]:
        return {self.name: At("", column), f"{self.name} tile": At.of(tile)}

    def _index(self) -> tuple[Affine, ...]:
        return tuple(Affine.axis(x) for x in (f"{self.name} tile", *self._dims))
