"""Sums that wait in scratch memory."""

from __future__ import annotations

from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value, memory_type, vector_of
from nncompiler.codegen.instructions.writer import Writer
from nncompiler.ir.types import DType
from nncompiler.record import dataclass, replace


@dataclass(frozen=True, slots=True)
class Slots:
    """`count` vectors in scratch memory, from the element that `first` add up to."""

    w: Writer
    memory: str
    dtype: DType
    lanes: int
    count: int
    first: tuple[Counter, ...]

    def load(self) -> list[Value]:
        wide = vector_of(memory_type(self.dtype), self.lanes)
        found = self._pointers()
        lines = [f"load {wide}, ptr {p}" for p in found]
        return [self.w.value(x, self.dtype, self.lanes, fixed=True) for x in lines]

    def store(self, values: list[Value]) -> None:
        for pointer, value in zip(self._pointers(), values, strict=True):
            self.w.line(f"store {value.typed}, ptr {pointer}")

    def several(self, number: Counter, count: int) -> Value:
        """The `number`th group of `count` neighbours, as one vector."""
        width, element = count * self.lanes, memory_type(self.dtype)
        wide, align = vector_of(element, width), self.lanes * self.dtype.bytes
        first = self.w.assign(f"mul nuw nsw i64 {number}, {width}")
        pointer = self.w.assign(f"getelementptr {element}, ptr {self._base()}, i64 {first}")
        line = f"load {wide}, ptr {pointer}, align {align}"
        return self.w.value(line, self.dtype, width, fixed=True)

    def group(self, number: Counter, count: int) -> Slots:
        """The `number`th group of `count` neighbours."""
        first = *self.first, self.w.times(number, count * self.lanes)
        return replace(self, count=count, first=first)

    def _base(self) -> str:
        element, base = memory_type(self.dtype), self.memory
        for number in self.first:
            base = self.w.assign(f"getelementptr {element}, ptr {base}, i64 {number}")
        return base

    def _pointers(self) -> list[str]:
        element, base = memory_type(self.dtype), self._base()
        steps = range(0, self.count * self.lanes, self.lanes)
        return [self.w.assign(f"getelementptr {element}, ptr {base}, i64 {n}") for n in steps]
