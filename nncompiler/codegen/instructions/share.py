"""The part of a kernel that one call runs: steps of its outermost loops, by number.

The split loops of a nest count as one, their steps numbered from 0 as they follow each other. Of U
steps a call for the parts from a to b of P runs those from U a / P to U b / P. So the steps
themselves, and with them the bits, depend neither on the number of workers nor on who runs what.
"""

from __future__ import annotations

from nncompiler.codegen.instructions.blocks import Body, Counter
from nncompiler.codegen.instructions.value import Value
from nncompiler.codegen.instructions.writer import Writer

#: a | b << 32, and P.
RANGE, PARTS = "%range", "%parts"


class Share:
    """`steps` are the split loops from the outside in, with the number of their steps. Where the
    number `alternate` is odd, a call runs those of the first loop from the last one to the first.
    """

    def __init__(self, writer: Writer, steps: dict[str, int], alternate: str = "") -> None:
        self._w = writer
        self._first, self._odd = next(iter(steps), ""), ""
        if alternate:
            self._odd = writer.assign(f"trunc i64 {alternate} to i1")
        self._inside: dict[str, int] = {}
        total = 1
        for name in reversed(steps):
            self._inside[name] = total
            total *= steps[name]
        begin = writer.assign(f"and i64 {RANGE}, {0xFFFFFFFF}")
        end = writer.assign(f"lshr i64 {RANGE}, 32")
        self._range = self._bound(total, begin), self._bound(total, end)

    def __contains__(self, axis: str) -> bool:
        return axis in self._inside

    def _bound(self, total: int, part: str) -> str:
        return self._w.assign(
            f"udiv i64 {self._w.assign(f'mul nuw nsw i64 {part}, {total}')}, {PARTS}"
        )

    def loop(
        self, axis: str, first: int, counters: range, body: Body
    ) -> None:
        """Run `body` for those of the `counters` that are in the part; the first of them is step
        `first` of the axis.
        """
        if not counters:
            return
        w, inside, (low, high) = self._w, self._inside[axis], self._range
        begin, end = low, high
        if inside > 1:
            begin = w.assign(f"udiv i64 {low}, {inside}")
            last = w.assign(f"add nuw nsw i64 {high}, {inside - 1}")
            end = w.assign(f"udiv i64 {last}, {inside}")
        begin = self._either("umax", begin, first)
        end = self._either("umin", end, first + len(counters))

        def step(number: Counter, _: list[Value]) -> list[Value]:
            if self._odd and axis == self._first:
                number = self._mirrored(number, begin, end)
            self._range = "0", "1"
            if inside > 1:
                start = w.assign(f"mul nuw nsw i64 {number}, {inside}")
                self._range = (
                    w.assign(f"call i64 @llvm.usub.sat.i64(i64 {low}, i64 {start})"),
                    self._either("umin", w.assign(f"sub nsw i64 {high}, {start}"), inside),
                )
                w.declarations.add("declare i64 @llvm.usub.sat.i64(i64, i64)")
            body(counters[0] if len(counters) == 1 else self._counter(number, first, counters), [])
            self._range = low, high
            return []

        w.span(begin, end, [], step)

    def span(self, axis: str, first: int, count: int) -> tuple[Counter, Counter]:
        """Which of `count` steps of the innermost loop, the first of them its step `first`, are in
        the part: from a number, up to one; none where these cross.
        """
        w, (low, high) = self._w, self._range
        assert self._inside[axis] == 1
        begin = self._either("umax", low, first)
        end = self._either("umin", high, first + count)
        if first == 0:
            return begin, end
        end = self._either("umax", end, first)  # where none are, or else it would be negative
        since = [w.assign(f"sub nuw nsw i64 {x}, {first}") for x in (begin, end)]
        return since[0], since[1]

    def _mirrored(self, number: Counter, begin: str, end: str) -> str:
        """In odd rounds the step that is as far from the `end` as `number` is from `begin`."""
        w = self._w
        last = w.assign(f"add nsw i64 {w.assign(f'add nuw nsw i64 {begin}, {end}')}, -1")
        mirror = w.assign(f"sub nsw i64 {last}, {number}")
        return w.assign(f"select i1 {self._odd}, i64 {mirror}, i64 {number}")

    def _either(self, name: str, a: str, b: int) -> str:
        return self._w.intrinsic(f"llvm.{name}.i64", "i64", [("i64", a), ("i64", str(b))])

    def _counter(self, number: Counter, first: int, counters: range) -> str:
        w = self._w
        text = str(number)
        if first:
            text = w.assign(f"sub nuw nsw i64 {text}, {first}")
        if counters.step > 1:
            text = w.assign(f"mul nuw nsw i64 {text}, {counters.step}")
        return w.assign(f"add nuw nsw i64 {text}, {counters.start}") if counters.start else text
