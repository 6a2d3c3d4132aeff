"""Steps of a loop that stand side by side: each statement inside is written for all of them before
the next one is, and they share its loops.

    for i < 64 {                    for i < 64 by 2 {
      s = sum j { x[i,j] }    ──▶     s, s' = sum j { x[i,j] }, sum j { x[i+1,j] }
      y[i] = 1 / s                    y[i] = 1 / s;  y[i+1] = 1 / s'
    }                               }

Where a statement waits for what the one before it made, the steps do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nncompiler.codegen.instructions.emitter import Emitter
from nncompiler.codegen.instructions.value import Value
from nncompiler.ir.kernel import Schedule
from nncompiler.ir.scalar import Affine


class Beside:
    """The steps of the axis `Schedule.register`, as many at a time as `Schedule.unroll` says."""

    def __init__(self, emitter: Emitter, schedule: Schedule) -> None:
        self._e = emitter
        self.axis, self.most = schedule.register or "", schedule.unroll
        #: What each step has bound for itself; none outside of the loop, and within a step.
        self._locals: list[dict[str, Value]] = []

    @property
    def count(self) -> int:
        """For how many steps a statement is written here."""
        return len(self._locals) or 1

    def __bool__(self) -> bool:
        return bool(self._locals)

    def begin(self) -> None:
        """What follows is inside of the loop, until its `end`."""
        self._locals = [{} for _ in range(self.most)]

    def end(self) -> None:
        self._locals = []

    def each(self) -> Iterator[int]:
        """The numbers of the steps. What is written until the next one is asked for belongs to the
        step alone.
        """
        steps, self._locals = self._locals, []
        if not steps:
            yield 0
        for n, mine in enumerate(steps):
            with self._e.scope({self.axis: self._e.axes[self.axis] + n}):
                self._e.locals |= mine
                yield n
        self._locals = steps

    def bind(self, names: tuple[str, ...], values: Sequence[Sequence[Value]]) -> None:
        """Give locals their values, each step its own."""
        for mine, found in zip(self._locals or [self._e.locals], values, strict=True):
            mine.update(zip(names, found, strict=True))

    def known(self) -> Mapping[str, Value]:
        """The locals of the first step."""
        return self._e.locals | self._locals[0] if self._locals else self._e.locals

    def all_outside(self, within: tuple[Affine, ...]) -> tuple[Affine, ...]:
        """Forms that are negative where `within` are so for every step."""
        more = self.count - 1
        return tuple(f + max(0, f.coefficient(self.axis)) * more for f in within)
