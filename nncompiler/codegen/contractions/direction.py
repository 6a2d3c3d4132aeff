"""A reduction axis that is gone through to and fro: backwards where the counter of a plan loop
around the kernel is odd.
"""

from __future__ import annotations

from nncompiler.codegen.instructions.address import At
from nncompiler.codegen.instructions.blocks import Counter
from nncompiler.codegen.instructions.writer import Writer


class Direction:
    """Where the steps of the axis called `axis` are, by the value of the counter `round`."""

    def __init__(self, writer: Writer, axis: str, extent: int, round: str) -> None:
        self.axis = axis
        self._w, self._last = writer, extent - 1
        odd = writer.assign(f"trunc i64 {round} to i1")
        self._first = writer.assign(f"select i1 {odd}, i64 {self._last}, i64 0")
        self._step = writer.assign(f"select i1 {odd}, i64 -1, i64 1")

    def at(self, step: Counter, more: int) -> At:
        """The place of a step that is so many behind the one with a number."""
        moved = self._w.assign(f"mul nsw i64 {self._step}, {step}")
        place = self._w.assign(f"add nsw i64 {self._first}, {moved}")
        if more:
            further = self._w.assign(f"mul nsw i64 {self._step}, {more}")
            place = self._w.assign(f"add nsw i64 {place}, {further}")
        return At(place, 0, (0, self._last))
