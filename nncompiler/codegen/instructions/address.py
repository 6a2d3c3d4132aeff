"""Where an element is: buffers, axis values, lanes, and the offsets made of them."""

from __future__ import annotations

from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.value import Value
from nncompiler.ir.types import DType
from nncompiler.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer is: a pointer parameter, a displacement in bytes, strides in elements; and
    its size. Nothing is written to one that is `read_only` while the kernel runs.
    """

    pointer: str
    displacement: int
    dtype: DType
    strides: tuple[int, ...]
    read_only: bool = False
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Lanes:
    """The axis that runs over lanes; `active` of the `count` lanes are inside its extent."""

    axis: str
    count: int
    active: int


@dataclass(frozen=True, slots=True)
class At:
    """The value of an axis: an i64 (none when empty) plus a number. `span`, where it is known, is
    the least and the greatest value of that i64.
    """

    base: str = ""
    plus: int = 0
    span: tuple[int, int] | None = None

    @staticmethod
    def of(counter: Counter, values: range | None = None) -> At:
        """A counter, of a loop over `values` where these are known."""
        if isinstance(counter, int):
            return At("", counter)
        return At(counter, 0, (values[0], values[-1]) if values else None)

    def __add__(self, more: int) -> At:
        return At(self.base, self.plus + more, self.span)

    @property
    def ends(self) -> tuple[int, int] | None:
        """The least and the greatest value of the axis."""
        if not self.base:
            return self.plus, self.plus
        return (self.span[0] + self.plus, self.span[1] + self.plus) if self.span else None


@dataclass(slots=True)
class Offset:
    """An address in elements: `fixed` + sum of value * factor + lane * `stride` + `gathered`
    (i32, by lane).
    """

    fixed: int = 0
    terms: list[tuple[str, int]] = field(default_factory=list)
    stride: int = 0
    gathered: Value | None = None
