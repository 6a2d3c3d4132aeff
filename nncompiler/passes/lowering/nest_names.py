"""What the axes and locals of a nest are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from nncompiler.ir.graph import Value
from nncompiler.ir.kernel import Axis
from nncompiler.record import dataclass, field

AXIS_NAMES = "ijklmnpqrstuvw"
#: What the sums of a contraction are called.
ACCUMULATOR = "acc"


def local_name(value: Value) -> str:
    """What the first local that holds elements of a value is called."""
    return _word(value.name)


@lru_cache(maxsize=4096)
def _word(name: str) -> str:
    name = re.sub(r"\W", "_", name)
    return f"v{name}" if name[0].isdigit() else name


@dataclass(slots=True)
class NestNames:
    """The names given out in one nest."""

    #: Of every axis, its extent.
    extents: dict[str, int] = field(default_factory=dict)
    #: Of every local, the value whose elements it holds.
    locals: dict[str, Value | None] = field(default_factory=dict)
    _loops: dict[object, tuple[Axis, ...]] = field(default_factory=dict)

    def own_axes(self, extents: Sequence[int]) -> tuple[Axis, ...]:
        """Axes of one loop only."""
        return tuple([self._axis(n) for n in extents])

    def axes(self, around: tuple[str, ...], extents: Sequence[int]) -> tuple[Axis, ...]:
        """Axes inside those `around`; sibling loops over one axis of the same extent share it, as
        `j` in a softmax.

        Loops over several axes do not: a schedule may run them over lanes along different axes.
        """
        key = (around, tuple(extents))
        if key not in self._loops or len(extents) > 1:
            self._loops[key] = self.own_axes(extents)
        return self._loops[key]

    def _axis(self, extent: int) -> Axis:
        pool = (*AXIS_NAMES, *(f"x{k}" for k in range(len(self.extents) + 1)))
        name = next(x for x in pool if x not in self.extents)
        self.extents[name] = extent
        return Axis(name, extent)

    def local(self, value: Value | None) -> str:
        """A name for a local that holds elements of `value`."""
        base = ACCUMULATOR if value is None else local_name(value)
        name, count = base, 1
        while name in self.locals or name in self.extents:
            count += 1
            name = f"{base}_{count}"
        self.locals[name] = value
        return name
