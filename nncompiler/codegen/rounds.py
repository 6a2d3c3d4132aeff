"""A reduction whose loop runs around those of tiles: their accumulators wait in scratch memory."""

from __future__ import annotations

from dataclasses import dataclass

from nncompiler.codegen.writer import Counter, Value, Writer, memory_type, vector_of
from nncompiler.ir.kernel import Axis, Schedule
from nncompiler.ir.nests import Contraction
from nncompiler.ir.types import DType


@dataclass(frozen=True, slots=True)
class Around:
    """A reduction axis whose loop runs around those of the parallel axes `inside`."""

    axis: Axis
    inside: tuple[Axis, ...]


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
        return [self.w.value(f"load {wide}, ptr {p}", self.dtype, self.lanes) for p in found]

    def store(self, values: list[Value]) -> None:
        for pointer, value in zip(self._pointers(), values, strict=True):
            self.w.line(f"store {value.typed}, ptr {pointer}")

    def _pointers(self) -> list[str]:
        element, base = memory_type(self.dtype), self.memory
        for number in self.first:
            base = self.w.assign(f"getelementptr {element}, ptr {base}, i64 {number}")
        steps = range(0, self.count * self.lanes, self.lanes)
        return [self.w.assign(f"getelementptr {element}, ptr {base}, i64 {n}") for n in steps]


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
